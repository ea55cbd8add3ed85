"""Imagenette from a made archive in its publisher's layout: read, downloaded through torchvision, and refused."""

import hashlib
import io
import shutil
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import Imagenette

from helpers.data import DataError, load
from helpers.data.imagenette import FOLDER

WNIDS = sorted(Imagenette._WNID_TO_CLASS)
COUNTS = {"train": 3, "val": 2}  # images a class


def jpeg(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def archive(tmp_path):
    """`imagenette2-160.tgz` with a few images of 12 x 9 pixels a class."""
    for split, count in COUNTS.items():
        for label, wnid in enumerate(WNIDS):
            folder = tmp_path / "made" / FOLDER / split / wnid
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.full((9, 12, 3), 20 * label + number, np.uint8)
                (folder / f"{wnid}_{number}.JPEG").write_bytes(jpeg(pixels))
    path = tmp_path / f"{FOLDER}.tgz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(tmp_path / "made" / FOLDER, FOLDER)
    return path


def host(monkeypatch, archive, md5):
    """torchvision's address of the archive leads to the made one, whose MD5 should be `md5`."""
    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", lambda url, **_: url)
    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", lambda url, file, *_: shutil.copy(archive, file))
    monkeypatch.setitem(Imagenette._ARCHIVES, "160px", (f"https://example.org/{archive.name}", md5))


def extracted(archive, root):
    with tarfile.open(archive) as tar:
        tar.extractall(root, filter="data")


def test_the_download_is_read_with_english_names(archive, data_root, monkeypatch):
    host(monkeypatch, archive, hashlib.md5(archive.read_bytes()).hexdigest())
    data = load("imagenette", "train", size=8)
    assert data.images.shape == (30, 3, 8, 8)
    assert data.source == FOLDER
    assert data.classes[:3] == ("tench", "English springer", "cassette player")
    assert torch.equal(data.labels.bincount(), torch.full((10,), 3))
    middle = data.images.float().mean((1, 2, 3)).view(10, 3).mean(1)  # the shade that was drawn for each class
    assert (middle - (20 * torch.arange(10) + 1)).abs().max() < 3
    assert not list(data_root.glob(".download-*"))
    assert len(load("imagenette", "val", size=8, download=False)) == 20


@pytest.mark.parametrize("inside", ["imagenette", "."])
def test_a_users_own_copy_is_found(archive, data_root, inside):
    extracted(archive, data_root / inside)
    assert len(load("imagenette", "val", size=8, download=False)) == 20


def test_another_archive_than_torchvisions_is_refused(archive, data_root, monkeypatch):
    host(monkeypatch, archive, "0" * 32)
    with pytest.raises(DataError, match="imagenette/train is not in"):
        load("imagenette", "train", size=8)
    assert not list(data_root.glob(".download-*"))
    assert not (data_root / "imagenette" / FOLDER).exists()


def test_a_strange_class_folder_is_named(archive, data_root):
    extracted(archive, data_root)
    (data_root / FOLDER / "val" / WNIDS[0]).rename(data_root / FOLDER / "val" / "n00000000")
    with pytest.raises(DataError, match="val/n00000000 is no class of Imagenette"):
        load("imagenette", "val", size=8, download=False)


def test_images_of_several_sizes_need_a_size(archive, data_root):
    extracted(archive, data_root)
    (data_root / FOLDER / "val" / WNIDS[0] / "more.JPEG").write_bytes(jpeg(np.zeros((5, 5, 3), np.uint8)))
    with pytest.raises(DataError, match="differ in size"):
        load("imagenette", "val", download=False)
