"""Pairs of words in two halves, and two sets as one."""

import pytest
import torch

from helpers.data import ImageSet
from helpers.data.joined import joined
from helpers.data.toy_pairs import OTHERS, PAIRS, TEN, draw_pairs


def test_halves_share_every_word_and_no_class():
    assert sorted(TEN + OTHERS) == list(range(len(PAIRS)))
    words = [{word for pair in half for word in PAIRS[pair].split()} for half in (TEN, OTHERS)]
    assert words[0] == words[1]
    assert len(TEN) == len(OTHERS) == 10


def test_labels_name_what_is_drawn():
    part = draw_pairs(TEN, "test", 200)
    assert part.classes == tuple(PAIRS[pair] for pair in TEN)
    assert part.labels.bincount(minlength=10).min() > 5
    red = torch.tensor([name.startswith("red") for name in part.classes])[part.labels]
    colours = torch.stack([image[:, mask].float().mean(1) for image, mask in zip(part.images, part.masks, strict=True)])
    lead = colours[:, 0] - colours[:, 1:].amax(1)  # of the red channel on the object
    assert lead[red].mean() > lead[~red].mean() + 10


def test_the_first_images_do_not_depend_on_the_count_and_splits_differ():
    few, many = draw_pairs(TEN, "train", 50), draw_pairs(TEN, "train", 300)
    assert torch.equal(few.images, many[:50].images)
    parts = [draw_pairs(half, split, 200) for half in (TEN, OTHERS) for split in ("train", "val", "test")]
    pixels = [{image.numpy().tobytes() for image in part.images} for part in parts]
    assert all(not a & b for i, a in enumerate(pixels) for b in pixels[i + 1 :])


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="not 'trial'"):
        draw_pairs(TEN, "trial", 10)
    with pytest.raises(ValueError, match="not 4000"):
        draw_pairs(TEN, "test", 4_000)


def test_joined_numbers_the_second_sets_classes_after_the_firsts():
    images = torch.arange(5 * 3 * 4 * 4, dtype=torch.uint8).view(5, 3, 4, 4)
    data = ImageSet(images, torch.tensor([0, 1, 2, 0, 1]), ("a", "b", "c"), "set")
    both = joined(data, data[:2])
    assert both.classes == ("a", "b", "c", "a", "b", "c")
    assert both.labels.tolist() == [0, 1, 2, 0, 1, 3, 4]
    assert torch.equal(both.images, torch.cat([images, images[:2]]))
    assert both.name == "set + set"
