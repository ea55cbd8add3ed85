"""Batches: the same for the same seed and epoch, whole over processes, and each transform does what it says."""

import pytest
import torch
from conftest import toy_set

from helpers.data import Batches, GaussianNoise, RandomCrop, RandomFlip, Resize


def epoch(batches, number=0, rank=0, world=1):
    images, labels = zip(*batches.epoch(number, rank, world), strict=True)
    return torch.cat(images), torch.cat(labels)


@pytest.fixture
def augmented():
    return Batches(
        toy_set(100), 32, shuffle=True, transforms=[RandomFlip(), RandomCrop(2), GaussianNoise(0.05)], seed=3
    )


def test_same_seed_and_epoch_same_batches(augmented):
    first, again, later = epoch(augmented, 1), epoch(augmented, 1), epoch(augmented, 2)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], later[1])
    other = Batches(augmented.data, 32, shuffle=True, transforms=augmented.transforms, seed=4)
    assert not torch.equal(epoch(other, 1)[1], first[1])


def test_fresh_noise_each_epoch():
    batches = Batches(toy_set(40), 32, transforms=[GaussianNoise(0.05)])
    assert not torch.equal(epoch(batches, 0)[0], epoch(batches, 1)[0])


def test_plain_batches_are_the_images_in_order():
    data = toy_set(70)
    batches = Batches(data, 32)
    images, labels = epoch(batches)
    assert len(batches) == 3
    assert [len(y) for _, y in batches] == [32, 32, 6]
    assert torch.equal(images, data.images / 255)
    assert torch.equal(labels, data.labels)


def test_shuffling_keeps_every_example_once():
    data = toy_set(100)
    images, labels = epoch(Batches(data, 32, shuffle=True), 5)
    order = (images[:, None] == data.images[None] / 255).flatten(2).all(2).int().argmax(1)
    assert sorted(order.tolist()) == list(range(100))
    assert torch.equal(labels, data.labels[order])


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_each_batch(world):
    batches = Batches(toy_set(100), 32, shuffle=True, seed=1)
    shares = [list(batches.epoch(2, rank, world)) for rank in range(world)]
    together = [torch.cat(parts) for parts in zip(*([y for _, y in share] for share in shares), strict=True)]
    assert torch.equal(torch.cat(together), epoch(batches, 2)[1])


def test_every_process_takes_the_same_number_of_steps():
    batches = Batches(toy_set(33), 32)  # a last batch of one example, for two processes
    assert [len(list(batches.epoch(0, rank, 2))) for rank in range(2)] == [1, 1]


def test_noise_has_the_variance_it_says_and_is_clipped():
    grey = torch.full((50, 3, 32, 32), 0.5)
    change = GaussianNoise(0.01)(grey, torch.Generator().manual_seed(0)) - grey
    assert change.mean().abs() < 1e-3
    assert change.var().item() == pytest.approx(0.01, rel=0.02)
    black = GaussianNoise(0.05)(torch.zeros(50, 3, 32, 32), torch.Generator().manual_seed(0))
    assert black.min() == 0
    assert black.mean().item() == pytest.approx((0.05 / (2 * torch.pi)) ** 0.5, rel=0.02)  # mean of max(0, N(0, 0.05))


def test_noise_leaves_its_input_alone():
    images = torch.full((2, 3, 8, 8), 0.5)
    GaussianNoise(0.05)(images, torch.Generator().manual_seed(0))
    assert (images == 0.5).all()


def test_flip_mirrors_about_half():
    images = torch.rand(400, 3, 4, 5)
    flipped = RandomFlip()(images, torch.Generator().manual_seed(0))
    same = (flipped == images).flatten(1).all(1)
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 150 < mirrored.sum() < 250


def test_crop_shifts_with_a_reflected_border():
    images = torch.rand(300, 2, 6, 7)
    cropped = RandomCrop(2)(images, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(images, [2] * 4, mode="reflect")
    windows = [padded[:, :, r : r + 6, c : c + 7] for r in range(5) for c in range(5)]
    hits = torch.stack([(cropped == window).flatten(1).all(1) for window in windows])
    assert (hits.sum(0) == 1).all()
    assert (hits.sum(1) > 0).all()  # every shift occurs


def test_resize_keeps_a_constant_image():
    out = Resize(10)(torch.full((2, 3, 4, 4), 0.3), torch.Generator())
    assert out.shape == (2, 3, 10, 10)
    assert torch.allclose(out, torch.tensor(0.3))


def test_bad_arguments():
    with pytest.raises(ValueError, match="batch size of 1 or more"):
        Batches(toy_set(20), 0)
    with pytest.raises(ValueError, match="not empty"):
        Batches(toy_set(20)[:0], 4)


def test_description_tells_runs_apart(augmented):
    again = Batches(toy_set(100), 32, shuffle=True, transforms=augmented.transforms, seed=3)
    assert again.describe() == augmented.describe()
    for changed in (
        Batches(toy_set(100, seed=1), 32, shuffle=True, transforms=augmented.transforms, seed=3),
        Batches(toy_set(100), 32, shuffle=True, transforms=[GaussianNoise(0.06)], seed=3),
        Batches(toy_set(100), 16, shuffle=True, transforms=augmented.transforms, seed=3),
    ):
        assert changed.describe() != augmented.describe()
