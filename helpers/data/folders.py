"""Read a set from a folder of class folders, or from the zip of one, into memory."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..contract import tqdm
from .images import ImageSet

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".webp"}
Read = Callable[[], bytes]
Entry = tuple[str, str, Read]  # class name, name to show in an error, how to get the bytes


class DataError(RuntimeError):
    """A set is missing or damaged; the message says which, where it was looked for, and what to do."""


def read_folder(root: Path, name: str, split: str, size: int | None = None) -> ImageSet:
    """`root/<name>/<split>/<class>/<image>`; classes are numbered in alphabetical order.

    Args:
        size: the shorter side is resized to it and the middle cropped; None: the images have one size already.
    """
    folder = root / name / split
    entries: list[Entry] = []
    for class_folder in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = sorted(path for path in class_folder.iterdir() if path.suffix.lower() in SUFFIXES)
        if not files:
            raise DataError(f"class folder {name}/{split}/{class_folder.name} holds no image: extract the set again")
        entries += [
            (class_folder.name, f"{name}/{split}/{class_folder.name}/{path.name}", path.read_bytes) for path in files
        ]
    return _decode(entries, name, split, f"folder {name}/{split}", size)


def read_zip(path: Path, name: str, split: str, size: int | None = None) -> ImageSet:
    """The same layout inside `<name>.zip`, read without extracting it. Damaged zips raise DataError."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = list(_zip_entries(archive, name, split))
            return _decode(entries, name, split, f"archive {path.name}", size)
    except (zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"{path.name} is damaged or cut short ({error}): download it again") from error


def _zip_entries(archive: zipfile.ZipFile, name: str, split: str) -> Iterator[Entry]:
    for info in sorted(archive.infolist(), key=lambda info: info.filename):
        parts = PurePosixPath(info.filename).parts
        if len(parts) == 4 and parts[:2] == (name, split) and PurePosixPath(parts[3]).suffix.lower() in SUFFIXES:
            # Opened by name: a ZipFile reads from one shared file, and is locked for that.
            yield parts[2], info.filename, lambda info=info: archive.read(info)


def _decode(entries: list[Entry], name: str, split: str, source: str, size: int | None) -> ImageSet:
    if not entries:
        raise DataError(f"{source} holds no image under {name}/{split}/<class>/: is it the right archive?")
    classes = tuple(sorted({entry[0] for entry in entries}))
    number = {label: index for index, label in enumerate(classes)}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pixels = list(
            tqdm(
                pool.map(lambda entry: decode_image(entry[2](), entry[1], size), entries),
                total=len(entries),
                desc=f"reading {name}/{split}",
                leave=False,
                mininterval=1,
            )
        )
    return ImageSet(
        stack(pixels, name), torch.tensor([number[entry[0]] for entry in entries]), classes, name, split, source
    )


def decode_image(data: bytes, shown: str, size: int | None = None) -> np.ndarray:
    """Bytes of an image file to uint8 `(H, W, 3)`; DataError names the file (`shown`) if they are no image."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image = image.convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise DataError(f"{shown} is not an image that can be read ({error}): delete it or get it again") from error
    return np.asarray(image if size is None else _fit(image, size))


def _fit(image: Image.Image, size: int) -> Image.Image:
    """Shorter side to `size`, then the middle `size` x `size` pixels: shapes keep their proportions."""
    scale = size / min(image.size)
    image = image.resize(
        (max(size, round(image.width * scale)), max(size, round(image.height * scale))), Image.Resampling.BICUBIC
    )
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def stack(pixels: list[np.ndarray], name: str) -> Tensor:
    """uint8 `(H, W, 3)` arrays to one uint8 `(N, 3, H, W)` tensor; they must have one size."""
    shapes = {array.shape for array in pixels}
    if len(shapes) > 1:
        raise DataError(
            f"images of {name} have {len(shapes)} sizes, such as {sorted(shapes)[:3]}: pass `size=` to `load`"
        )
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
