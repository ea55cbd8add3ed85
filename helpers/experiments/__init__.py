"""Scaffolding: what notebooks 03 and 04 still import; each file goes when its notebook is rewritten."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from torch import nn

from ..course.run import Run
from ..data import ImageSet
from ..training.checkpoints import load_weights


class Split(NamedTuple):
    """Images to learn from, to choose by, and to report on."""

    train: ImageSet
    val: ImageSet
    test: ImageSet


class Trained(NamedTuple):
    """A model and its history, one row an epoch."""

    model: nn.Module
    history: pd.DataFrame


def once_a_run[T](make: Callable[[Run], T]) -> Callable[[Run], T]:
    """What `make` gives for a run's profile and seed, made once and kept on the run itself."""

    @wraps(make)
    def kept(run: Run) -> T:
        made, key = vars(run).setdefault("made", {}), (make, run.profile, run.seed)
        if key not in made:
            made[key] = make(run)
        return made[key]

    return kept


def load_or_train(run: Run, notebook: str, name: str, model: nn.Module,
                  train: Callable[[nn.Module, Path], pd.DataFrame]) -> Trained:  # fmt: skip
    """The best weights of a training, and its history.

    `train` calls `fit` with that folder, which compares settings: a finished training costs nothing, one that was
    stopped goes on, and one that was asked for with other settings is done anew in a folder beside it.
    """
    folder = run.folder(name, notebook)
    history = train(model, folder)
    return Trained(load_weights(model, folder / "best.safetensors"), history)
