"""Flowers-102 in torchvision's layout, and the toy sets made for transfer."""

import hashlib
import io
import zipfile

import numpy as np
import pytest
import torch
from conftest import write_folder
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import Flowers102

from helpers.data import DataError, load, loading, toy
from helpers.data import flowers as flowers_module

ROWS = {"train": 102, "val": 102, "test": 104}


def jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def write_flowers(root) -> None:
    """`root/flowers-102/` with 308 images of 6 x 8 pixels, shuffled over splits and classes."""
    (root / "flowers-102" / "jpg").mkdir(parents=True)
    random = np.random.default_rng(0)
    for number, pixels in enumerate(random.integers(0, 256, (308, 6, 8, 3), dtype=np.uint8), 1):
        (root / "flowers-102" / "jpg" / f"image_{number:05d}.jpg").write_bytes(jpeg(pixels))
    order = random.permutation(308) + 1
    ids = {"trnid": order[:102], "valid": order[102:204], "tstid": order[204:]}
    labels = np.empty(308, np.uint8)  # as in the real file
    for part in ids.values():
        labels[part - 1] = random.permutation(np.arange(len(part)) % 102 + 1)
    savemat(root / "flowers-102" / "setid.mat", ids)
    savemat(root / "flowers-102" / "imagelabels.mat", {"labels": labels[None]})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("flowers")
    write_flowers(root)
    return root / "flowers-102"


@pytest.fixture
def flowers(data_root, made, monkeypatch):
    """The small set under `$DATA_ROOT`, in a copy that a test may damage; returns its folder."""
    for file in made.rglob("*.*"):
        target = data_root / "flowers-102" / file.relative_to(made)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    known = loading.Known(ROWS, 102, loading.KNOWN["flowers-102"].fetch)
    monkeypatch.setitem(loading.KNOWN, "flowers-102", known)
    monkeypatch.setattr(flowers_module, "ROWS", ROWS)
    monkeypatch.setattr(Flowers102, "_file_dict", md5_of(made))
    return data_root / "flowers-102"


def md5_of(folder) -> dict:
    files = {"label": "imagelabels.mat", "setid": "setid.mat"}
    return {key: (file, hashlib.md5((folder / file).read_bytes()).hexdigest()) for key, file in files.items()}


def packed(folder):
    """Zip `folder` beside itself and move it away; returns the archive."""
    path = folder.with_name("flowers-102.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(folder.parent))
    folder.rename(folder.with_name("elsewhere"))
    return path


@pytest.mark.parametrize("split", ROWS)
def test_folder_is_what_torchvision_reads(flowers, data_root, split):
    data, theirs = load("flowers-102", split, download=False), Flowers102(data_root, split)
    assert data.labels.tolist() == [label for _, label in theirs]
    assert data.classes == tuple(theirs.classes)
    assert len(data.classes) == 102
    pixels = np.stack([np.asarray(image) for image, _ in theirs])
    np.testing.assert_array_equal(data.images.permute(0, 2, 3, 1).numpy(), pixels)
    assert (data.name, data.split, data.source) == ("flowers-102", split, "folder flowers-102")


def test_zip_gives_the_same_set(flowers):
    from_folder = load("flowers-102", "test", download=False)
    packed(flowers)
    from_zip = load("flowers-102", "test", download=False)
    assert from_zip.checksum() == from_folder.checksum()
    assert from_zip.source == "archive flowers-102.zip"


def test_splits_are_disjoint_and_complete(flowers):
    seen = [image.numpy().tobytes() for split in ROWS for image in load("flowers-102", split).images]
    assert len(seen) == len(set(seen)) == 308


def test_size_crops_the_middle_of_the_short_side(flowers):
    whole, square = load("flowers-102", "val"), load("flowers-102", "val", size=6)
    assert whole.images.shape[1:] == (3, 6, 8)
    assert torch.equal(square.images, whole.images[..., 1:7])
    assert load("flowers-102", "val", size=12).images.shape == (102, 3, 12, 12)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("setid.mat", "lacks setid.mat .*get it again"),
        ("imagelabels.mat", "lacks imagelabels.mat .*get it again"),
        (
            "jpg/*[13579].jpg",
            r"/test lacks \d+ of 104 images, such as flowers-102/jpg/image_00\d{3}.jpg .*get it again",
        ),
    ],
)
def test_half_a_set(flowers, gone, message, zipped):
    for file in flowers.glob(gone):
        file.unlink()
    if zipped:
        packed(flowers)
    with pytest.raises(DataError, match=message):
        load("flowers-102", "test")


def test_tables_of_another_set(flowers):
    savemat(flowers / "setid.mat", {"trnid": np.arange(1, 52), "valid": np.arange(1, 400)})
    with pytest.raises(DataError, match="gives flowers-102/train 51 images, not 102"):
        load("flowers-102", "train")
    with pytest.raises(DataError, match="setid.mat of flowers-102 cannot be read: KeyError"):
        load("flowers-102", "test")


@pytest.mark.parametrize("labels", [np.arange(308) % 102, np.arange(308) % 101 + 1, np.arange(200) % 102 + 1])
def test_labels_that_cannot_be(flowers, labels):
    savemat(flowers / "imagelabels.mat", {"labels": labels})
    with pytest.raises(DataError, match=r"imagelabels.mat is not a label in 1 .. 102 for every image"):
        load("flowers-102", "train")


def test_table_cut_short(flowers):
    (flowers / "setid.mat").write_bytes((flowers / "setid.mat").read_bytes()[:150])
    with pytest.raises(DataError, match="setid.mat of flowers-102 cannot be read.*get it again"):
        load("flowers-102", "train")


def test_image_that_is_no_image(flowers):
    for file in (flowers / "jpg").iterdir():
        file.write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match=r"flowers-102/jpg/image_\d{5}.jpg is not an image"):
        load("flowers-102", "train")


def test_damaged_zips(flowers):
    path = packed(flowers)
    content = bytearray(path.read_bytes())
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"flowers-102.zip is damaged or cut short.*again"):
        load("flowers-102", "train")
    with zipfile.ZipFile(path.with_name("x.zip"), "w") as archive:
        archive.writestr("readme.txt", "hello")
    path.with_name("x.zip").rename(path)
    with pytest.raises(DataError, match="holds no image under flowers-102/train"):
        load("flowers-102", "train")


def test_class_folders_still_load(data_root, monkeypatch):
    write_folder(data_root, "flowers-102")
    monkeypatch.setitem(loading.KNOWN, "flowers-102", loading.Known({"train": 6}, 2, ()))
    assert load("flowers-102", "train").classes == ("ant", "bee")


def test_unknown_split(flowers):
    with pytest.raises(DataError, match="flowers-102 has the splits train, val, test, not 'tets'"):
        load("flowers-102", "tets")


def test_download_keeps_only_the_parts(data_root, made, flowers, monkeypatch):
    flowers.rename(data_root / "elsewhere")

    def download(self):
        (self._base_folder / "jpg").mkdir(parents=True)
        for file in made.rglob("*.*"):
            (self._base_folder / file.relative_to(made)).write_bytes(file.read_bytes())
        (self._base_folder / "102flowers.tgz").write_bytes(b"345 MB")

    monkeypatch.setattr(Flowers102, "download", download)
    assert len(load("flowers-102", "test")) == 104
    assert sorted(path.name for path in flowers.iterdir()) == ["imagelabels.mat", "jpg", "setid.mat"]
    assert not list(data_root.glob(".download-*"))
    assert len(load("flowers-102", "train", download=False)) == 102


def test_no_network(data_root, monkeypatch):
    def download(self):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(Flowers102, "download", download)
    with pytest.raises(DataError, match="(?s)Put there flowers-102.zip .*PROFILE=toy.*host: ConnectionError: no route"):
        load("flowers-102", "train")
    with pytest.raises(DataError, match=r"flowers-102/train is not in .*download=False"):
        load("flowers-102", "train", download=False)
    assert not list(data_root.glob(".download-*"))


def test_official_counts():
    """Nilsback and Zisserman 2008: 10 + 10 images a class, 6,149 left, 8,189 in all."""
    assert loading.KNOWN["flowers-102"].counts == {"train": 1_020, "val": 1_020, "test": 6_149}


def test_transfer_sets_share_parts_but_no_class():
    source, target = toy.SETS["toy-source"], toy.SETS["toy-flowers"]
    assert len(source) == len(target) == 50
    assert set(source) | set(target) == set(toy.FINE)
    for half in (source, target):
        words = [name.split() for name in half]
        for position, kinds in enumerate((toy.COLOURS, toy.TEXTURES, toy.SHAPES)):
            assert {word[position] for word in words} == set(kinds)
        for a, b in ((0, 1), (0, 2), (1, 2)):
            pairs = {(word[a], word[b]) for word in words}
            assert len(pairs) == len({word[a] for word in words}) * len({word[b] for word in words})


@pytest.mark.parametrize(("split", "each"), [("train", 10), ("val", 10), ("test", 40)])
def test_toy_flowers_has_a_split_like_the_official_one(split, each):
    data = load("toy-flowers", split, size=28)
    assert data.labels.bincount().tolist() == [each] * 50
    assert data.images.shape == (50 * each, 3, 28, 28)
    assert data.masks.shape == (50 * each, 28, 28)
    assert data.masks.flatten(1).any(1).all()
    assert len(data.classes) == 50


@pytest.mark.parametrize("name", ["toy-source", "toy-flowers"])
def test_labels_name_what_is_drawn(name, monkeypatch):
    drawn = []
    real = toy.draw
    monkeypatch.setattr(toy, "draw", lambda *args: drawn.append(real(*args)) or drawn[-1])
    data = load(name, "val", size=8)
    names = [data.classes[label] for label in data.labels]
    captions = drawn[0].captions("en")
    assert all(f" {label} on the " in caption for label, caption in zip(names, captions, strict=True))
    assert load(name, "val", size=8).checksum() == data.checksum()


def test_transfer_splits_share_no_image():
    sets = [load(name, split, size=12) for name in toy.OWN_SPLITS for split in ("train", "val", "test")]
    seen = [image.numpy().tobytes() for data in sets for image in data.images]
    assert len(seen) == len(set(seen)) == 11_000 + 3_000


def test_unknown_toy_split():
    with pytest.raises(ValueError, match="train, val, test, not 'training'"):
        load("toy-flowers", "training")
