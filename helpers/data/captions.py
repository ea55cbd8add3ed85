"""Photographs with captions: a folder, or the zip of one, with `images/` and `data.csv`; or tables from the hub."""

from __future__ import annotations

import csv
import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import hub
from .folders import DAMAGED, SUFFIXES, DataError, Read, decode_image
from .loading import data_root, fetch
from .toy import Scenes

TABLE, FOLDER = "data.csv", "images"
HEADERS = {("image", "caption"), ("caption", "image")}


@dataclass(frozen=True, eq=False)
class CaptionSet:
    """Images by name, each with its captions; pixels are read when they are asked for.

    Args:
        names: file name of each image.
        captions: for each image one caption or more, as they are written.
        read: gives the bytes of an image file.
        source: where this copy was read from, without folders.
        left_out: what could not be used, a sentence for each: a caption without image, a broken line.
    """

    names: tuple[str, ...] = field(repr=False)
    captions: tuple[tuple[str, ...], ...] = field(repr=False)
    read: Read = field(repr=False)
    source: str
    left_out: tuple[str, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: Sequence[int] | Tensor) -> CaptionSet:
        """The images at these places, with all their captions."""
        places = torch.as_tensor(index).tolist()
        names, captions = (tuple(part[place] for place in places) for part in (self.names, self.captions))
        return replace(self, names=names, captions=captions)

    def image(self, place: int, size: int | None = None) -> Tensor:
        """uint8 `(3, H, W)`, 0 to 255; with `size`, the shorter side resized to it and the middle cropped."""
        pixels = decode_image(self.read(self.names[place]), self.names[place], size)
        return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)

    def describe(self) -> dict[str, object]:
        """What a results file says of this set."""
        text = "\n".join("\t".join([name, *own]) for name, own in zip(self.names, self.captions, strict=True))
        captions = sum(map(len, self.captions))
        crc = f"{zlib.crc32(text.encode()):08x}"
        return {"name": "captions", "source": self.source, "examples": len(self), "captions": captions, "crc32": crc}

    def split(self, *counts: int, seed: int = 0) -> tuple[CaptionSet, ...]:
        """Disjoint sets of so many images each, drawn at random; an image's captions stay together.

        Raises:
            ValueError: there are not so many images.
        """
        if min(counts) < 1 or sum(counts) > len(self):
            raise ValueError(f"cannot take {' + '.join(map(str, counts))} of {len(self)} images")
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return tuple(self[part.sort().values] for part in order[: sum(counts)].split(list(counts)))


def toy_captions(scenes: Scenes) -> CaptionSet:
    """Drawn scenes as a set, a Persian caption each; an image's file is made when it is read."""

    def read(name: str) -> bytes:
        file = io.BytesIO()
        Image.fromarray(scenes.images[int(name[6:10])].permute(1, 2, 0).numpy()).save(file, "PNG")
        return file.getvalue()

    names = tuple(f"scene_{number:04d}.png" for number in range(len(scenes.images)))
    return CaptionSet(names, tuple((caption,) for caption in scenes.captions()), read, "drawn")


def load_captions(name: str, table: str = TABLE) -> CaptionSet:
    """The set `name` under `$DATA_ROOT`: `<name>/images/` and `<name>/data.csv` (or both in `<name>/dataset/`), or both
    in `<name>.zip`; `coco-flickr-fa-40k` also as the hub's tables, which are downloaded where nothing else is.

    The table has a line `image,caption` for each caption, in UTF-8, with or without BOM. A header (either order) may
    come first; captions may hold commas, in quotes or not.

    Args:
        table: another table's name, such as `"data_en.csv"`.

    Raises:
        DataError: there is no such set, it is damaged, or none of its lines can be used.
    """
    root = data_root()
    archive = root / f"{name}.zip"
    for folder in (root / name, root / name / "dataset"):
        if (folder / table).is_file():
            return _from_folder(folder, f"folder {name}", table)
    if archive.is_file():
        return _from_zip(archive, table)
    missing = (
        f"no captions {name}: neither {name}/{table} nor {name}.zip is in {root}. Put the set there (data/README.md "
        "says where it comes from), or set DATA_ROOT to the folder that has it."
    )
    if name not in hub.SETS:
        raise DataError(missing)
    if not hub.tables(root, name, "train"):
        fetch(root, name, (("the Hugging Face hub", hub.fetch),), missing)
    return _from_hub(hub.tables(root, name, "train"), name)


def _from_hub(files: Sequence[Path], name: str) -> CaptionSet:
    found, read, left_out = hub.captioned(files, hub.SETS[name])
    source = f"hub {hub.SETS[name].repository}, {len(files)} tables"
    if not found:
        raise DataError(f"no row of {name} ({source}) has a caption: get it again")
    return CaptionSet(tuple(found), tuple(map(tuple, found.values())), read, source, tuple(left_out))


def _from_folder(folder: Path, source: str, table: str) -> CaptionSet:
    present = {file.name for file in (folder / FOLDER).glob("*") if file.suffix.lower() in SUFFIXES}
    text = (folder / table).read_bytes()
    return _assembled(text, present, lambda image: (folder / FOLDER / image).read_bytes(), source, table)


def _from_zip(path: Path, table: str) -> CaptionSet:
    try:
        archive = zipfile.ZipFile(path)  # stays open: images are read from it later
        files = {PurePosixPath(file).parts[-2:]: file for file in archive.namelist() if not file.endswith("/")}
        tables = [file for parts, file in files.items() if parts[-1] == table]
        if not tables:
            raise DataError(f"{path.name} holds no {table}: is it the right archive?")
        present = {parts[1]: file for parts, file in files.items() if parts[0] == FOLDER}
        text = archive.read(tables[0])
    except DAMAGED as error:
        raise DataError(f"{path.name} is damaged or cut short ({error}): download it again") from error
    return _assembled(text, present, lambda image: archive.read(present[image]), f"archive {path.name}", table)


def _assembled(data: bytes, present: Mapping[str, str] | set[str], read: Read, source: str, table: str) -> CaptionSet:
    """Lines and images brought together; what does not fit is noted."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{table} of {source} is not UTF-8 ({error}): save it as UTF-8") from error
    found: dict[str, list[str]] = {}
    left_out: list[str] = []
    for number, image, caption in _lines(text):
        if not image or not caption:
            left_out.append(f"line {number}: {'no caption' if image else 'no image and caption, separated by a comma'}")
        elif image not in present:
            left_out.append(f"line {number}: the image {image} is missing")
        else:
            found.setdefault(image, []).append(caption)
    left_out += [f"the image {image} has no caption" for image in sorted(set(present) - set(found))]
    if not found:
        raise DataError(f"no line of {table} in {source} can be used; first: {(left_out or ['it is empty'])[0]}")
    names = tuple(sorted(found))
    return CaptionSet(names, tuple(tuple(found[name]) for name in names), read, source, tuple(left_out))


def _lines(text: str) -> Iterator[tuple[int, str, str]]:
    """Number, image and caption of each line; empty where the line has none. Each line by itself: a quotation mark
    that is never closed spoils only its own."""
    image_first = True
    for number, line in enumerate(text.splitlines(), 1):
        cells = [cell.strip() for cell in next(csv.reader([line], skipinitialspace=True), [])]
        if number == 1 and tuple(cell.lower() for cell in cells) in HEADERS:
            image_first = cells[0].lower() == "image"
        elif line.strip():
            image, caption = (cells[:1], cells[1:]) if image_first else (cells[-1:], cells[:-1])
            known = len(cells) > 1
            yield number, image[0] if known else "", ",".join(caption).strip() if known else ""
