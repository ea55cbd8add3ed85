"""MiniPlaces from archives in its course's layout; its host is a server on this machine."""

import functools
import hashlib
import http.server
import io
import tarfile
import threading

import numpy as np
import pytest
from conftest import made_images, png, write_folder, zip_folder

from helpers.data import DataError, load, loading, miniplaces

CLASSES = ["abbey", "bakery/shop", "yard"]
PIXELS = made_images(9)


def listing(split):
    """The lines of a split's list: two training images and one validation image of each class, out of order."""
    if split == "val":
        return [f"val/{number:08d}.jpg {label}" for number, label in enumerate((2, 0, 1), 1)]
    return [
        f"train/{CLASSES[label][0]}/{CLASSES[label]}/{number:08d}.jpg {label}"
        for number in (1, 2)
        for label in (1, 0, 2)
    ]


def members(lists=True):
    """Path in the archive to content; test images and object labels come with the real one."""
    files = [line.split()[0] for split in ("train", "val") for line in listing(split)]
    content = {f"images/{file}": png(image) for file, image in zip(files, PIXELS, strict=True)}
    content |= {"images/test/00000001.jpg": b"no label", "objects/train/a/abbey/00000001.xml": b"<x/>"}
    return content | {f"{split}.txt": "\n".join(listing(split)).encode() for split in ("train", "val") if lists}


def pack(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def check(data, split):
    assert data.classes == ("abbey", "bakery_shop", "yard")
    labels, pixels = ([1, 0, 2, 1, 0, 2], PIXELS[:6]) if split == "train" else ([2, 0, 1], PIXELS[6:])
    assert data.labels.tolist() == labels
    np.testing.assert_array_equal(data.images.permute(0, 2, 3, 1).numpy(), pixels)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Three classes, and no archive at the host."""
    known = loading.Known({"train": 6, "val": 3}, 3, loading.KNOWN["miniplaces"].fetch)
    monkeypatch.setitem(loading.KNOWN, "miniplaces", known)


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A folder served over HTTP in the place of the real host, with the archive and, apart from it, the lists."""
    folder = tmp_path / "host"
    archive = pack(folder / "data.tar.gz", members(lists=False))
    for split in ("train", "val"):
        (folder / f"{split}.txt").write_text("\n".join(listing(split)))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args): ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setattr(miniplaces, "HOST", address + "data.tar.gz")
    monkeypatch.setattr(miniplaces, "LISTS", address)
    monkeypatch.setattr(miniplaces, "MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(miniplaces, "COUNTS", {"train": 200, "val": 100})  # 2 and 1 a class
    yield folder
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("place", ["miniplaces/data.tar.gz", "miniplaces.tar.gz"])
def test_an_archive_put_there_by_hand(data_root, place):
    pack(data_root / place, members())
    for split in ("train", "val"):
        check(load("miniplaces", split, download=False), split)
    folder = data_root / "miniplaces"
    assert not (folder / "images" / "test").exists()
    assert not (folder / "objects").exists()
    assert not list(folder.glob(".download-*"))


def test_an_extracted_copy(data_root):
    for name, content in members().items():
        path = data_root / "miniplaces" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    check(load("miniplaces", "val", download=False), "val")
    with pytest.raises(DataError, match="train, val, not 'test' .*no labels"):
        load("miniplaces", "test", download=False)


@pytest.mark.parametrize("packed", [False, True])
def test_class_folders_still_load(data_root, packed):
    write_folder(data_root, "miniplaces", classes=("abbey", "bakery_shop", "yard"), each=2)
    if packed:
        zip_folder(data_root, "miniplaces")
        (data_root / "miniplaces").rename(data_root / "elsewhere")
    assert load("miniplaces", "train").classes == ("abbey", "bakery_shop", "yard")


def test_download(data_root, host):
    check(load("miniplaces", "train"), "train")
    check(load("miniplaces", "val", download=False), "val")
    assert sorted(path.name for path in (data_root / "miniplaces").iterdir()) == ["images", "train.txt", "val.txt"]
    assert [path.name for path in data_root.iterdir()] == ["miniplaces"]


def test_a_download_with_another_checksum_is_not_kept(data_root, host, monkeypatch):
    monkeypatch.setattr(miniplaces, "MD5", "0" * 32)
    with pytest.raises(DataError, match="its course's host: RuntimeError: File not found or corrupted"):
        load("miniplaces", "train")
    assert not list((data_root / "miniplaces").iterdir())


def test_a_list_that_is_too_short(data_root, host):
    (host / "val.txt").write_text("\n".join(listing("val")[:2]) + "\nval/00000003.jpg 0")
    with pytest.raises(DataError, match="val.txt does not list 1 images of each class"):
        load("miniplaces", "train")


def test_no_network(data_root, monkeypatch):
    monkeypatch.setattr(miniplaces, "HOST", "http://127.0.0.1:9/data.tar.gz")
    with pytest.raises(DataError, match="(?s)miniplaces/train is not in .*course's host: URLError"):
        load("miniplaces", "train")
    assert not list((data_root / "miniplaces").iterdir())


def cut(path):
    path.write_bytes(path.read_bytes()[:-400])


@pytest.mark.parametrize(
    ("content", "spoil", "message"),
    [
        (members(), cut, "data.tar.gz is damaged, cut short or unsafe"),
        (members(), lambda path: path.write_bytes(b"<html>"), "data.tar.gz is damaged, cut short or unsafe"),
        ({"readme.txt": b""}, None, "data.tar.gz holds no images/: is it the right archive?"),
        (members() | {"images/train/../../../../evil.txt": b""}, None, "unsafe .*outside the destination"),
        ({**members(), "images/val/00000002.jpg": b"x"}, None, "images/val/00000002.jpg is not an image"),
        ({k: v for k, v in members().items() if "002.jpg" not in k or "val" not in k}, None, "lacks 1 of 3 images"),
        (members() | {"val.txt": b"val/00000001.jpg"}, None, "val.txt is not a list of lines `path label`"),
        (members() | {"val.txt": b"val/00000001.jpg 3"}, None, "do not number the classes from 0 on"),
    ],
)
def test_archives_that_cannot_be_used(data_root, content, spoil, message):
    path = pack(data_root / "miniplaces" / "data.tar.gz", content)
    if spoil:
        spoil(path)
    with pytest.raises(DataError, match=message) as raised:
        load("miniplaces", "val", download=False)
    assert "\n" not in str(raised.value)
    assert not list(data_root.rglob("evil.txt"))
    assert not list(data_root.rglob(".download-*"))


def test_the_published_sizes():
    """The set's own README: 1,000 and 100 images of each of 100 scenes."""
    assert miniplaces.COUNTS == {"train": 100_000, "val": 10_000}
