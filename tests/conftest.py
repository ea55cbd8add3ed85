"""Shared by the tests: they run offline, on made data, and leave nothing behind."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shared_cores import share_cores
from torch import nn

from helpers.data import ImageSet, toy
from helpers.models import small_cnn

os.environ["TQDM_DISABLE"] = "1"
if cores := share_cores():
    torch.set_num_threads(cores)
ROOT = Path(__file__).parents[1]
SEED = 1_000 * int(os.environ.get("TEST_SEED", "0"))  # what trains is also run from other weights and on other scenes


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    """Every test has its own data, output and checkpoint folder, and no network."""
    for name in ("DATA_ROOT", "OUTPUT_DIR", "CHECKPOINT_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    (tmp_path / "data_root").mkdir()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("PROFILE", raising=False)


@pytest.fixture
def data_root(tmp_path) -> Path:
    return tmp_path / "data_root"


def png(pixels: np.ndarray) -> bytes:
    """uint8 (H, W, 3) as the bytes of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def made_images(count: int, size: int = 8, seed: int = 0) -> np.ndarray:
    """uint8 (count, size, size, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def write_folder(
    root: Path, name: str, split: str = "train", classes: tuple[str, ...] = ("bee", "ant"), each: int = 3
) -> np.ndarray:
    """`root/name/split/<class>/<image>.png`; returns the pixels in the order in which `load` must give them."""
    pixels = made_images(len(classes) * each)
    for number, label in enumerate(sorted(classes)):
        folder = root / name / split / label
        folder.mkdir(parents=True)
        for i in range(each):
            (folder / f"{i}.png").write_bytes(png(pixels[number * each + i]))
    return pixels


def zip_folder(root: Path, name: str) -> Path:
    """Pack `root/name` as `root/name.zip` and return that."""
    path = root / f"{name}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted((root / name).rglob("*.png")):
            archive.write(file, file.relative_to(root))
    return path


def small_net(classes: int = 20, seed: int = 0) -> nn.Sequential:
    """`small_cnn` with dropout; the same first weights for the same seed."""
    torch.manual_seed(seed + SEED)
    return small_cnn(classes, dropout=0.1)


def toy_set(count: int = 200, size: int = 16, seed: int = 0) -> ImageSet:
    """A small set of 20 classes."""
    scenes = toy.draw(count, size, seed + SEED)
    return ImageSet(scenes.images, scenes.coarse, toy.COARSE, "toy-coarse", "train", "drawn", scenes.masks)
