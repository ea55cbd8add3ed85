"""Read a set from a folder of class folders, or from the zip of one, into memory."""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import batched
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..contract import tqdm
from .images import ImageSet

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".webp"}
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError)  # what a broken zip raises
Read = Callable[[str], bytes]  # the name of a file in the set to its bytes


class DataError(RuntimeError):
    """A set is missing or damaged; the message says which, where it was looked for, and what to do."""


def read_folder(root: Path, name: str, split: str, size: int | None = None) -> ImageSet:
    """`root/<name>/<split>/<class>/<image>`; classes are numbered in alphabetical order.

    Args:
        size: the shorter side is resized to it and the middle cropped; None: the images have one size already.
    """
    files: list[str] = []
    for label in sorted(entry.name for entry in os.scandir(root / name / split) if entry.is_dir()):
        folder = f"{name}/{split}/{label}"
        found = sorted(f"{folder}/{file}" for file in os.listdir(root / folder) if _is_image(file))
        if not found:
            raise DataError(f"class folder {folder} holds no image: extract the set again")
        files += found
    return _labelled(files, lambda file: (root / file).read_bytes(), name, split, f"folder {name}/{split}", size)


def read_zip(path: Path, name: str, split: str, size: int | None = None) -> ImageSet:
    """The same layout inside `<name>.zip`, read without extracting it. Damaged zips raise DataError."""
    try:
        with zipfile.ZipFile(path) as archive:
            files, read = _slim(archive, f"{name}/{split}/")
            return _labelled(files, read, name, split, f"archive {path.name}", size)
    except DAMAGED as error:
        raise DataError(f"{path.name} is damaged or cut short ({error}): download it again") from error


def _slim(archive: zipfile.ZipFile, start: str) -> tuple[list[str], Read]:
    """The images `<start><class>/<image>`, and `archive.read` for them.

    A zip's directory takes 700 bytes for each file, a quarter of a small image. So what is needed of it goes into
    arrays, and all that was made with it is let go, the names too (else they would hold its memory).
    """
    found = sorted(file for file in archive.namelist() if file.startswith(start) and _is_image(file))
    found = [file for file in found if file.count("/") == 3]
    kept = ("header_offset", "compress_size", "file_size", "CRC", "compress_type", "flag_bits")
    columns = {
        key: np.fromiter((getattr(archive.getinfo(file), key) for file in found), np.int64, len(found)) for key in kept
    }
    text = "\n".join(found)
    del found
    archive.filelist.clear()
    archive.NameToInfo.clear()
    files = text.split("\n") if text else []
    row_of = {file: row for row, file in enumerate(files)}

    def read(file: str) -> bytes:
        info = zipfile.ZipInfo(file)
        for key, column in columns.items():
            setattr(info, key, int(column[row_of[file]]))
        return archive.read(info)

    return files, read


def _is_image(file: str) -> bool:
    return PurePosixPath(file).suffix.lower() in SUFFIXES


def _labelled(files: list[str], read: Read, name: str, split: str, source: str, size: int | None) -> ImageSet:
    """Images whose class is the folder they lie in."""
    if not files:
        raise DataError(f"{source} holds no image under {name}/{split}/<class>/: is it the right archive?")
    labels = [file.rsplit("/", 2)[1] for file in files]
    classes = tuple(sorted(set(labels)))
    number = {label: index for index, label in enumerate(classes)}
    images = decode_files(files, read, f"{name}/{split}", size)
    return ImageSet(images, torch.tensor([number[label] for label in labels]), classes, name, split, source)


def decode_files(files: Sequence[str], read: Read, shown: str, size: int | None) -> Tensor:
    """uint8 `(N, 3, H, W)` of image files, in their order; `shown` names the set in a message."""
    return filled(files, len(files), lambda file: decode_image(read(file), file, size), shown)


def filled[Item](items: Iterable[Item], count: int, decode: Callable[[Item], np.ndarray], shown: str) -> Tensor:
    """uint8 `(count, 3, H, W)`, each item decoded to uint8 `(H, W, 3)` by a thread, straight into its place.

    Next to the tensor itself nothing of the set's size is held: not the decoded images, and no future for each.

    Raises:
        DataError: two images differ in size.
    """
    items = iter(items)
    first = decode(next(items))
    images = torch.empty(count, 3, *first.shape[:2], dtype=torch.uint8)
    images[0] = torch.from_numpy(first.transpose(2, 0, 1).copy())
    places = images.numpy()

    def place(numbered: tuple[int, Item]) -> None:
        pixels = decode(numbered[1])
        if pixels.shape != first.shape:
            sizes = " and ".join("{1} x {0}".format(*array.shape) for array in (first, pixels))
            raise DataError(f"images of {shown} differ in size, such as {sizes}: pass `size=` to `load`")
        places[numbered[0]] = pixels.transpose(2, 0, 1)

    bar = tqdm(total=count, initial=1, desc=f"reading {shown}", leave=False, mininterval=1)
    with ThreadPoolExecutor(os.cpu_count()) as pool, bar:
        for part in batched(enumerate(items, 1), 512):
            for _ in pool.map(place, part):
                bar.update()
    return images


def decode_image(data: bytes, shown: str, size: int | None = None) -> np.ndarray:
    """Bytes of an image file to uint8 `(H, W, 3)`; DataError names the file (`shown`) if they are no image."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image = image.convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise DataError(f"{shown} is not an image that can be read ({error}): delete it or get it again") from error
    return np.asarray(image if size is None else to_square(image, size))


def to_square(image: Image.Image, size: int) -> Image.Image:
    """Shorter side to `size`, then the middle `size` x `size` pixels: shapes keep their proportions."""
    scale = size / min(image.size)
    image = image.resize(
        (max(size, round(image.width * scale)), max(size, round(image.height * scale))), Image.Resampling.BICUBIC
    )
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))
