"""Imagenette: ten classes of ImageNet that are easy to tell apart, 160 pixels on the shorter side."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from .folders import DataError, read_folder
from .images import ImageSet
from .public import temporary_folder

NAME, FOLDER = "imagenette", "imagenette2-160"
COUNTS = {"train": 9_469, "val": 3_925}


def read_local(root: Path, name: str, split: str, size: int | None) -> ImageSet | None:
    """The extracted archive, `imagenette2-160/{train,val}/<WordNet id>/`, under `root/imagenette` or `root`, or None.

    Raises:
        DataError: a class folder has a name that is none of the ten.
    """
    if name != NAME or split not in COUNTS:
        return None
    parent = next((place for place in (root / name, root) if (place / FOLDER / split).is_dir()), None)
    if parent is None:
        return None
    from torchvision.datasets import Imagenette

    found, words = read_folder(parent, FOLDER, split, size), Imagenette._WNID_TO_CLASS
    if strange := [label for label in found.classes if label not in words]:
        raise DataError(f"{FOLDER}/{split}/{strange[0]} is no class of Imagenette: extract the archive again")
    return replace(found, classes=tuple(words[label][0] for label in found.classes), name=name, source=FOLDER)


def fetch(root: Path, name: str) -> None:
    """Download through torchvision, which checks the MD5, and rename the extracted folder into place."""
    from torchvision.datasets import Imagenette

    with temporary_folder(root) as scratch:
        Imagenette(scratch, size="160px", download=True)
        os.replace(scratch / FOLDER, root / name / FOLDER)
