"""Captions as people write them: headers or none, commas, quotes, BOM; what cannot be used is named."""

import zipfile

import pytest
import torch
from conftest import made_images, png

from helpers.data import toy
from helpers.data.captions import load_captions, toy_captions
from helpers.data.folders import DataError

TABLE = "image,caption\na.png,سگ سیاه\na.png,یک سگ\nb.png,گربه، سفید\n"


def write(root, table=TABLE, images=("a.png", "b.png"), name="pets", encoding="utf-8"):
    folder = root / name / "images"
    folder.mkdir(parents=True, exist_ok=True)
    for image, pixels in zip(images, made_images(len(images), 6), strict=True):
        (folder / image).write_bytes(png(pixels))
    (root / name / "data.csv").write_bytes(table.encode(encoding))
    return root / name


def zipped(root, name="pets"):
    with zipfile.ZipFile(root / f"{name}.zip", "w") as archive:
        for file in sorted((root / name).rglob("*.*")):
            archive.write(file, file.relative_to(root))
    for file in sorted((root / name).rglob("*.*")):
        file.unlink()


EXPECTED = (("سگ سیاه", "یک سگ"), ("گربه، سفید",))


@pytest.mark.parametrize(
    "table",
    [
        TABLE,
        TABLE.split("\n", 1)[1],  # no header
        "caption,image\nسگ سیاه,a.png\nیک سگ,a.png\nگربه، سفید,b.png\n",
        "\ufeff" + TABLE,
        TABLE.replace("\n", "\r\n"),
        'Image, Caption\na.png, "سگ سیاه"\n\na.png,یک سگ\nb.png,گربه، سفید',
    ],
)
def test_the_forms_of_the_table(data_root, table):
    write(data_root, table)
    found = load_captions("pets")
    assert found.names == ("a.png", "b.png")
    assert found.captions == EXPECTED
    assert found.left_out == ()


def test_captions_with_commas(data_root):
    write(data_root, 'a.png,one, two,three\nb.png,"four, five"\n')
    assert load_captions("pets").captions == (("one,two,three",), ("four, five",))
    write(data_root, "caption,image\none, two,a.png\nfour,b.png\n")
    assert load_captions("pets").captions == (("one,two",), ("four",))


def test_a_zip_is_the_same_as_its_folder(data_root):
    write(data_root)
    folder = load_captions("pets")
    pixels = folder.image(1)
    zipped(data_root)
    archive = load_captions("pets")
    assert (archive.names, archive.captions) == (folder.names, folder.captions)
    assert torch.equal(archive.image(1), pixels)
    assert archive.source == "archive pets.zip"


def test_pixels(data_root):
    write(data_root)
    found, pixels = load_captions("pets"), made_images(2, 6)
    assert torch.equal(found.image(1), torch.from_numpy(pixels[1]).permute(2, 0, 1))
    assert found.image(0, size=4).shape == (3, 4, 4)


def test_what_cannot_be_used_is_named(data_root):
    write(data_root, "image,caption\na.png,good\nlost.png,gone\nno comma here\nb.png,\n,empty\n", ("a.png", "b.png"))
    found = load_captions("pets")
    assert found.names == ("a.png",)
    assert found.left_out == (
        "line 3: the image lost.png is missing",
        "line 4: no image and caption, separated by a comma",
        "line 5: no caption",
        "line 6: no image and caption, separated by a comma",
        "the image b.png has no caption",
    )


def test_an_open_quotation_mark_spoils_only_its_own_line(data_root):
    write(data_root, 'a.png,"never closed\nb.png,fine\n')
    assert load_captions("pets").captions == (("never closed",), ("fine",))


def test_splits_are_by_image(data_root):
    names = [f"{number}.png" for number in range(10)]
    write(data_root, "".join(f"{name},one\n{name},two\n" for name in names), names)
    found = load_captions("pets")
    train, test = found.split(6, 3, seed=1)
    assert (len(train), len(test)) == (6, 3)
    assert not set(train.names) & set(test.names)
    assert set(train.captions) == {("one", "two")}
    assert train.names == found.split(6, 3, seed=1)[0].names != found.split(6, 3, seed=2)[0].names
    assert torch.equal(test.image(0), found.image(found.names.index(test.names[0])))
    with pytest.raises(ValueError, match=r"6 \+ 5 of 10"):
        found.split(6, 5)


def test_a_drawn_scene_has_its_own_caption():
    scenes = toy.draw(12, 16, 0)
    found = toy_captions(scenes)[[7, 2]]
    assert found.captions == tuple((scenes.captions()[place],) for place in (7, 2))
    assert len(set(found.captions)) == 2
    for place, scene in enumerate((7, 2)):
        assert torch.equal(found.image(place), scenes.images[scene])


def test_errors_say_what_to_do(data_root):
    with pytest.raises(DataError, match=r"neither pets/data.csv nor pets.zip .*DATA_ROOT"):
        load_captions("pets")
    write(data_root, "image,caption\nlost.png,gone\n")
    with pytest.raises(DataError, match="no line of data.csv .*lost.png is missing"):
        load_captions("pets")
    write(data_root, "a.png,café", encoding="latin-1")
    with pytest.raises(DataError, match="not UTF-8"):
        load_captions("pets")
    (data_root / "cut.zip").write_bytes(b"PK\x03\x04 half a zip")
    with pytest.raises(DataError, match="damaged"):
        load_captions("cut")
    write(data_root)
    (data_root / "pets" / "images" / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"a\.png is not an image"):
        load_captions("pets").image(0)


def test_a_zip_without_a_table(data_root):
    with zipfile.ZipFile(data_root / "pets.zip", "w") as archive:
        archive.writestr("pets/images/a.png", b"")
    with pytest.raises(DataError, match="holds no data.csv"):
        load_captions("pets")
