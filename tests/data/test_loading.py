"""Loading: every layout gives the same set, and every kind of damage gives one clear error."""

import os
import zipfile

import numpy as np
import pytest
import torch
from conftest import made_images, png, toy_set, write_folder, zip_folder
from made import write_pickle

from helpers.contract import check_labels, check_pixels, to_uint8
from helpers.data import DataError, ImageSet, load, loading, public, toy


def pixels_of(data: ImageSet) -> np.ndarray:
    return data.images.permute(0, 2, 3, 1).numpy()


def test_folder_and_zip_give_the_same_set(data_root):
    pixels = write_folder(data_root, "insects")
    zip_folder(data_root, "insects")
    from_folder = load("insects", "train")
    (data_root / "insects").rename(data_root / "elsewhere")
    from_zip = load("insects", "train")
    for data in (from_folder, from_zip):
        assert data.classes == ("ant", "bee")
        assert data.labels.tolist() == [0, 0, 0, 1, 1, 1]
        np.testing.assert_array_equal(pixels_of(data), pixels)
    assert from_zip.source == "archive insects.zip"
    assert from_zip.checksum() == from_folder.checksum()


@pytest.fixture
def tiny_cifar100(monkeypatch):
    """Say that CIFAR-100 has 4 + 4 images of 2 classes."""
    monkeypatch.setitem(loading.KNOWN, "cifar100", loading.Known({"train": 4, "test": 4}, 2, ()))


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_torchvision_files_are_read(data_root, monkeypatch, name):
    kind = public._torchvision_class(name)
    folder = data_root / name / kind.base_folder
    folder.mkdir(parents=True)
    pixels, labels = made_images(6, 32), [3, 1, 9, 0, 2, 9]
    parts = [slice(0, 3), slice(3, 6)] if name == "cifar10" else [slice(0, 6)]
    md5s = [
        write_pickle(
            folder / f"part{number}",
            {b"data": pixels[part].transpose(0, 3, 1, 2).reshape(-1, 3072), public.LABEL[name]: labels[part]},
        )
        for number, part in enumerate(parts)
    ]
    names = [f"class {i}".encode() for i in range(10 if name == "cifar10" else 100)]
    meta = {
        "filename": "meta",
        "key": kind.meta["key"],
        "md5": write_pickle(folder / "meta", {kind.meta["key"].encode(): names}),
    }
    monkeypatch.setattr(kind, "train_list", [[f"part{number}", md5] for number, md5 in enumerate(md5s)])
    monkeypatch.setattr(kind, "test_list", [])
    monkeypatch.setattr(kind, "meta", meta)
    data = load(name, "train", download=False)
    assert (data.labels.tolist(), data.source) == (labels, "torchvision files")
    assert data.classes[:2] == ("class 0", "class 1")
    np.testing.assert_array_equal(pixels_of(data), pixels)
    np.testing.assert_array_equal(pixels_of(data), torchvision_reads(kind, data_root / name))
    assert load(name, "train", size=16, download=False).images.shape == (6, 3, 16, 16)
    (folder / "part0").write_bytes(b"cut short")
    with pytest.raises(DataError, match="part0 is missing or damaged: delete .* and get it again"):
        load(name, "train", download=False)


def torchvision_reads(kind, root) -> np.ndarray:
    return kind(root, train=True).data


def test_a_pickle_runs_nothing(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    write_pickle(tmp_path / "evil", {b"labels": Evil()})
    public.unpickled(tmp_path / "evil", np.empty(0, np.uint8))
    assert not (tmp_path / "made").exists()


def test_size_resizes_the_short_side_and_crops_the_middle(data_root):
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255  # the middle third is white
    (data_root / "wide" / "train" / "one").mkdir(parents=True)
    (data_root / "wide" / "train" / "one" / "a.png").write_bytes(png(wide))
    (data_root / "wide" / "train" / "one" / "b.png").write_bytes(png(wide[:, 10:20]))
    with pytest.raises(DataError, match="wide/train differ in size, such as 30 x 10 and 10 x 10: pass `size=`"):
        load("wide", "train")
    data = load("wide", "train", size=10)
    assert data.images.shape == (2, 3, 10, 10)
    assert (data.images == 255).all()


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_zip(data_root, share):
    write_folder(data_root, "insects")
    path = zip_folder(data_root, "insects")
    (data_root / "insects").rename(data_root / "elsewhere")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match=r"insects.zip is damaged or cut short.*again"):
        load("insects", "train")


def test_damaged_member_of_a_zip(data_root):
    write_folder(data_root, "insects")
    path = zip_folder(data_root, "insects")
    (data_root / "insects").rename(data_root / "elsewhere")
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.infolist()[2].header_offset + 80
    content[start] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"insects.zip is damaged"):
        load("insects", "train")


def test_zip_of_something_else(data_root):
    with zipfile.ZipFile(data_root / "insects.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(DataError, match="holds no image under insects/train"):
        load("insects", "train")


def test_empty_class_folder(data_root):
    write_folder(data_root, "insects")
    (data_root / "insects" / "train" / "wasp").mkdir()
    with pytest.raises(DataError, match="class folder insects/train/wasp holds no image"):
        load("insects", "train")


@pytest.mark.parametrize("packed", [False, True])
def test_image_that_is_no_image(data_root, packed):
    write_folder(data_root, "insects")
    (data_root / "insects" / "train" / "bee" / "1.png").write_bytes(b"<html>not found</html>")
    if packed:
        zip_folder(data_root, "insects")
        (data_root / "insects").rename(data_root / "elsewhere")
    with pytest.raises(DataError, match=r"insects/train/bee/1.png is not an image"):
        load("insects", "train")


def test_missing_data_root(data_root, monkeypatch):
    monkeypatch.setenv("DATA_ROOT", str(data_root / "nowhere"))
    with pytest.raises(DataError, match=r"cifar100/train is not in .*nowhere"):
        load("cifar100", "train", download=False)


def test_unwritable_data_root(monkeypatch):
    monkeypatch.setenv("DATA_ROOT", os.devnull)  # also root cannot make a folder below it
    with pytest.raises(DataError, match="cannot write to the data folder .*DATA_ROOT"):
        load("cifar100", "train")


def test_unknown_set_and_split():
    with pytest.raises(DataError, match="unknown set 'cifra100'.*cifar100, .*toy, "):
        load("cifra100", "train")
    with pytest.raises(ValueError, match="train, val, test"):
        load("toy", "training")


def test_wrong_number_of_classes(data_root):
    write_folder(data_root, "cifar100")
    with pytest.raises(DataError, match="2 classes, not 100"):
        load("cifar100", "train")


def test_more_images_than_there_are(data_root, tiny_cifar100):
    write_folder(data_root, "cifar100")
    with pytest.raises(DataError, match="6 images, more than the 4"):
        load("cifar100", "train")


def test_a_split_that_no_source_has_is_not_downloaded(data_root, monkeypatch):
    monkeypatch.setattr(loading, "fetch", lambda *args: pytest.fail("downloads"))
    with pytest.raises(DataError, match="cifar100/val"):
        load("cifar100", "val")


def test_divide_is_disjoint_stratified_and_seeded():
    data = toy_set(400)
    kept, rest = data.divide(300, seed=1)
    assert kept.labels.bincount().tolist() == [15] * 20
    assert rest.labels.bincount().tolist() == [5] * 20
    seen = {image.numpy().tobytes() for image in kept.images}
    assert len(seen) == 300
    assert not any(image.numpy().tobytes() in seen for image in rest.images)
    assert data.divide(300, seed=1)[0].checksum() == kept.checksum() != data.divide(300, seed=2)[0].checksum()
    assert kept.masks is not None
    assert len(kept.masks) == 300


def test_divide_refuses_parts_without_all_classes():
    with pytest.raises(ValueError, match="each part needs one of all 20 classes"):
        toy_set(100).divide(90)


def test_image_set_refuses_what_does_not_fit():
    images, labels = torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 1, 0])
    with pytest.raises(ValueError, match="uint8"):
        ImageSet(images.float(), labels, ("a", "b"))
    with pytest.raises(ValueError, match="labels must lie in 0 .. 1, got 0 .. 2"):
        ImageSet(images, torch.tensor([0, 1, 2, 0]), ("a", "b"))
    with pytest.raises(ValueError, match="labels must lie in 0 .. 1, got -1 .. 1"):
        check_labels(torch.tensor([-1, 1]), 2)
    with pytest.raises(ValueError, match="int64"):
        ImageSet(images, labels.float(), ("a", "b"))
    with pytest.raises(ValueError, match="4 images but 3 labels"):
        ImageSet(images, labels[:3], ("a", "b"))
    with pytest.raises(ValueError, match="masks"):
        ImageSet(images, labels, ("a", "b"), masks=torch.zeros(4, 7, 8, dtype=torch.bool))


@pytest.mark.parametrize(
    ("value", "message"),
    [(float("nan"), "NaN"), (float("inf"), "NaN or infinity"), (1.1, "normalisation inside"), (-0.1, r"\[0, 1\]")],
)
def test_bad_pixels(value, message):
    images = torch.full((2, 3, 4, 4), 0.5)
    images[1, 2, 3, 3] = value
    with pytest.raises(ValueError, match=message):
        to_uint8(images)


def test_pixel_slack_and_shape():
    check_pixels(torch.full((1, 3, 4, 4), 1 + 5e-7))
    with pytest.raises(ValueError, match=r"\(N, C, H, W\)"):
        check_pixels(torch.rand(3, 4, 4))


def test_to_uint8_rounds():
    levels = torch.arange(256).view(1, 1, 16, 16)
    assert torch.equal(to_uint8(((levels + 0.4) / 255).clamp(0, 1)), levels.to(torch.uint8))
    assert torch.equal(to_uint8(((levels - 0.4) / 255).clamp(0, 1)), levels.to(torch.uint8))


def test_toy_world_is_deterministic_and_balanced():
    first, again, other = toy.draw(500, 16, seed=3), toy.draw(500, 16, seed=3), toy.draw(500, 16, seed=4)
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)
    assert first.fine.bincount(minlength=100).tolist() == [5] * 100
    assert torch.equal(first.coarse, first.fine % 20)
    assert (len(toy.FINE), len(toy.COARSE)) == (100, 20)


def test_toy_splits_share_no_image():
    splits = [
        {image.numpy().tobytes() for image in load("toy", split, size=16).images} for split in ("train", "val", "test")
    ]
    assert not splits[0] & splits[1]
    assert not splits[0] & splits[2]
    assert not splits[1] & splits[2]


def test_toy_mask_lies_on_the_object():
    scenes = toy.draw(300, 32)
    plain = scenes.attributes["texture"] == 0
    colour = toy.COLOUR_RGB[scenes.attributes["colour"]][plain]
    images, masks = scenes.images[plain] / 255, scenes.masks[plain]
    inside = torch.stack([image[:, mask].median(1).values for image, mask in zip(images, masks, strict=True)])
    hue = torch.nn.functional.cosine_similarity(inside, colour)
    assert hue.min() > 0.99
    assert 0.03 < scenes.masks.float().mean((1, 2)).min() < scenes.masks.float().mean((1, 2)).max() < 0.5


def test_toy_captions_say_what_is_seen():
    scenes = toy.draw(50, 32)
    for caption, persian, label in zip(scenes.captions("en"), scenes.captions("fa"), scenes.fine.tolist(), strict=True):
        colour, texture, shape = toy.FINE[label].split()
        assert f"{colour} {texture} {shape}" in caption
        assert persian.startswith(f"یک {toy.SHAPES[shape]} {toy.TEXTURES[texture]} {toy.COLOURS[colour]}")


def test_toy_side_word_fits_the_mask():
    scenes = toy.draw(300, 32)
    columns = torch.arange(32.0)
    centre = torch.stack([(mask.float().sum(0) * columns).sum() / mask.sum() for mask in scenes.masks])
    means = [centre[scenes.attributes["side"] == side].mean() for side in range(3)]
    assert means[0] + 3 < means[1] < means[2] - 3
