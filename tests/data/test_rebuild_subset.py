"""A subset made anew from its public set, by a list of names."""

import numpy as np
import pytest
import rebuild_subset
from conftest import made_images, png
from made import write_pickle
from rebuild_subset import rebuild
from torchvision.datasets import CIFAR10

from helpers.data import DataError, load, loading
from helpers.data.captions import load_captions

PIXELS = made_images(4, 32)


def put(folder, files):
    for file, image in zip(files, PIXELS, strict=False):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(png(image))
    return folder


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """Sets the list of a set."""
    monkeypatch.setattr(rebuild_subset, "LISTS", tmp_path)
    return lambda name, *lines: (tmp_path / f"{name}.txt").write_text("\n".join(["# about", *lines]))


@pytest.mark.parametrize(
    ("name", "files", "lines"),
    [
        (
            "miniplaces",
            [
                "images/train/y/yard/1.jpg",
                "images/train/b/bakery/shop/1.jpg",
                "images/train/y/yard/2.jpg",
                "images/val/1.jpg",
            ],
            ["train/bakery_shop/1", "train/yard/2", "val/yard/1"],
        ),
        (
            "tomato-leaf",
            [
                "Tomato___healthy/c3___RS 1.JPG",
                "Tomato___Mold/a1___RS 2.JPG",
                "Tomato___healthy/b2___GH 3.JPG",
                "d/d4___x.JPG",
            ],
            ["train/Mold/a1", "train/healthy/b2", "val/healthy/d4"],
        ),
    ],
)
def test_photographs(data_root, tmp_path, listed, monkeypatch, name, files, lines):
    monkeypatch.delitem(loading.KNOWN, name, raising=False)  # its whole size
    listed(name, *lines)
    rebuild(name, put(tmp_path / "public", files))
    train, val = load(name, "train"), load(name, "val")
    np.testing.assert_array_equal(train.images.permute(0, 2, 3, 1).numpy(), PIXELS[1:3])
    assert train.classes == tuple(line.split("/")[1] for line in lines[:2])
    np.testing.assert_array_equal(val.images[0].permute(1, 2, 0).numpy(), PIXELS[3])


def test_cifar10(data_root, tmp_path, listed, monkeypatch):
    folder = tmp_path / "public" / CIFAR10.base_folder
    folder.mkdir(parents=True)
    rows = PIXELS.transpose(0, 3, 1, 2).reshape(4, -1)
    parts = {
        "data_batch_1": ([b"jet_s_1.png", b"pony_s_2.png"], [0, 7], rows[:2]),
        "test_batch": ([b"cat_s_1.png", b"bus_s_1.png"], [3, 9], rows[2:]),
    }
    md5 = {
        file: write_pickle(folder / file, {b"filenames": names, b"labels": labels, b"data": data})
        for file, (names, labels, data) in parts.items()
    }
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", md5["data_batch_1"]]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    listed("cifar10", "train/horse/pony_s_2")
    made = rebuild("cifar10", tmp_path / "public")
    files = sorted(str(path.relative_to(made)) for path in made.rglob("*.png"))
    assert files == ["test/cat/cat_s_1.png", "test/truck/bus_s_1.png", "train/horse/pony_s_2.png"]
    from PIL import Image

    np.testing.assert_array_equal(np.asarray(Image.open(made / "train" / "horse" / "pony_s_2.png")), PIXELS[1])


def test_captions(data_root, tmp_path, listed):
    listed("flickr8k-fa", "b_1")
    public = put(tmp_path / "public", ["Images/a_1.jpg", "Images/b_1.jpg"])
    with pytest.raises(DataError, match="data.csv is missing"):
        rebuild("flickr8k-fa", public)
    (public / "data.csv").write_text("image,caption\na_1.jpg,سگ\nb_1.webp,اسب، سفید, بزرگ\n", "utf-8")
    rebuild("flickr8k-fa", public)
    found = load_captions("flickr8k-fa")
    assert (found.names, found.captions, found.left_out) == (("b_1.jpg",), (("اسب، سفید,بزرگ",),), ())
    np.testing.assert_array_equal(found.image(0).permute(1, 2, 0).numpy(), PIXELS[1])


def test_half_a_public_set_leaves_nothing(data_root, tmp_path, listed):
    listed("tomato-leaf", "train/Mold/a1", "train/healthy/b2")
    with pytest.raises(DataError, match="lacks 1 of 2 images, such as b2"):
        rebuild("tomato-leaf", put(tmp_path / "public", ["a1___RS 2.JPG"]))
    assert not list(data_root.iterdir())
    (data_root / "tomato-leaf").mkdir()
    with pytest.raises(DataError, match="is there already"):
        rebuild("tomato-leaf", tmp_path)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("cifar10", {"train": 9_000}),
        ("miniplaces", {"train": 10_000, "val": 2_000}),
        ("tomato-leaf", {"train": 2_408, "val": 602}),
    ],
)
def test_the_lists(name, counts):
    lines = [line for line in (rebuild_subset.LISTS / f"{name}.txt").read_text().splitlines() if line[0] != "#"]
    assert len(set(lines)) == len(lines)
    assert {split: sum(line.startswith(f"{split}/") for line in lines) for split in counts} == counts
    assert sum(counts.values()) == len(lines) == len({rebuild_subset.asked(name, line) for line in lines})
