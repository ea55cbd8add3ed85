"""CIFAR in torchvision's own files, and the folder that downloads are made in."""

from __future__ import annotations

import os
import pickle
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .folders import DataError, filled, to_square
from .images import ImageSet

LABEL = {"cifar10": b"labels", "cifar100": b"fine_labels"}


@contextmanager
def temporary_folder(root: Path) -> Iterator[Path]:
    """A folder on the same disk (a rename must not copy), gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=".download-", dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_local(root: Path, name: str, split: str, size: int | None) -> ImageSet | None:
    """CIFAR from torchvision's folder under `root/<name>` or `root`, or None if there is none.

    Raises:
        DataError: a file is missing or has another MD5 than torchvision's.
    """
    if name not in LABEL or split not in ("train", "test"):
        return None
    folders = (parent / _torchvision_class(name).base_folder for parent in (root / name, root))
    folder = next((folder for folder in folders if folder.is_dir()), None)
    return None if folder is None else _read(folder, name, split, size)


def fetch(root: Path, name: str) -> None:
    """Download through torchvision, which checks the MD5, and rename the extracted folder into place."""
    kind = _torchvision_class(name)
    with temporary_folder(root) as scratch:
        kind(scratch, download=True)
        os.replace(scratch / kind.base_folder, root / name / kind.base_folder)


def _read(folder: Path, name: str, split: str, size: int | None) -> ImageSet:
    """Read without torchvision's class, which holds the set three times over."""
    kind = _torchvision_class(name)
    entries = kind.train_list if split == "train" else kind.test_list
    files = [checked(folder, *entry, name) for entry in [*entries, (kind.meta["filename"], kind.meta["md5"])]]
    pixels = np.empty((sum(file.stat().st_size for file in files) // 3_072, 3_072), np.uint8)  # names need a few rows
    labels: list[int] = []
    for file in files[:-1]:
        labels += unpickled(file, pixels[len(labels) :])[LABEL[name]]
    images = torch.from_numpy(pixels[: len(labels)]).view(-1, 3, 32, 32)
    if size is not None:
        images = filled(images, len(images), lambda image: _resized(image, size), f"{name}/{split}")
    classes = tuple(label.decode() for label in unpickled(files[-1], pixels[:0])[kind.meta["key"].encode()])
    return ImageSet(images, torch.tensor(labels), classes, name, split, "torchvision files")


def _resized(image: Tensor, size: int) -> np.ndarray:
    return np.asarray(to_square(Image.fromarray(image.permute(1, 2, 0).numpy()), size))


def checked(folder: Path, file: str, md5: str, name: str) -> Path:
    """One of torchvision's files. DataError: it is missing, or has another MD5."""
    from torchvision.datasets.utils import check_integrity

    if not check_integrity(folder / file, md5):
        raise DataError(f"{name}/{folder.name}/{file} is missing or damaged: delete {folder.name} and get it again")
    return folder / file


def unpickled(path: Path, pixels: np.ndarray) -> dict[bytes, list]:
    """What a file of CIFAR holds; its pixels are read into the rows of `pixels`, uint8."""
    with path.open("rb") as file:
        return _Unpickler(_File(file, pixels), encoding="bytes").load()


class _File:
    """A pickle's bytes, its pixels apart: those are read straight into `pixels`, and the pickle gets none."""

    def __init__(self, file: BinaryIO, pixels: np.ndarray) -> None:
        self.file, self.pixels, self.readline = file, pixels.reshape(-1), file.readline

    def read(self, count: int) -> bytes:
        if count < 3_072:  # nothing else is that long
            return self.file.read(count)
        self.file.readinto(self.pixels[:count])
        return b""


class _Unpickler(pickle._Unpickler):  # in Python: the one in C copies each string that it reads
    """Makes lists, numbers and names; what a file asks for beyond that is never looked up."""

    def find_class(self, module: str, name: str) -> type:
        return _Ignored


class _Ignored:
    """Stands for numpy's array and its parts."""

    def __init__(self, *arguments: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


def _torchvision_class(name: str) -> type:
    from torchvision import datasets

    return {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
