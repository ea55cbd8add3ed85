"""CIFAR as the public hosts give it: the Hugging Face copy (parquet) and torchvision's own files."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from .folders import DataError, decode_image, stack
from .images import ImageSet

LABEL = {"cifar10": "label", "cifar100": "fine_label"}
HUB_FOLDER = {"cifar10": "plain_text", "cifar100": "cifar100"}
TORCHVISION_FOLDER = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
ROWS = {"train": 50_000, "test": 10_000}


def read_local(root: Path, name: str, split: str, size: int | None) -> ImageSet | None:
    """The downloaded parquet or torchvision's folder under `root`, or None if there is neither."""
    if (root / name / f"{split}.parquet").is_file():
        return read_parquet(root / name / f"{split}.parquet", name, split, size)
    for parent in (root / name, root):
        if name in TORCHVISION_FOLDER and split in ROWS and (parent / TORCHVISION_FOLDER[name]).is_dir():
            return _read_torchvision(parent, name, split, size)
    return None


def fetch_hub(root: Path, name: str) -> None:
    """Download the hub's copy `uoft-cs/<name>`; each split is renamed into place when its row count is right."""
    from huggingface_hub import hf_hub_download

    with _scratch(root) as scratch:
        for split, rows in ROWS.items():
            file = hf_hub_download(
                f"uoft-cs/{name}",
                f"{HUB_FOLDER[name]}/{split}-00000-of-00001.parquet",
                repo_type="dataset",
                local_dir=scratch,
            )
            found = len(pd.read_parquet(file, columns=[LABEL[name]]))
            if found != rows:
                raise DataError(f"the hub's {name}/{split} has {found} rows, not {rows}")
            os.replace(file, root / name / f"{split}.parquet")


def fetch_torchvision(root: Path, name: str) -> None:
    """Download through torchvision, which checks the MD5, and rename the extracted folder into place."""
    with _scratch(root) as scratch:
        _torchvision_class(name)(scratch, download=True)
        os.replace(scratch / TORCHVISION_FOLDER[name], root / name / TORCHVISION_FOLDER[name])


@contextmanager
def _scratch(root: Path) -> Iterator[Path]:
    """A folder on the same disk (a rename must not copy), gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=".download-", dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_parquet(path: Path, name: str, split: str, size: int | None) -> ImageSet:
    """The hub's table: a column of encoded images, a column of labels, class names in the file's metadata."""
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(f"{name}/{path.name} is damaged ({error}): delete it, it is downloaded again") from error
    pixels = [
        decode_image(cell["bytes"], f"row {row} of {name}/{path.name}", size)
        for row, cell in enumerate(table["img"].to_pylist())
    ]
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    labels = torch.tensor(table[LABEL[name]].to_pylist())
    return ImageSet(
        stack(pixels, name), labels, tuple(features[LABEL[name]]["names"]), name, split, f"hub uoft-cs/{name}"
    )


def _read_torchvision(parent: Path, name: str, split: str, size: int | None) -> ImageSet:
    try:
        data = _torchvision_class(name)(parent, train=split == "train", download=False)
    except RuntimeError as error:
        raise DataError(
            f"{name}/{TORCHVISION_FOLDER[name]} is damaged ({error}): delete it, it is downloaded again"
        ) from error
    pixels = [image if size is None else Image.fromarray(image).resize((size, size)) for image in data.data]
    return ImageSet(
        stack([np.asarray(image) for image in pixels], name),
        torch.tensor(data.targets),
        tuple(data.classes),
        name,
        split,
        "torchvision files",
    )


def _torchvision_class(name: str) -> type:
    from torchvision import datasets

    return {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
