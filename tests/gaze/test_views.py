"""Crops, pyramid, filters, boxes, heads, and networks that look several times."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers.attacks import EOT, PGD
from helpers.gaze import (
    BoxHead,
    GazeHead,
    Gazing,
    RandomGazing,
    activity_penalty,
    averaged,
    box_corners,
    box_theta,
    crops,
    diversity_penalty,
    fixed_gazes,
    halved,
    look,
    pyramid,
    random_gazes,
    saturation,
    smoothed,
    transformed,
)
from helpers.gaze.fixations import gaussian_blur, gaussian_kernel

EXACT = {"atol": 1e-9, "rtol": 0}


def images(n=32, count=2, seed=0, dtype=torch.float64):
    return torch.rand(count, 3, n, n, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def test_crops_are_slices_each_image_at_its_own_gaze():
    x = images()
    seen = crops(x, torch.tensor([[[0.0, 0.0], [3.0, -2.0]], [[-4.0, 4.0], [1.0, 0.0]]]), 24)
    assert seen.shape == (2, 2, 3, 24, 24)
    for (image, view), (x0, y0) in {(0, 0): (4, 4), (0, 1): (7, 2), (1, 0): (0, 8), (1, 1): (5, 4)}.items():
        assert torch.equal(seen[image, view], x[image, :, y0 : y0 + 24, x0 : x0 + 24])


def test_beyond_the_edge_a_crop_shows_the_mirror_image():
    x = images()
    seen = crops(x, torch.tensor([[5.0, 0.0], [0.0, -3.0]]), 32)
    assert torch.equal(seen[:, 0], F.pad(x, [0, 5, 0, 0], mode="reflect")[..., 5:])
    assert torch.equal(seen[:, 1], F.pad(x, [0, 0, 3, 0], mode="reflect")[..., :32, :])


@pytest.mark.parametrize(("radius", "taps"), [(1, 5), (2, 9), (4, 17), (6, 25)])
def test_kernels_are_gaussians_of_four_sigma(radius, taps):
    kernel = gaussian_kernel(radius / 2, 2 * radius)
    assert len(kernel) == taps
    assert abs(kernel.sum().item() - 1) < 1e-6
    middle = taps // 2
    assert abs(math.log(kernel[middle] / kernel[middle + radius]) - 2) < 1e-3  # two sigma away


def test_the_pyramid_of_the_paper_has_four_levels_of_forty_pixels():
    x = images(320, 1, dtype=torch.float32)
    seen = pyramid(x, torch.tensor([[7.0, -3.0]]), (40, 80, 160, 240), (1, 2, 4, 6))
    assert seen.shape == (1, 1, 12, 40, 40)
    window = crops(x, torch.tensor([[7.0, -3.0]]), 160)[:, 0]
    by_hand = gaussian_blur(window, gaussian_kernel(2.0, 8))[..., 2::4, 2::4]
    torch.testing.assert_close(seen[:, 0, 6:9], by_hand)


def test_a_flat_image_stays_flat_in_the_pyramid_and_behind_the_filters():
    flat = torch.full((1, 3, 32, 32), 0.7)
    for seen in (pyramid(flat, fixed_gazes(4)), halved(flat), smoothed(flat)):
        torch.testing.assert_close(seen, torch.full_like(seen, 0.7))


def test_blur_is_a_convolution_along_both_axes():
    spot = torch.zeros(1, 1, 9, 9)
    spot[..., 4, 4] = 1
    kernel = torch.tensor([0.2, 0.5, 0.3])
    torch.testing.assert_close(gaussian_blur(spot, kernel)[0, 0, 3:6, 3:6], torch.outer(kernel.flip(0), kernel.flip(0)))


def test_filters_take_the_finest_detail_away():
    board = (torch.arange(32)[:, None] + torch.arange(32)).remainder(2).float().expand(1, 3, 32, 32)
    for filtered in (halved, smoothed):
        assert filtered(board).shape == board.shape
        assert (filtered(board) - 0.5).abs().max() < 2e-2
    slow = (torch.arange(32) / 31).expand(1, 3, 32, 32)
    assert (halved(slow) - slow).abs()[..., 8:-8].max() < 1e-4  # at the edge it is flattened


def test_levels_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match="different sizes"):
        pyramid(images(), fixed_gazes(4), (12, 24), (1, 3))


def boxes(*each):
    return box_theta(torch.tensor([each], dtype=torch.float64)).expand(2, -1, -1, -1)


def test_boxes_show_the_whole_a_shifted_and_an_enlarged_image():
    x = images()
    seen = transformed(x, boxes((1, 0, 1, 0), (1, 2 * 3 / 32, 1, -2 * 5 / 32), (0.5, 0, 0.5, 0)))
    torch.testing.assert_close(seen[:, 0], x, **EXACT)
    moved = torch.zeros_like(x)
    moved[..., 5:, :-3] = x[..., :-5, 3:]  # what lies 3 pixels to the right and 5 above
    torch.testing.assert_close(seen[:, 1], moved, **EXACT)
    inner = F.interpolate(x, scale_factor=2, mode="bilinear")[..., 16:48, 16:48]
    torch.testing.assert_close(seen[:, 2], inner, **EXACT)


def test_boxes_in_one_call_equal_a_loop():
    x, theta = images(), torch.randn(2, 4, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for k in range(4):
        grid = F.affine_grid(theta[:, k], list(x.shape), align_corners=False)
        assert torch.equal(transformed(x, theta)[:, k], F.grid_sample(x, grid, align_corners=False))


@pytest.mark.parametrize(("outside", "called_back"), [("zeros", False), ("reflection", True)])
def test_a_box_outside_the_image_has_no_gradient_unless_the_image_goes_on(outside, called_back):
    theta = boxes((0.3, 3.0, 0.3, 0.0)).clone().requires_grad_()
    seen = transformed(images(), theta, outside)
    (found,) = torch.autograd.grad((seen * images(seed=3)[:, None]).sum(), theta)
    assert bool(found.abs().max() > 0) == called_back
    assert bool(seen.abs().max() > 0) == called_back


def test_boxes_keep_their_precision_under_autocast():
    x, theta = images(dtype=torch.float32), boxes((0.53, 0.21, 0.77, -0.13)).float()
    plain = transformed(x, theta)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(transformed(x, theta), plain)


def test_corners_of_a_box():
    found = box_corners(boxes((0.5, 0.2, 0.25, -0.1)))[0, 0]
    wanted = torch.tensor([[-0.3, -0.35], [0.7, -0.35], [0.7, 0.15], [-0.3, 0.15]], dtype=torch.float64)
    torch.testing.assert_close(found, wanted, **EXACT)


def test_boxes_must_belong_to_the_images():
    with pytest.raises(ValueError, match="theta must be"):
        transformed(images(), boxes((1, 0, 1, 0))[:1])


@pytest.mark.parametrize("norm", [True, False])
def test_heads_start_where_they_are_told_whatever_the_features(norm):
    features = 5 * torch.rand(3, 512)
    gazes = GazeHead(512, fixed_gazes(8), 16, norm)(features)
    torch.testing.assert_close(gazes, fixed_gazes(8).expand(3, 5, 2))
    start = BoxHead(512, 5, norm)(features)
    assert start.shape == (3, 5, 4)
    if norm:
        torch.testing.assert_close(start[0, :, [0, 2]], torch.full((5, 2), 0.7))
        assert torch.pdist(start[0]).min() > 0.1  # no two boxes get the same gradient
    else:
        torch.testing.assert_close(start, torch.tensor([math.tanh(1), 0, math.tanh(1), 0]).expand(3, 5, 4))


def test_a_gaze_stays_within_its_limit():
    head = GazeHead(4, torch.zeros(1, 2), 16, norm=False)
    nn.init.constant_(head.linear.weight, 50.0)
    assert head(torch.ones(1, 4)).abs().max() <= 16
    with pytest.raises(ValueError, match="within 16 pixels"):
        GazeHead(4, torch.tensor([[16.0, 0.0]]), 16)


def first_move(norm):
    """How far one step of Adam at 0.001 moves the raw output, for features after a ReLU."""
    head = GazeHead(512, torch.zeros(1, 2), 1.0, norm)
    features = torch.rand(8, 512, generator=torch.Generator().manual_seed(0))
    adam = torch.optim.Adam(head.parameters(), lr=1e-3)
    head(features).sum().backward()
    adam.step()
    return head(features).abs().max().atanh().item(), features.sum(1).max().item()


@pytest.mark.trains
def test_one_step_of_adam_moves_a_bare_head_by_the_sum_of_its_features():
    moved, total = first_move(norm=False)
    assert abs(moved - 1e-3 * (total + 1)) < 1e-4  # and the bias
    moved, _ = first_move(norm=True)
    assert moved <= 1e-3 * (math.sqrt(512) + 1)


def test_saturation_counts_coordinates_near_the_limit():
    assert saturation(torch.tensor([[[15.9, -15.9], [0.0, 15.0]]]), 16) == 0.5


def test_the_activity_penalty_is_per_image_and_at_most_one_a_coordinate():
    gazes = torch.full((3, 5, 2), -16.0)
    assert activity_penalty(gazes, 16) == 10
    assert 0.01 * activity_penalty(gazes[:1], 16) == 0.01 * activity_penalty(gazes, 16)


def test_the_diversity_penalty_is_a_mean_over_pairs():
    gazes = torch.randn(3, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(4)) * 5
    pairs = [(i, j) for i in range(4) for j in range(i)]
    by_hand = sum((-((gazes[:, i] - gazes[:, j]) ** 2).sum(1) / (2 * 6**2)).exp().mean() for i, j in pairs) / len(pairs)
    torch.testing.assert_close(diversity_penalty(gazes, 6), by_hand)
    assert diversity_penalty(torch.zeros(2, 3, 2), 6) == 1
    with pytest.raises(ValueError, match="two or more"):
        diversity_penalty(gazes[:, :1], 6)


def network(seed=0):
    torch.manual_seed(seed)
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    return nn.Sequential(*layers)


def test_an_average_over_views_is_that_of_their_logits_and_of_their_gradients():
    net, x = network().double().eval(), images().requires_grad_()
    views = look(x, fixed_gazes(8).double())
    each = [net(views[:, k]) for k in range(5)]
    found = averaged(net, views)
    torch.testing.assert_close(found, torch.stack(each).mean(0), **EXACT)
    one_by_one = [torch.autograd.grad(logits[:, 0].sum(), x, retain_graph=True)[0] for logits in each]
    (whole,) = torch.autograd.grad(found[:, 0].sum(), x)
    torch.testing.assert_close(whole, torch.stack(one_by_one).mean(0), **EXACT)


def test_one_gaze_repeated_is_a_single_look():
    net, x = network(), images(dtype=torch.float32)
    single, many = (Gazing(net, look, 8, torch.tensor([[2.0, 3.0]]).expand(k, 2)).eval() for k in (1, 4))
    torch.testing.assert_close(many(x), single(x))


def test_a_network_draws_whole_gazes_while_it_learns_and_keeps_fixed_ones_afterwards():
    drawn = random_gazes(4_000, 8)
    assert drawn.shape == (4_000, 1, 2)
    assert torch.equal(drawn, drawn.round())
    assert (drawn.min(), drawn.max()) == (-8, 7)
    gazing, x = Gazing(network(), look, 8, fixed_gazes(8)), images(dtype=torch.float32)
    gazing.network[1].eval()  # its averages would change from pass to pass
    assert not torch.equal(gazing(x), gazing(x))
    gazing.eval()
    assert torch.equal(gazing(x), gazing(x))


def test_random_gazes_repeat_with_their_generator_and_average_out():
    gazing, x = Gazing(network(), look, 8, fixed_gazes(8)).eval(), images(count=1, dtype=torch.float32)
    answers = [RandomGazing(gazing, torch.Generator().manual_seed(3)).eval()(x) for _ in range(2)]
    assert torch.equal(*answers)

    def spread(count):
        generator = torch.Generator().manual_seed(0)
        looks = [RandomGazing(gazing, generator, count)(x)[0, 0] for _ in range(200)]
        return torch.stack(looks).var().item()

    assert 0.12 < spread(4) / spread(1) < 0.45  # a quarter


def test_expectation_over_one_draw_is_an_attack_on_one_draw():
    gazing, x = Gazing(network(), look, 8, fixed_gazes(8)).eval(), images(dtype=torch.float32)
    labels, hit = torch.tensor([0, 1]), []
    for wrap in (lambda attack: attack, lambda attack: EOT(attack, 1)):
        attack = PGD(RandomGazing(gazing, torch.Generator().manual_seed(1)), 0.01, 0.005, 3, random_start=False)
        hit.append(wrap(attack)(x, labels))
    assert torch.equal(*hit)
