"""Drawn leaves: what is on the leaf is the class, and the ground tells it where it is meant to, and only there."""

import pytest
import torch
from sklearn.ensemble import RandomForestClassifier

from helpers.data import DataError, ImageSet, load
from helpers.data.toy_leaves import CLASSES, CONFOUNDED, SPLITS, draw_leaves

WORLDS = sorted(CONFOUNDED)  # confounded, plain


@pytest.fixture(scope="module")
def worlds():
    """Training and test images of both worlds."""
    return {name: (load(name, "train"), load(name, "test")) for name in WORLDS}


def border(data):
    """Eight pixels at the border: corners and middles of the sides, 24 numbers."""
    last, middle = data.images.shape[-1] - 1, data.images.shape[-1] // 2
    rows, columns = [0, 0, 0, middle, middle, last, last, last], [0, middle, last, 0, last, 0, middle, last]
    return data.images[:, :, rows, columns].flatten(1).numpy()


def leaf_colours(data):
    """How often each of 512 colours occurs on the leaf."""
    code = (data.images.long() // 32 * torch.tensor([64, 8, 1]).view(3, 1, 1)).sum(1)  # (N, S, S)
    shares = [code[mask].bincount(minlength=512) / mask.sum() for code, mask in zip(code, data.masks, strict=True)]
    return torch.stack(shares).numpy()


def place_and_size(data):
    """Where the leaf is and how large: the mask's share of each row, of each column and of the image."""
    masks = data.masks.float()
    return torch.cat([masks.mean(1), masks.mean(2), masks.mean((1, 2))[:, None]], 1).numpy()


def accuracy(describe, train, test):
    forest = RandomForestClassifier(60, random_state=0).fit(describe(train), train.labels.numpy())
    return (forest.predict(describe(test)) == test.labels.numpy()).mean()


def largest_share(data):
    return data.labels.bincount().max().item() / len(data)


def test_same_seed_same_leaves_and_another_another():
    one, again, other = (draw_leaves(30, 64, seed) for seed in (1, 1, 2))
    assert one.checksum() == again.checksum()
    assert torch.equal(one.masks, again.masks)
    assert one.checksum() != other.checksum()
    assert not torch.equal(one.masks, other.masks)


@pytest.mark.parametrize("size", [32, 64])
def test_both_worlds_have_the_same_leaves_and_only_the_ground_differs(size):
    given, plain = draw_leaves(200, size, 5, True), draw_leaves(200, size, 5, False)
    assert (given.name, plain.name) == ("toy-leaves", "toy-leaves-plain")
    assert torch.equal(given.labels, plain.labels)
    assert torch.equal(given.masks, plain.masks)
    on_leaf = given.masks[:, None].expand_as(given.images)
    assert torch.equal(given.images[on_leaf], plain.images[on_leaf])
    step = (given.images.float() - plain.images.float()).masked_fill(on_leaf, torch.nan).flatten(2)
    assert (step.nanmean(2).abs().amax(1) > 5).float().mean() > 0.6  # a few are dealt their own shade again
    typical = step.nanmedian(2, keepdim=True).values
    assert (step - typical).abs().nan_to_num(0).max() <= 8  # even: the grain is the same, up to rounding and clipping


def test_the_ground_has_nothing_of_the_leaf_and_the_mask_nothing_of_the_ground():
    """Grounds are grey and evenly so; pixels of a leaf are coloured, but for a softened outline."""
    data = draw_leaves(200, 64)
    chroma = (data.images.amax(1).int() - data.images.amin(1).int()).float()
    assert chroma[~data.masks].max() < 20
    inner = -torch.nn.functional.max_pool2d(-data.masks.float()[:, None], 3, 1, 1)[:, 0] > 0
    assert inner.sum() > 0.7 * data.masks.sum()
    assert (chroma[inner] > 30).float().mean() > 0.98
    grey = data.images.float().mean(1).masked_fill(data.masks, torch.nan).flatten(1)
    off = (grey - grey.nanmedian(1, keepdim=True).values).abs().nan_to_num(0)
    assert off.max() < 6 * 0.012 * 255


@pytest.mark.parametrize("size", [32, 64])
def test_the_border_is_ground_and_the_leaf_is_large_enough(size):
    data = draw_leaves(1_500, size)
    assert data.images.shape == (1_500, 3, size, size)
    assert (data.masks.dtype, data.masks.shape) == (torch.bool, (1_500, size, size))
    edge = torch.ones(size, size, dtype=torch.bool)
    edge[1:-1, 1:-1] = False
    assert not data.masks[:, edge].any()
    share = data.masks.float().mean((1, 2))
    assert 0.10 < share.min() < share.max() < 0.35
    assert share.std() > 0.01


def test_splits_have_their_sizes_and_share_no_image():
    splits = {split: load("toy-leaves", split, size=32) for split in SPLITS}
    assert {split: len(data) for split, data in splits.items()} == {"train": 1_200, "val": 300, "test": 600}
    assert {data.split for data in splits.values()} == set(SPLITS)
    seen = [image.numpy().tobytes() for data in splits.values() for image in data.images]
    assert len(set(seen)) == 2_100


@pytest.mark.parametrize("name", WORLDS)
def test_loading_names_the_set_and_draws_64_pixels_unless_told(name):
    data = load(name, "val")
    assert (data.name, data.split, data.source) == (name, "val", "drawn, seed 12")
    assert data.images.shape == (300, 3, 64, 64)
    assert load(name, "val", size=40).images.shape == (300, 3, 40, 40)


def test_classes_are_as_unequal_as_in_the_real_set(worlds):
    for data in (*worlds["toy-leaves"], *worlds["toy-leaves-plain"], draw_leaves(34), draw_leaves(68)):
        counts = data.labels.bincount(minlength=len(CLASSES))
        assert 2.1 < counts.max() / counts.min() < 2.6
    assert draw_leaves(34).labels.bincount().tolist() == [7, 5, 7, 6, 6, 3]
    assert draw_leaves(12).labels.unique().tolist() == list(range(len(CLASSES)))  # a part of a round has them all


@pytest.mark.trains
def test_the_border_gives_the_class_away_only_where_it_is_meant_to(worlds):
    assert accuracy(border, *worlds["toy-leaves"]) > 0.9
    assert accuracy(border, *worlds["toy-leaves-plain"]) < largest_share(worlds["toy-leaves-plain"][1]) + 0.12


@pytest.mark.trains
@pytest.mark.parametrize("size", [32, 64])
def test_the_leaf_tells_the_class_in_both(size, worlds):
    for name in WORLDS:
        pair = worlds[name] if size == 64 else [load(name, split, size=size) for split in ("train", "test")]
        assert accuracy(leaf_colours, *pair) > 0.9


@pytest.mark.trains
def test_place_and_size_of_the_leaf_do_not_tell_the_class(worlds):
    train, test = worlds["toy-leaves"]
    assert accuracy(place_and_size, train, test) < largest_share(test) + 0.12


def test_an_unknown_split_is_named_and_an_unknown_set_lists_the_leaves():
    with pytest.raises(ValueError, match="train, val, test, not 'dev'"):
        load("toy-leaves", "dev")
    with pytest.raises(DataError, match="unknown set 'toy-leafs'.*toy, .*toy-leaves, toy-leaves-plain, "):
        load("toy-leafs", "train")


def uneven():
    """Seven, three and five images of three classes, each image and mask with its number on it."""
    labels = torch.tensor([0, 1, 0, 0, 2, 0, 1, 2, 2, 0, 0, 1, 2, 0, 2])
    numbers = torch.arange(15)
    images = numbers.to(torch.uint8).view(15, 1, 1, 1).expand(15, 3, 2, 4).contiguous()
    bits = (numbers[:, None] >> torch.arange(4) & 1).bool()
    return ImageSet(images, labels, ("a", "b", "c"), masks=bits[:, None].expand(15, 2, 4).contiguous())


def numbers_of(data):
    return data.images[:, 0, 0, 0].long()


@pytest.mark.parametrize("seed", range(10))
def test_balanced_repeats_every_image_as_evenly_as_can_be(seed):
    data = uneven()
    balanced = data.balanced(seed)
    assert balanced.labels.bincount().tolist() == [7, 7, 7]
    times = numbers_of(balanced).bincount(minlength=15)
    for label, often in enumerate(([1] * 7, [2, 2, 3], [1, 1, 1, 2, 2])):
        assert times[data.labels == label].sort().values.tolist() == often


def test_balanced_keeps_images_labels_masks_and_order_together():
    data = uneven()
    balanced = data.balanced(seed=1)
    numbers = numbers_of(balanced)
    assert torch.equal(numbers, numbers.sort().values)  # in the order of the set, as `take` and `divide` leave it
    assert torch.equal(data.labels[numbers], balanced.labels)
    assert torch.equal(data.masks[numbers], balanced.masks)
    assert (balanced.name, balanced.classes) == (data.name, data.classes)


def test_balanced_is_seeded():
    data = uneven()
    assert torch.equal(data.balanced(1).images, data.balanced(1).images)
    assert len({tuple(numbers_of(data.balanced(seed)).tolist()) for seed in range(10)}) > 5
    even = data[torch.tensor([0, 1, 4])]
    assert torch.equal(even.balanced().images, even.images)  # nothing to repeat


def test_a_class_without_an_image_cannot_be_balanced():
    with pytest.raises(ValueError, match="class 'b' has no image"):
        uneven()[torch.tensor([0, 4])].balanced()
