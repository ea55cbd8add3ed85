"""MiniPlaces (100 scenes out of Places2) as its course hands it out: `images/{train,val}/` and two lists of labels.

The lists, `train.txt` and `val.txt`, have a line `train/a/abbey/00000001.jpg 0` for each image. The labels of the test
images were never published: they are no split.
"""

from __future__ import annotations

import gzip
import os
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import torch

from ..contract import tqdm
from .folders import DataError, decode_files
from .images import ImageSet
from .public import temporary_folder

NAME = "miniplaces"
COUNTS = {"train": 100_000, "val": 10_000}
HOST = "http://miniplaces.csail.mit.edu/data/data.tar.gz"
MD5 = "265825ec94f79390e4f1e38045a69059"  # as a public loader of the set has it
LISTS = "https://raw.githubusercontent.com/CSAILVision/miniplaces/master/data/"  # also in some copies of the archive


def read_local(root: Path, name: str, split: str, size: int | None) -> ImageSet | None:
    """The split from `root/miniplaces/{images,train.txt,val.txt}`; None where that, or a part of it, is not there.

    An archive `miniplaces/data.tar.gz` or `miniplaces.tar.gz` is extracted first.

    Raises:
        DataError: the archive is damaged or unsafe, images are missing, or there is no such split.
    """
    folder = root / NAME
    if name != NAME:
        return None
    archives = [path for path in (folder / "data.tar.gz", root / f"{NAME}.tar.gz") if path.is_file()]
    if archives and not (folder / "images").is_dir():
        extract(archives[0], folder)
    if not all((folder / part).exists() for part in ("images", "train.txt", "val.txt")):
        return None
    if split not in COUNTS:
        raise DataError(f"{NAME} has the splits {', '.join(COUNTS)}, not {split!r} (test images have no labels)")
    return _read(folder, split, size)


def _read(folder: Path, split: str, size: int | None) -> ImageSet:
    listed, names = _listed(folder / f"{split}.txt"), {}
    for file, label in _listed(folder / "train.txt"):
        names[label] = "_".join(PurePosixPath(file).parts[2:-1])  # train/b/bakery/shop/00000001.jpg
    if set(names) != set(range(len(names))) or not {label for _, label in listed} <= set(names):
        raise DataError(f"train.txt and {split}.txt of {NAME} do not number the classes from 0 on: get them again")
    files = [f"{NAME}/images/{file}" for file, _ in listed]
    if lacking := [file for file in files if not (folder.parent / file).is_file()]:
        count = f"{len(lacking):,} of {len(files):,}"
        raise DataError(f"{NAME}/{split} lacks {count} images, such as {lacking[0]}: get it again")
    images = decode_files(files, lambda file: (folder.parent / file).read_bytes(), f"{NAME}/{split}", size)
    labels = torch.tensor([label for _, label in listed])
    return ImageSet(images, labels, tuple(names[label] for label in sorted(names)), NAME, split, "its course's files")


def _listed(path: Path) -> list[tuple[str, int]]:
    """Each image's path, and its label."""
    lines = [line.rsplit(maxsplit=1) for line in path.read_text().splitlines() if line.strip()]
    if not lines or any(len(line) != 2 or not line[1].isdecimal() for line in lines):
        raise DataError(f"{NAME}/{path.name} is not a list of lines `path label`: get it again")
    return [(file, int(label)) for file, label in lines]


def extract(archive: Path, folder: Path) -> None:
    """Training and validation images and the lists, from the archive into `folder`; all or nothing.

    Raises:
        DataError: the archive is damaged, holds no images, or a file of it would land outside of the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with temporary_folder(folder) as scratch, tarfile.open(archive) as packed:
            packed.extractall(scratch, _wanted(packed), filter="data")
            if not (scratch / "images").is_dir():
                raise DataError(f"{archive.name} holds no images/: is it the right archive?")
            for part in sorted(os.listdir(scratch), reverse=True):  # the images last: they say that all is there
                os.replace(scratch / part, folder / part)
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        said = str(error).splitlines()[0]
        raise DataError(f"{archive.name} is damaged, cut short or unsafe ({said}): get it again") from error


def _wanted(packed: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in tqdm(packed, desc=f"extracting {NAME}", unit=" files", leave=False, mininterval=1):
        parts = PurePosixPath(member.name).parts
        if parts[:2] in (("images", "train"), ("images", "val")) or parts in (("train.txt",), ("val.txt",)):
            yield member


def fetch(root: Path, name: str) -> None:
    """Download what is missing of archive and lists; the archive's MD5 and the lists' lengths are checked."""
    from torchvision.datasets.utils import download_url

    folder = root / name
    with temporary_folder(root) as scratch:
        if not (folder / "images").is_dir():
            download_url(HOST, scratch, "data.tar.gz", MD5)
            extract(scratch / "data.tar.gz", folder)
        for split, count in COUNTS.items():
            file = f"{split}.txt"
            if not (folder / file).is_file():
                download_url(LISTS + file, scratch, file)
                if set(Counter(label for _, label in _listed(scratch / file)).values()) != {count // 100}:
                    raise DataError(f"{LISTS + file} does not list {count // 100} images of each class")
                os.replace(scratch / file, folder / file)
