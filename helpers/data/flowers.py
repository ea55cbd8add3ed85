"""Oxford Flowers-102 (Nilsback and Zisserman 2008) as torchvision lays it out, in a folder or zipped.

`flowers-102/jpg/image_00001.jpg` and so on, with two tables: `imagelabels.mat` (class of each image, from 1) and
`setid.mat` (the official split: which image is in which part).
"""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import torch

from .folders import DAMAGED, DataError, Read, decode_files
from .images import ImageSet
from .public import temporary_folder

NAME = "flowers-102"
ROWS = {"train": 1_020, "val": 1_020, "test": 6_149}
SPLIT_KEY = {"train": "trnid", "val": "valid", "test": "tstid"}
PARTS = ("jpg", "imagelabels.mat", "setid.mat")


def read_local(root: Path, name: str, split: str, size: int | None) -> ImageSet | None:
    """The split from `root/flowers-102/` or `root/flowers-102.zip`; None where neither has this layout.

    Raises:
        DataError: a part of the set is missing or damaged, or there is no such split.
    """
    folder, archive = root / NAME, root / f"{NAME}.zip"
    if name != NAME:
        return None
    if split not in ROWS:
        raise DataError(f"{NAME} has the splits {', '.join(ROWS)}, not {split!r}")
    if any((folder / part).exists() for part in PARTS):
        files = {f"{NAME}/{part}" for part in PARTS if (folder / part).is_file()}
        files |= {f"{NAME}/jpg/{path.name}" for path in (folder / "jpg").glob("*.jpg")}
        return _read(files, lambda file: (root / file).read_bytes(), split, size, f"folder {NAME}")
    return _read_zip(archive, split, size) if archive.is_file() else None


def _read_zip(path: Path, split: str, size: int | None) -> ImageSet | None:
    try:
        with zipfile.ZipFile(path) as archive:
            files = {file for file in archive.namelist() if file.startswith(f"{NAME}/")}
            if not any(file.split("/")[1] in PARTS for file in files):
                return None
            return _read(files, archive.read, split, size, f"archive {path.name}")
    except DAMAGED as error:
        raise DataError(f"{path.name} is damaged or cut short ({error}): get it again") from error


def _read(files: set[str], opened: Read, split: str, size: int | None, source: str) -> ImageSet:
    from torchvision.datasets import Flowers102

    classes, again = tuple(Flowers102.classes), f"({source}): delete it and get it again"
    numbers = _table(files, opened, "setid.mat", SPLIT_KEY[split], again)
    label_of = _table(files, opened, "imagelabels.mat", "labels", again)
    if len(numbers) != ROWS[split]:
        raise DataError(f"setid.mat gives {NAME}/{split} {len(numbers):,} images, not {ROWS[split]:,} {again}")
    if len(label_of) < numbers.max() or set(label_of.tolist()) != set(range(1, len(classes) + 1)):
        raise DataError(f"imagelabels.mat is not a label in 1 .. {len(classes)} for every image {again}")
    names = [f"{NAME}/jpg/image_{number:05d}.jpg" for number in numbers]
    if lacking := [name for name in names if name not in files]:
        raise DataError(f"{NAME}/{split} lacks {len(lacking)} of {len(names):,} images, such as {lacking[0]} {again}")
    labels = torch.from_numpy(label_of[numbers - 1] - 1)  # images and classes both count from 1
    images = decode_files(names, opened, f"{NAME}/{split}", size)
    return ImageSet(images, labels, classes, NAME, split, source)


def _table(files: set[str], opened: Read, file: str, key: str, again: str) -> np.ndarray:
    """One vector of a MATLAB file."""
    from scipy.io import loadmat

    if f"{NAME}/{file}" not in files:
        raise DataError(f"{NAME} lacks {file} {again}")
    content = opened(f"{NAME}/{file}")
    try:
        return np.atleast_1d(loadmat(io.BytesIO(content), squeeze_me=True)[key]).astype(np.int64)
    except Exception as error:  # scipy's reader raises whatever the damaged bytes lead it to
        raise DataError(f"{file} of {NAME} cannot be read: {type(error).__name__} {again}") from error


def fetch(root: Path, name: str) -> None:
    """Download through torchvision, which checks the MD5s, and move the parts into place, the tables last."""
    from torchvision.datasets import Flowers102

    with temporary_folder(root) as scratch:
        Flowers102(scratch, download=True)
        for part in PARTS:
            os.replace(scratch / NAME / part, root / name / part)
