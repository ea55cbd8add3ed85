"""Scores of maps: cases worked out by hand, chance for an empty map, and a model that reads one known block."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from helpers.data import toy
from helpers.explain.scores import (
    area_under,
    blurred,
    curve_scores,
    deletion_curve,
    edge_maps,
    insertion_curve,
    map_iou,
    mask_iou,
    pointing_game,
    random_maps,
    top_pixels,
    with_baselines,
)

BLOCK = (slice(2, 6), slice(8, 12))  # 16 of 256 pixels


class ReadsBlock(nn.Module):
    """Class 1 if the block is bright, class 0 if it is dark; no other pixel matters."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)  # evaluation mode or the answers are random

    def forward(self, images):
        bright = self.drop(images[:, :, *BLOCK]).mean((1, 2, 3)) - 0.5
        return torch.stack([-6 * bright, 6 * bright], 1)


def block_maps(count=1):
    maps = torch.zeros(count, 16, 16)
    maps[:, *BLOCK] = 1
    return maps


def block_images(count=1):
    """Bright in the block, dark elsewhere."""
    return block_maps(count)[:, None].expand(-1, 3, -1, -1).clone()


def probability(bright):
    return torch.sigmoid(torch.tensor(12 * (bright - 0.5)))


# --- against a mask


MAP = torch.tensor([[[0.9, 0.8, 0.1], [0.7, 0.2, 0.0]]])


def mask(*pixels):
    out = torch.zeros(1, 2, 3, dtype=torch.bool)
    for row, column in pixels:
        out[0, row, column] = True
    return out


@pytest.mark.parametrize(
    ("pixels", "hit", "iou", "iou_half"),
    [
        ([(0, 0), (0, 1)], 1, 1.0, 2 / 3),
        ([(0, 1), (1, 0)], 0, 1 / 3, 2 / 3),
        ([(0, 0), (1, 2)], 1, 1 / 3, 1 / 4),
        ([(0, 2), (1, 2)], 0, 0.0, 0.0),
    ],
)
def test_pointing_and_iou_by_hand(pixels, hit, iou, iou_half):
    assert pointing_game(MAP, mask(*pixels)).tolist() == [hit]
    assert mask_iou(MAP, mask(*pixels)).item() == pytest.approx(iou)
    assert mask_iou(MAP, mask(*pixels), share=0.5).item() == pytest.approx(iou_half)


def test_map_iou_by_hand():
    other = MAP.flip(2)  # highest three: (0, 1), (0, 2), (1, 2); of MAP: (0, 0), (0, 1), (1, 0)
    assert map_iou(MAP, other, share=0.5).item() == pytest.approx(1 / 5)
    assert map_iou(MAP, MAP * 3 - 1, share=0.5).item() == 1


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_map_iou_of_two_constant_maps_is_undefined(value):
    """Not 1: two maps that mark nothing do not agree on a place. One that marks nothing scores chance."""
    maps = torch.cat([torch.full_like(MAP, value), MAP, torch.full_like(MAP, value)])
    others = torch.cat([torch.zeros_like(MAP), MAP, MAP])
    both, same, one = map_iou(maps, others, share=0.5).tolist()
    assert both != both  # NaN
    assert same == 1
    assert one == pytest.approx(1.5 / 4.5)


def test_a_map_that_says_nothing_scores_chance():
    """Wherever the mask lies: the order of pixels in memory must not decide."""
    for pixels in ([(0, 0), (0, 1)], [(1, 1), (1, 2)]):
        flat = torch.zeros(1, 2, 3)
        assert pointing_game(flat, mask(*pixels)).item() == pytest.approx(2 / 6)
        assert mask_iou(flat, mask(*pixels)).item() == pytest.approx((2 / 3) / (4 - 2 / 3))


def test_ties_share_what_is_left():
    maps = torch.tensor([[[3.0, 2.0, 2.0], [2.0, 1.0, 0.0]]])
    expected = torch.tensor([[[1.0, 2 / 3, 2 / 3], [2 / 3, 0.0, 0.0]]])
    torch.testing.assert_close(top_pixels(maps, 3), expected)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 24), st.integers(1, 4), st.integers(0, 99))
def test_membership_sums_to_the_count(count, levels, seed):
    maps = torch.randint(levels, (3, 4, 6), generator=torch.Generator().manual_seed(seed)).float()
    members = top_pixels(maps, torch.tensor([count, 1, 24]))
    torch.testing.assert_close(members.sum((1, 2)), torch.tensor([count, 1.0, 24.0]))
    assert ((members >= 0) & (members <= 1)).all()
    assert members[0][maps[0] == maps[0].max()].min() >= members[0].max() - 1e-6


@pytest.mark.parametrize(
    ("maps", "masks", "message"),
    [
        (MAP, mask().float(), "masks bool"),
        (MAP, mask()[:, :1], "of that shape"),
        (MAP, mask(), "is a mask empty"),
        (MAP * torch.nan, mask((0, 0)), "NaN"),
    ],
)
def test_wrong_masks(maps, masks, message):
    with pytest.raises(ValueError, match=message):
        mask_iou(maps, masks)


def test_wrong_maps():
    with pytest.raises(ValueError, match="differ in shape"):
        map_iou(MAP, MAP[:, :1])
    with pytest.raises(ValueError, match=r"counts must lie in 1 \.\. 6"):
        map_iou(MAP, MAP, share=1.5)


# --- baselines


def test_edge_map_of_a_ramp_a_step_and_nothing():
    ramp = (torch.arange(16.0) / 20).expand(1, 3, 16, 16)
    inner = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(edge_maps(ramp)[inner], torch.full((1, 14, 14), 1 / 20))
    torch.testing.assert_close(edge_maps(ramp.mT)[inner], torch.full((1, 14, 14), 1 / 20))
    step = torch.zeros(1, 3, 16, 16)
    step[..., 8:] = 1
    expected = torch.zeros(16)
    expected[7:9] = 0.5
    torch.testing.assert_close(edge_maps(step), expected.expand(1, 16, 16))
    assert (edge_maps(torch.full((1, 3, 16, 16), 0.5)) == 0).all()


def test_random_maps():
    images = torch.zeros(200, 3, 16, 24)
    maps, coarse = random_maps(images, seed=1), random_maps(images, seed=1, cells=(2, 3))
    assert maps.shape == coarse.shape == (200, 16, 24)
    assert 0 <= maps.min() < 0.01 < 0.99 < maps.max() < 1
    assert maps.mean().item() == pytest.approx(0.5, abs=0.01)
    assert torch.equal(maps, random_maps(images, seed=1))
    assert not torch.equal(maps, random_maps(images, seed=2))
    assert maps.diff(dim=2).abs().mean() > 3 * coarse.diff(dim=2).abs().mean() > 0


def test_baselines_stand_beside_the_maps():
    images = toy.load("toy", "test").take(200).images / 255
    rows = with_baselines({"mine": images[:, 0]}, images, seed=5)
    assert list(rows) == ["mine", "random map", "edge map"]
    assert torch.equal(rows["random map"], random_maps(images, seed=5))
    assert torch.equal(rows["edge map"], edge_maps(images))


# --- deletion and insertion


def test_deletion_curve_by_hand():
    """16 steps of 16 pixels: the block is gone after the first, and then shows the image's mean colour."""
    curve = deletion_curve(ReadsBlock(), block_images(2), block_maps(2), steps=16)
    after = probability(16 / 256)
    expected = torch.tensor([probability(1.0), *[after] * 16])
    torch.testing.assert_close(curve, expected.expand(2, -1))
    area = (expected[0] / 2 + 15 * after + after / 2) / 16
    torch.testing.assert_close(area_under(curve), area.expand(2))


def test_deletion_from_the_wrong_end_by_hand():
    """The block goes last: the probability holds until the last step."""
    curve = deletion_curve(ReadsBlock(), block_images(), -block_maps(), steps=16)
    torch.testing.assert_close(curve[0, :16], probability(1.0).expand(16))
    torch.testing.assert_close(curve[0, 16], probability(16 / 256))


def test_insertion_curve_by_hand():
    fill = torch.zeros(1)
    curve = insertion_curve(ReadsBlock(), block_images(2), block_maps(2), fill=fill, steps=32)  # 8 pixels a step
    expected = torch.tensor([probability(0.0), probability(0.5), *[probability(1.0)] * 31])
    torch.testing.assert_close(curve, expected.expand(2, -1))
    start = insertion_curve(ReadsBlock(), block_images(), block_maps(), torch.tensor([1]), steps=4)[0, 0]
    torch.testing.assert_close(start, probability(blurred(block_images())[0, 0, *BLOCK].mean().item()))


def test_label_decides_and_defaults_to_the_prediction():
    images, maps = block_images(), block_maps()
    for curve in (deletion_curve, insertion_curve):
        predicted, other = (curve(ReadsBlock(), images, maps, torch.tensor([label])) for label in (1, 0))
        assert torch.equal(curve(ReadsBlock(), images, maps), predicted)
        torch.testing.assert_close(predicted + other, torch.ones(1, 21))


def test_the_true_map_beats_the_baselines():
    noise = torch.rand(20, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.4
    images = (noise + 0.6 * block_images(20)).clamp(0, 1)
    model = ReadsBlock().train()
    scores = curve_scores(model, {"true": block_maps(20)}, images)
    assert model.drop.training
    assert list(scores) == ["true", "random map", "edge map"]
    for rival in ("random map", "edge map"):
        assert (scores["true"]["deletion"] < scores[rival]["deletion"] - 0.01).all()
        assert (scores["true"]["insertion"] > scores[rival]["insertion"] + 0.01).all()


def test_pixels_of_equal_value_go_in_no_order_of_place():
    """A flat map takes the top half of the picture no sooner than the bottom half."""
    halves = [Half(slice(0, 8)), Half(slice(8, 16))]
    flat = torch.zeros(1, 16, 16)
    curves = [deletion_curve(half, torch.ones(1, 3, 16, 16), flat, fill=torch.zeros(1), steps=2) for half in halves]
    assert curves[0][0, 1].item() == pytest.approx(curves[1][0, 1].item(), abs=0.1)


class Half(nn.Module):
    """How bright some rows are, as log odds from -2 to 2."""

    def __init__(self, rows):
        super().__init__()
        self.rows = rows

    def forward(self, images):
        bright = 2 * images[:, :, self.rows].mean((1, 2, 3)) - 1
        return torch.stack([bright, -bright], 1)


def test_a_batch_is_its_images():
    images = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    maps = random_maps(images).round(decimals=1)
    for curve in (deletion_curve, insertion_curve):
        alone = torch.cat([curve(ReadsBlock(), images[i : i + 1], maps[i : i + 1]) for i in range(5)])
        torch.testing.assert_close(curve(ReadsBlock(), images, maps), alone)


@pytest.mark.parametrize("curve", [deletion_curve, insertion_curve])
@pytest.mark.parametrize(
    ("images", "maps", "labels", "message"),
    [
        (block_images() * 2, block_maps(), None, r"\[0, 1\]"),
        (block_images(), block_maps()[:, :8], None, r"maps must be \(1, 16, 16\)"),
        (block_images(), block_maps() * torch.nan, None, "without NaN"),
        (block_images(), block_maps(), torch.tensor([2]), "labels must lie in 0 .. 1"),
        (block_images(), block_maps(), torch.tensor([0, 1]), "1 images but 2 labels"),
    ],
)
def test_wrong_curves(curve, images, maps, labels, message):
    with pytest.raises(ValueError, match=message):
        curve(ReadsBlock(), images, maps, labels)
