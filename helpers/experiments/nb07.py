"""Recipes of notebook 07: captions and features of a profile, and the decoders that are compared on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ..captions.captioner import FILE
from ..captions.decoder import AdditiveAttention, CaptionDecoder, DotAttention
from ..captions.encoder import GridEncoder, load_encoder, toy_network
from ..captions.features import cached_features
from ..captions.text import Vocabulary, tokenize
from ..captions.training import Described, Recipe, always_told, exponential, linear, train_captioner
from ..contract import seeded
from ..course.run import Run
from ..data import Batches, load, toy
from ..data.captions import CaptionSet, load_captions, toy_captions
from ..training import fit
from ..training.checkpoints import checkpoint_root, load_weights
from . import once_a_run
from .nb02 import Trained, load_or_train

NOTEBOOK = "07_persian_captioning"


class Photographs(NamedTuple):
    """A profile's set: its name, how many images for training, validation and test, the encoder, epochs of training."""

    name: str
    counts: tuple[int, int, int]
    encoder: dict[str, Any]
    epochs: int


PHOTOGRAPHS = {
    "lite": Photographs("flickr8k-fa", (2_846, 350, 350), {"name": "efficientnet_lite0"}, epochs=9),
    "full": Photographs("coco-flickr-fa-40k", (10_000, 500, 500),
                        {"name": "efficientnet_b7", "size": 380, "grid": 8}, epochs=12),
}  # fmt: skip


class Corpus(NamedTuple):
    """Photographs (or drawn scenes) with captions, split by image into training, validation and test.

    `sets` hold files and captions as they are written, `parts` features and captions as words; `masks` bool
    `(N, S, S)` of the test images' objects, where they are known.
    """

    sets: tuple[CaptionSet, ...]
    parts: tuple[Described, ...]
    encoder: GridEncoder
    masks: Tensor | None = None

    @property
    def vocabulary(self) -> Vocabulary:
        """Of the training captions."""
        return self.parts[0].vocabulary

    @property
    def drawn(self) -> bool:
        """Whether these are the toy world's scenes: only theirs have masks."""
        return self.masks is not None


@dataclass(frozen=True)
class Variant:
    """What is different in one of the decoders; `blind` hides the image, which leaves a language model."""

    attention: type[nn.Module] = AdditiveAttention
    truth: Callable[[float], float] = always_told
    seed: int = 0
    blind: bool = False


VARIANTS = {
    "additive": Variant(),
    "additive, another seed": Variant(seed=1),
    "dot-product": Variant(DotAttention),
    "sampling, linear": Variant(truth=linear),
    "sampling, exponential": Variant(truth=exponential),
    "no image": Variant(blind=True),
}


@once_a_run
def corpus(run: Run) -> Corpus:
    """The profile's captions: drawn scenes, `flickr8k-fa`, or `coco-flickr-fa-40k`; features are cached on disk."""
    if run.profile == "toy":
        return toy_corpus(run)
    chosen = PHOTOGRAPHS[run.profile]
    sets = load_captions(chosen.name).split(*chosen.counts, seed=run.seed)
    return _corpus(run, sets, load_encoder(**chosen.encoder), least=3)


@once_a_run
def toy_corpus(run: Run) -> Corpus:
    """Drawn scenes with captions in Persian, and the masks of the test scenes' objects."""
    drawn = [toy.draw(count, 32, seed) for count, seed in ((1_500, 11), (100, 12), (200, 13))]
    sets = tuple(toy_captions(scenes) for scenes in drawn)
    return _corpus(run, sets, toy_encoder(run), least=1)._replace(masks=drawn[-1].masks)


def _corpus(run: Run, sets: tuple[CaptionSet, ...], encoder: GridEncoder, least: int) -> Corpus:
    words = [[[tokenize(caption) for caption in captions] for captions in part.captions] for part in sets]
    vocabulary = Vocabulary.build((caption for captions in words[0] for caption in captions), least)
    folder = checkpoint_root() / "features"
    features = [cached_features(encoder, part, folder, device=run.device) for part in sets]
    return Corpus(sets, tuple(map(Described, features, words, [vocabulary] * 3)), encoder)


def toy_encoder(run: Run) -> GridEncoder:
    """A small network after learning the toy world's 100 classes: 16 regions of 64 values."""
    train, val = load("toy", "train").take(6_000, run.seed), load("toy", "val").take(200, run.seed)

    def learn(model: nn.Module, folder: Path) -> pd.DataFrame:
        adam = torch.optim.Adam(model.parameters(), lr=1e-2)
        batches = Batches(train, 50, shuffle=True, device=run.device, seed=run.seed)
        cycle = torch.optim.lr_scheduler.OneCycleLR(adam, 1e-2, 3 * len(batches))
        watched = Batches(val, 200, device=run.device)
        return fit(model, batches, watched, epochs=3, optimizer=adam, scheduler=cycle, folder=folder)

    with seeded(run.seed):
        start = toy_network().to(run.device)
    return load_encoder("toy", grid=4, network=load_or_train(run, NOTEBOOK, "toy encoder", start, learn).model)


def new_decoder(data: Corpus, variant: Variant) -> CaptionDecoder:
    """The variant's decoder with its first weights, which its seed decides."""
    sizes = {"embed_dim": 64, "hidden_dim": 192, "dropout": 0.1} if data.drawn else {}
    with seeded(variant.seed):
        return CaptionDecoder(len(data.vocabulary), data.parts[0].features.shape[2], variant.attention, **sizes)


def seen_by(variant: Variant, part: Described) -> Described:
    """What a variant is given: the features, or for the blind one a single region of zeros."""
    if not variant.blind:
        return part
    return replace(part, features=np.zeros((len(part), 1, part.features.shape[2]), np.float16))


def captioner(run: Run, name: str, data: Corpus | None = None) -> Trained:
    """One of `VARIANTS`, trained on `data` (the profile's corpus if left out), with the weights of its best epoch."""
    variant, data = VARIANTS[name], data or corpus(run)
    decoder, recipe = new_decoder(data, variant), recipe_of(run, data, variant)
    folder = run.folder(f"{name}, toy world" if data.drawn and run.profile != "toy" else name)
    train, val = (seen_by(variant, part) for part in data.parts[:2])
    history = train_captioner(decoder, train, val, recipe, folder, run.device, _precision(run, data))
    return Trained(load_weights(decoder, folder / "best.safetensors"), history)


def recipe_of(run: Run, data: Corpus, variant: Variant) -> Recipe:
    """Batches of about 64 captions; for drawn scenes, which have one caption each, 32."""
    if data.drawn:  # the penalty keeps so small a decoder from looking closely at the one thing there is
        epochs = run.pick(toy=4, lite=8, full=8)
        return Recipe(epochs, variant.truth, images=32, lr=6e-3, penalty=0.0, seed=variant.seed)
    captions = sum(map(len, data.parts[0].captions)) / len(data.parts[0])
    return Recipe(PHOTOGRAPHS[run.profile].epochs, variant.truth, max(1, round(64 / captions)), seed=variant.seed)


def _precision(run: Run, data: Corpus) -> str:
    """bfloat16 where the device has it. A decoder of drawn scenes is too small to gain."""
    return "bf16" if run.precision == "bf16" and not data.drawn else "no"


def captioner_file(run: Run) -> Path:
    """Where the notebook saves its captioner, and `python -m helpers.captions` looks for it."""
    return checkpoint_root() / f"{NOTEBOOK}.{run.profile}" / FILE
