"""Random views and gains: inside the image, as large and as strong as asked."""

import torch

from helpers.data import RandomGain, RandomView


def ramp(size=32):
    """An image whose red is the column and whose green is the row, 0 to 1 from edge to edge."""
    at = (torch.arange(size) + 0.5) / size
    return torch.stack([at.expand(size, size), at[:, None].expand(size, size), torch.zeros(size, size)])[None]


def test_random_views_stay_inside_the_image_and_are_as_large_as_asked():
    view = RandomView(area=(0.3, 1.0), degrees=15)
    maps = view.placed(2_000, torch.device("cpu"), torch.Generator().manual_seed(0))
    corners = torch.tensor([[x, y, 1.0] for x in (-1, 1) for y in (-1, 1)]).T
    assert (maps @ corners).abs().max() <= 1 + 1e-5
    turns = torch.atan2(maps[:, 1, 0], maps[:, 0, 0]).rad2deg()
    assert 14 < turns.max() <= 15.001
    assert -15.001 <= turns.min() < -14
    area = maps[:, :, :2].det().abs()
    assert 0.28 < area.min() < 0.35  # an upright small part keeps its size
    assert area.max() > 0.9


def test_a_random_view_shows_its_part_of_the_image():
    images = ramp().expand(64, -1, -1, -1).contiguous()
    shown = RandomView(degrees=0)(images, torch.Generator().manual_seed(0))
    maps = RandomView(degrees=0).placed(64, torch.device("cpu"), torch.Generator().manual_seed(0))
    assert shown.shape == images.shape
    assert torch.allclose(shown[:, 0].mean((1, 2)), (maps[:, 0, 2] + 1) / 2, atol=0.02)  # the centre's column
    assert torch.allclose(shown[:, 1].mean((1, 2)), (maps[:, 1, 2] + 1) / 2, atol=0.02)
    width = shown[:, 0, :, -1].mean(1) - shown[:, 0, :, 0].mean(1)
    assert torch.allclose(width, maps[:, 0, 0] * 31 / 32, atol=0.03)


def test_a_whole_upright_view_is_the_image():
    images = torch.rand(2, 3, 16, 16)
    whole = RandomView(area=(1, 1), ratio=(1, 1), degrees=0)(images, torch.Generator().manual_seed(0))
    assert torch.allclose(whole, images, atol=1e-5)


def test_gain_scales_each_channel_of_each_image_by_itself():
    images = torch.full((500, 3, 2, 2), 0.5)
    shown = RandomGain(0.2)(images, torch.Generator().manual_seed(0))
    factors = shown[:, :, 0, 0] / 0.5
    assert torch.equal(shown, shown[:, :, :1, :1].expand_as(shown))
    assert 0.8 <= factors.min() < 0.82
    assert 1.18 < factors.max() <= 1.2
    assert factors.T.corrcoef()[0, 1].abs() < 0.2
    assert RandomGain(0.2)(torch.ones(50, 3, 2, 2), torch.Generator().manual_seed(0)).max() <= 1
