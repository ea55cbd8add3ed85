"""Sets from the Hugging Face hub, on small tables of exactly their layouts."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import made_images, png
from made import LEAF, write

from helpers.data import DataError, hub, load, loading
from helpers.data.captions import load_captions

COCO = "coco-flickr-fa-40k"


def cells(pixels, names=None):
    names = names or [None] * len(pixels)
    return [{"bytes": png(image), "path": name} for image, name in zip(pixels, names, strict=True)]


def cifar(path, pixels, labels=(1, 0, 1, 0)):
    return write(path, {"img": cells(pixels), "fine_label": list(labels)}, ("apple", "bear"))


def leaves(path, pixels, labels=(1, 0, 1), names=("mosaic", "healthy", "mosaic")):
    return write(path, {"image": cells(pixels), "label": list(labels), "disease_name": list(names)})


def captions(path, pixels, texts, names=None):
    return write(path, {"image_path": cells(pixels, names), "label": list(texts)})


@pytest.fixture
def tiny(monkeypatch):
    """CIFAR-100 of 4 + 4 images and 2 classes, the leaf set of 3 and 2."""
    for name, rows in (("cifar100", {"train": 4, "test": 4}), (LEAF, {"train": 3})):
        monkeypatch.setitem(hub.SETS, name, replace(hub.SETS[name], rows=rows))
        monkeypatch.setitem(loading.KNOWN, name, loading.Known(rows, 2, loading.KNOWN[name].fetch))


@pytest.fixture
def offered(monkeypatch):
    """A hub that serves these files: path in the repository to what writes it. Also what was asked for."""
    files, asked = {}, []

    def download(repository, file, repo_type, local_dir):
        asked.append(file)
        return str(files[file](local_dir / file))

    monkeypatch.setattr("huggingface_hub.list_repo_files", lambda repository, repo_type: [*files, "README.md"])
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    return files, asked


def no_network(*args, **kwargs):
    raise ConnectionError("no route to host")


def test_a_set_is_downloaded_checked_and_kept(data_root, tiny, offered):
    files, asked = offered
    pixels = made_images(4)
    for split in ("train", "test"):
        files[f"cifar100/{split}-00000-of-00001.parquet"] = lambda path: cifar(path, pixels)
    data = load("cifar100", "train")
    assert asked == sorted(files, reverse=True)
    assert (data.labels.tolist(), data.classes) == ([1, 0, 1, 0], ("apple", "bear"))
    np.testing.assert_array_equal(data.images.permute(0, 2, 3, 1).numpy(), pixels)
    assert load("cifar100", "test", download=False).checksum() == data.checksum()
    assert {path.name for path in (data_root / "cifar100").iterdir()} == {file.split("/")[1] for file in files}
    assert not list(data_root.glob(".download-*"))


def test_a_short_download_is_not_kept(data_root, tiny, offered, monkeypatch):
    for split in ("train", "test"):
        offered[0][f"cifar100/{split}-00000-of-00001.parquet"] = lambda path: cifar(path, made_images(3), (0, 1, 0))
    monkeypatch.setattr("torchvision.datasets.CIFAR100.download", no_network)
    with pytest.raises(DataError, match="3 rows, not 4"):
        load("cifar100", "train")
    assert not list((data_root / "cifar100").iterdir())


def test_no_network_names_both_sources_and_the_way_out(monkeypatch):
    monkeypatch.setattr("huggingface_hub.list_repo_files", no_network)
    monkeypatch.setattr("torchvision.datasets.CIFAR100.download", no_network)
    with pytest.raises(
        DataError, match="(?s)cifar100.zip.*DATA_ROOT.*PROFILE=toy.*hub: ConnectionError.*host: ConnectionError"
    ):
        load("cifar100", "train")
    with pytest.raises(DataError, match=f"(?s)no captions {COCO}.*DATA_ROOT.*hub: ConnectionError: no route to host"):
        load_captions(COCO)


@pytest.mark.parametrize("place", ["train.parquet", "data/train-00000-of-00001.parquet"])
def test_the_leaf_set(data_root, tiny, place):
    pixels = made_images(3, 16)
    leaves(data_root / LEAF / place, pixels)
    data = load(LEAF, "train")
    assert (data.labels.tolist(), data.classes) == ([1, 0, 1], ("healthy", "mosaic"))
    np.testing.assert_array_equal(data.images.permute(0, 2, 3, 1).numpy(), pixels)
    assert data.source == "hub ArianFiroozi/NNDL_HW5_S2025"
    assert load(LEAF, "train", size=8).images.shape == (3, 3, 8, 8)


def test_tables_of_a_set_are_read_in_order(data_root, tiny):
    pixels = made_images(3, 16)
    leaves(data_root / LEAF / "train-00001-of-00002.parquet", pixels[2:], [1], ["mosaic"])
    leaves(data_root / LEAF / "train-00000-of-00002.parquet", pixels[:2], [1, 0], ["mosaic", "healthy"])
    data = load(LEAF, "train")
    np.testing.assert_array_equal(data.images.permute(0, 2, 3, 1).numpy(), pixels)
    assert data.labels.tolist() == [1, 0, 1]


def test_the_real_sizes():
    """The leaf set's 9,325 images in ten classes; half a copy is not taken for it."""
    assert loading.KNOWN[LEAF].counts == {"train": 9_325}
    assert loading.KNOWN[LEAF].classes == 10


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda path: write(path, {"image": cells(made_images(3)), "disease_name": ["a"] * 3}),
            "no column label, only",
        ),
        (lambda path: write(path, {"label": [0, 1, 1], "disease_name": ["a"] * 3}), "has no column image, only label"),
        (lambda path: leaves(path, made_images(2), [0, 1], ["a", "b"]), "has 2 rows, not 3"),
        (lambda path: leaves(path, made_images(3), [0, 2, 2], ["a", "b", "b"]), "do not number the classes"),
        (lambda path: leaves(path, made_images(3), [0, 1, 1], ["a", "b", "c"]), "do not number the classes"),
        (lambda path: path.write_bytes(b"PAR1 not a table"), r"train.parquet is damaged .*get it again"),
    ],
)
def test_tables_that_cannot_be_used(data_root, tiny, spoil, message):
    (data_root / LEAF).mkdir()
    spoil(data_root / LEAF / "train.parquet")
    with pytest.raises(DataError, match=message) as raised:
        load(LEAF, "train")
    assert "\n" not in str(raised.value)


def test_a_damaged_image_is_named(data_root, tiny):
    broken = [*cells(made_images(2)), {"bytes": b"<html>", "path": None}]
    write(data_root / LEAF / "train.parquet", {"image": broken, "label": [0, 1, 1], "disease_name": ["a", "b", "b"]})
    with pytest.raises(DataError, match="row 2 of train.parquet is not an image"):
        load(LEAF, "train")


def test_a_table_cut_short_in_its_middle(data_root, tiny):
    path = leaves(data_root / LEAF / "train.parquet", made_images(3, 64))
    content = bytearray(path.read_bytes())
    content[40:4000] = bytes(3960)
    path.write_bytes(content)
    with pytest.raises(DataError, match="train.parquet is damaged|is not an image"):
        load(LEAF, "train")


def test_captions_stay_in_the_table_until_they_are_read(data_root):
    pixels = made_images(5, 6)
    texts, names = ["سگ", " گربه، سفید ", "اسب", None, "سگ دیگر"], ["b.jpg", None, "a.jpg", "c.jpg", "b.jpg"]
    path = captions(data_root / COCO / "train-00003-of-00030.parquet", pixels, texts, names)
    found = load_captions(COCO)
    assert found.names == ("b.jpg", "train-00003-of-00030-0-1", "a.jpg")
    assert found.captions == (("سگ", "سگ دیگر"), ("گربه، سفید",), ("اسب",))
    assert found.left_out == ("train-00003-of-00030.parquet, group 1, row 1: no caption",)
    assert found.source == "hub hezarai/coco-flickr-fa, 1 tables"
    for place, image in enumerate((0, 1, 2)):
        assert torch.equal(found.image(place), torch.from_numpy(pixels[image]).permute(2, 0, 1))
    captions(path, pixels[::-1], texts, names)
    assert torch.equal(load_captions(COCO).image(0), torch.from_numpy(pixels[4]).permute(2, 0, 1))


def test_twelve_tables_of_thirty_are_drawn_at_random(data_root, offered):
    files, asked = offered
    for number in range(30):
        files[f"data/train-{number:05d}-of-00030.parquet"] = lambda path: captions(path, made_images(1), ["سگ"])
    files["data/test-00000-of-00008.parquet"] = None
    assert len(load_captions(COCO)) == 12
    assert len(set(asked)) == 12
    assert asked == sorted(asked)
    assert not {file[11:16] for file in asked} <= {f"{number:05d}" for number in range(20)}
    again = list(asked)
    load_captions(COCO)
    assert asked == again  # nothing is downloaded twice


def test_captions_without_their_column(data_root):
    write(data_root / COCO / "train.parquet", {"image_path": cells(made_images(1)), "caption": ["سگ"]})
    with pytest.raises(DataError, match="train.parquet has no column label, only image_path, caption"):
        load_captions(COCO)
