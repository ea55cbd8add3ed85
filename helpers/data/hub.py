"""Sets from the Hugging Face hub: parquet tables of encoded images with labels or captions."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..contract import tqdm
from .folders import DataError, Read, decode_image, filled
from .images import ImageSet
from .public import temporary_folder

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile


@dataclass(frozen=True)
class Hub:
    """Where a set lies on the hub, and how its columns are called.

    Args:
        repository: `owner/name` there.
        folder: the folder of its tables.
        image: column of the images, each with its file's bytes.
        label: column of the labels, or of the captions.
        rows: how many each split has.
        names: column of the class names; None: they stand in the file's metadata.
        tables: how many of the tables of a split are taken, drawn at random; None: all.
    """

    repository: str
    folder: str
    image: str
    label: str
    rows: dict[str, int]
    names: str | None = None
    tables: int | None = None


SETS = {
    "cifar10": Hub("uoft-cs/cifar10", "plain_text", "img", "label", {"train": 50_000, "test": 10_000}),
    "cifar100": Hub("uoft-cs/cifar100", "cifar100", "img", "fine_label", {"train": 50_000, "test": 10_000}),
    "tomato-leaf-hub": Hub("ArianFiroozi/NNDL_HW5_S2025", "data", "image", "label", {"train": 9_325}, "disease_name"),
    # 99,400 photographs in 30 tables: twelve of them are the 40,000 of the assignment.
    "coco-flickr-fa-40k": Hub("hezarai/coco-flickr-fa", "data", "image_path", "label", {}, tables=12),
}


def read_local(root: Path, name: str, split: str, size: int | None) -> ImageSet | None:
    """The split from the hub's tables in `root/<name>/` (or in a copy of the hub's folder there), or None.

    Raises:
        DataError: a table is damaged, lacks a column or some rows, or the labels do not fit their names.
    """
    files = tables(root, name, split)
    if not files:
        return None
    hub, source = SETS[name], f"hub {SETS[name].repository}"
    classes, labels = _labels(files, hub)
    if len(labels) != hub.rows.get(split):
        raise DataError(f"{name}/{split} has {len(labels)} rows, not {hub.rows.get(split)} ({source}): get it again")
    cells = _cells(files, hub.image)
    images = filled(cells, len(labels), lambda cell: decode_image(cell[1], cell[0], size), f"{name}/{split}")
    return ImageSet(images, labels, classes, name, split, source)


def tables(root: Path, name: str, split: str) -> list[Path]:
    """The files of a split that are there: `train.parquet`, or the hub's `train-00000-of-00002.parquet` and so on."""
    if name not in SETS:
        return []
    folders = (root / name, root / name / SETS[name].folder)
    return sorted(path for folder in folders for path in folder.glob(f"{split}*.parquet"))


def fetch(root: Path, name: str) -> None:
    """Download the hub's tables; those of a split are renamed into place when they are whole."""
    from huggingface_hub import hf_hub_download, list_repo_files

    hub = SETS[name]
    offered = sorted(list_repo_files(hub.repository, repo_type="dataset"))
    with temporary_folder(root) as scratch:
        for split in hub.rows or ["train"]:
            wanted = [file for file in offered if re.fullmatch(rf"{hub.folder}/{split}-.*\.parquet", file)]
            if hub.tables and len(wanted) > hub.tables:
                wanted = sorted(random.Random(0).sample(wanted, hub.tables))
            files = [
                Path(hf_hub_download(hub.repository, file, repo_type="dataset", local_dir=scratch)) for file in wanted
            ]
            found = sum(_opened(file, [hub.image, hub.label]).metadata.num_rows for file in files)
            if found != hub.rows.get(split, found) or not found:
                raise DataError(f"the hub's {name}/{split} has {found} rows, not {hub.rows.get(split)}")
            for file in files:
                os.replace(file, root / name / file.name)


def captioned(files: Sequence[Path], hub: Hub) -> tuple[dict[str, list[str]], Read, list[str]]:
    """Captions by image, how to get an image's bytes, and what could not be used.

    An image's bytes stay in the table until they are asked for; of a table one group of rows is held at a time.
    """
    found: dict[str, list[str]] = {}
    spots: dict[str, tuple[Path, int, int]] = {}
    left_out: list[str] = []
    for path in tqdm(files, desc="reading captions", leave=False):
        file = _opened(path, [hub.image, hub.label])
        for group in range(file.num_row_groups):
            columns = _group(path, group, [f"{hub.image}.path", hub.label])
            for row, (cell, caption) in enumerate(zip(columns[hub.image], columns[hub.label], strict=True)):
                image = cell["path"] or f"{path.stem}-{group}-{row}"
                if (caption or "").strip():
                    found.setdefault(image, []).append(caption.strip())
                    spots.setdefault(image, (path, group, row))
                else:
                    left_out.append(f"{path.name}, group {group}, row {row}: no caption")

    @lru_cache(maxsize=1)
    def images(path: Path, group: int) -> list[dict]:
        return _group(path, group, [f"{hub.image}.bytes"])[hub.image]

    def read(image: str) -> bytes:
        path, group, row = spots[image]
        return images(path, group)[row]["bytes"]

    return found, read, left_out


def _labels(files: Sequence[Path], hub: Hub) -> tuple[tuple[str, ...], Tensor]:
    """Class names and int64 labels `(N,)`."""
    columns = [hub.label, *([hub.names] if hub.names else [])]
    opened = [_opened(path, [hub.image, *columns]) for path in files]
    parts = [_read(path, file.read, columns).to_pydict() for path, file in zip(files, opened, strict=True)]
    labels = [label for part in parts for label in part[hub.label]]
    if hub.names is None:
        info = json.loads(opened[0].schema_arrow.metadata[b"huggingface"])["info"]["features"]
        return tuple(info[hub.label]["names"]), torch.tensor(labels)
    pairs = sorted({pair for part in parts for pair in zip(part[hub.label], part[hub.names], strict=True)})
    if [label for label, _ in pairs] != list(range(len(pairs))):
        raise DataError(f"{files[0].name}: {hub.label} and {hub.names} do not number the classes: {pairs[:12]}")
    return tuple(name for _, name in pairs), torch.tensor(labels)


def _cells(files: Sequence[Path], column: str) -> Iterator[tuple[str, bytes]]:
    """What to call each image in a message, and its bytes."""
    for path in files:
        batches = _opened(path, [column]).iter_batches(64, columns=[f"{column}.bytes"])
        first = 0
        while batch := _read(path, next, batches, None):
            for row, cell in enumerate(batch.column(0).to_pylist(), first):
                yield f"row {row} of {path.name}", cell["bytes"]
            first += len(batch)


def _group(path: Path, group: int, columns: list[str]) -> dict[str, list]:
    return _read(path, _opened(path, []).read_row_group, group, columns).to_pydict()


def _opened(path: Path, columns: Sequence[str]) -> ParquetFile:
    """The table, once it is sure that it has these columns."""
    from pyarrow.parquet import ParquetFile

    file = _read(path, ParquetFile, path, buffer_size=1 << 20)  # else it may read a whole column at once
    present = file.schema_arrow.names
    if lacking := [column for column in columns if column not in present]:
        raise DataError(f"{path.name} has no column {lacking[0]}, only {', '.join(present)}: get it again")
    return file


def _read[Result](path: Path, action: Callable[..., Result], *arguments: object, **options: object) -> Result:
    from pyarrow import ArrowException

    try:
        return action(*arguments, **options)
    except (ArrowException, OSError) as error:
        name = f"{path.parent.name}/{path.name}"
        raise DataError(f"{name} is damaged ({str(error).splitlines()[0]}): delete it and get it again") from error
