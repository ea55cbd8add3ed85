"""The retinal warp against closed forms, symmetries, gradients, and the half pixels of the code it is taken from."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from helpers.gaze import fixed_gazes, look, retina, retina_fit, retina_grid
from helpers.gaze.retina import RetinaFit, sampling_radii

EXACT = {"atol": 1e-9, "rtol": 0}
NO_GAZE = torch.zeros(1, 2, dtype=torch.float64)


def images(n=64, count=2, seed=0):
    return torch.rand(count, 3, n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gaze(*places):
    """`(1, G, 2)` in float64, for an image."""
    return torch.tensor([places], dtype=torch.float64)


def ramp(n, a, b):
    """A picture whose value is `a x + b y`, in pixels from its centre."""
    line = torch.arange(n, dtype=torch.float64) - (n - 1) / 2
    return (a * line + b * line[:, None])[None, None]


def seen_inside(n, places):
    """bool `(n, n)`: all four pixels that a bilinear sample needs lie in the image."""
    pixels = retina_grid(places, n)[0] * n / 2 + (n - 1) / 2
    return ((pixels >= 0) & (pixels <= n - 1)).all(-1)


@pytest.mark.parametrize(
    ("n", "a", "b", "rf"),
    [
        (32, 0.034488, 0.5264, 0.7350),
        (40, 0.026831, 0.5183, 0.7669),
        (64, 0.016079, 0.5067, 0.8161),
        (96, 0.010471, 0.5006, 0.8443),
        (112, 0.008915, 0.4989, 0.8525),
        (128, 0.007761, 0.4976, 0.8586),
        (224, 0.004369, 0.4939, 0.8772),
        (320, 0.003040, 0.4924, 0.8847),
    ],
)
def test_the_fit_has_the_numbers_of_the_original(n, a, b, rf):
    assert np.allclose(retina_fit(n), (a, b, rf), atol=(5e-7, 5e-5, 5e-5))
    assert abs(sampling_radii(n, retina_fit(n).rf)[-1] - n / 2) < 1e-9


def test_the_distance_of_samples_grows_from_the_first_on():
    steps = np.diff(sampling_radii(64, retina_fit(64).rf))
    assert (np.diff(steps) > 0).all()
    assert 2.9 < steps[-1] / steps[0] < 3.2  # the root of the density's factor of ten, a step before the rim


def test_the_fit_is_the_best_parabola_without_a_constant():
    a, b, rf = retina_fit(64)
    q, radii = np.arange(32), sampling_radii(64, rf)
    left = a * q**2 + b * q - radii
    assert abs(left @ q) < 1e-9 * (radii @ q)  # what is left over is at right angles to both of its terms
    assert abs(left @ q**2) < 1e-9 * (radii @ q**2)
    assert abs(np.abs(left).max() - 0.84) < 0.01  # pixels: the outermost ring of the image is not read


def test_one_warp_serves_all_sizes_in_units_of_the_frame():
    for n in (64, 128, 320):
        assert abs(retina_fit(n).a * n / 2 - 0.5) < 0.016
        assert abs(retina_fit(n).b - 0.5) < 0.016


def test_without_curvature_and_magnification_nothing_changes(monkeypatch):
    monkeypatch.setattr(retina, "retina_fit", lambda n: RetinaFit(0.0, 1.0, 1.0))
    for places in (gaze((0, 0)), gaze((7.3, -11))):
        torch.testing.assert_close(look(images(), places.expand(2, 1, 2))[:, 0], images(), atol=1e-12, rtol=0)


SYMMETRIES = {
    "left and right": lambda x: x.flip(-1),
    "up and down": lambda x: x.flip(-2),
    "a quarter turn": lambda x: x.rot90(1, (-2, -1)),
    "three quarters": lambda x: x.rot90(3, (-2, -1)),
}


def asymmetry(view, turned):
    """How much it matters whether an image is turned before or after it is looked at."""
    return (view(turned(images())) - turned(view(images()))).abs().max().item()


def look_of_the_original(x):
    """At its centre: (n - 1) / 2 is taken away, n / 2 added, and the two pixels of its own padding are forgotten."""
    n = x.shape[-1]
    a, b, _ = retina_fit(n)
    line = torch.arange(n, dtype=x.dtype) - (n - 1) / 2
    away = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)
    pixels = away * (a * away.norm(dim=-1, keepdim=True) + b) + n / 2 - 2  # in an image without padding
    grid = (pixels + 0.5) * 2 / n - 1
    return F.grid_sample(x, grid.expand(len(x), -1, -1, -1), align_corners=False)


@pytest.mark.parametrize("name", SYMMETRIES)
def test_a_gaze_at_the_centre_turns_and_mirrors_with_the_image(name):
    assert asymmetry(lambda x: look(x, NO_GAZE), SYMMETRIES[name]) < 1e-12
    assert asymmetry(look_of_the_original, SYMMETRIES[name]) > 0.1  # a shift of a pixel and a half


def test_the_original_reads_a_pixel_and_a_half_to_the_upper_left():
    coarse = F.interpolate(images(8), size=64, mode="bicubic")  # smooth, so that a shift is a small change
    moved = (retina_grid(NO_GAZE, 64) - 1.5 * 2 / 64).expand(2, -1, -1, -1)
    again = F.grid_sample(coarse, moved, align_corners=False)
    torch.testing.assert_close(look_of_the_original(coarse), again, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("name", "place"), [("left and right", (-5.2, 3.7)), ("up and down", (5.2, -3.7)), ("a quarter turn", (3.7, -5.2))]
)
def test_turning_the_image_and_the_gaze_turns_what_is_seen(name, place):
    turned = SYMMETRIES[name]
    there = look(turned(images()), gaze(place).expand(2, 1, 2))
    torch.testing.assert_close(there, turned(look(images(), gaze((5.2, 3.7)).expand(2, 1, 2))), atol=1e-12, rtol=0)


def test_x_is_to_the_right_and_y_down():
    spot = torch.zeros(1, 1, 64, 64, dtype=torch.float64)
    spot[..., 40, 50] = 1  # row 40, column 50
    place = torch.tensor([[[50 - 31.5, 40 - 31.5]]], dtype=torch.float64)
    assert look(spot, place)[0, 0, 0].argmax() == 40 * 64 + 50  # the gaze stays where it is, and is enlarged
    assert look(spot, place).sum() > 3  # to about four pixels


def test_a_ramp_is_shown_at_the_places_where_it_is_read():
    places = torch.tensor([[6.0, -9.5]], dtype=torch.float64)
    source = retina_grid(places, 64)[0] * 32  # pixels from the centre
    expected, inside = 0.3 * source[..., 0] - 0.2 * source[..., 1], seen_inside(64, places)
    torch.testing.assert_close(look(ramp(64, 0.3, -0.2), places)[0, 0, 0][inside], expected[inside], **EXACT)


def test_moving_the_gaze_moves_the_centre_by_one_minus_b():
    places = torch.tensor([[[0.5, 0.5]]], dtype=torch.float64, requires_grad=True)  # on a pixel
    value = look(ramp(64, 0.3, -0.2), places)[0, 0, 0, 32, 32]
    (found,) = torch.autograd.grad(value, places)
    b = retina_fit(64).b
    wanted = (1 - b) * torch.tensor([0.3, -0.2], dtype=torch.float64)
    torch.testing.assert_close(found.flatten(), wanted, atol=1e-7, rtol=0)
    torch.testing.assert_close(wanted, torch.tensor([0.148, -0.0987]).double(), atol=5e-5, rtol=0)


def test_moving_the_gaze_moves_every_place_by_the_closed_form():
    """The derivative of the place by the gaze, `d` away from it at distance `q`: I - (b I + a (q I + d d' / q))."""
    a, b, _ = retina_fit(64)
    place = torch.tensor([[3.3, -4.7]], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda gazes: retina_grid(gazes, 64) * 32, place)[0, :, :, :, 0]
    line = torch.arange(64, dtype=torch.float64) - 31.5
    away = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1) - place[0]
    q, one = away.norm(dim=-1)[..., None, None], torch.eye(2, dtype=torch.float64)
    wanted = one - (b * one + a * (q * one + away[..., :, None] * away[..., None, :] / q))
    torch.testing.assert_close(jacobian, wanted, **EXACT)


def test_the_gaze_itself_stays_and_its_surroundings_grow_by_the_fit():
    a, b, _ = retina_fit(64)
    place = torch.tensor([[4.5, -2.5]], dtype=torch.float64)  # on the pixel in column 36, row 29
    source = retina_grid(place, 64)[0] * 32
    torch.testing.assert_close(source[29, 36], place[0], atol=1e-12, rtol=0)
    for q in (1, 5, 20):
        assert abs((source[29, 36 + q] - place[0])[0].item() - (a * q * q + b * q)) < 1e-9
        assert abs((place[0] - source[29 - q, 36])[1].item() - (a * q * q + b * q)) < 1e-9


@pytest.mark.parametrize(("n", "natural", "equal"), [(32, 6.9, 13.7), (64, 15.3, 30.7), (128, 32.4, 64.7)])
def test_the_local_scale_is_one_where_the_original_has_it(n, natural, equal):
    a, b, _ = retina_fit(n)
    assert abs((1 - b) / (2 * a) - natural) < 0.06
    assert abs((1 - b) / a - equal) < 0.15  # up to here everything is enlarged
    row = retina_grid(torch.tensor([[0.5, 0.5]], dtype=torch.float64), n)[0, n // 2, :, 0] * n / 2  # through the gaze
    q = torch.arange(1, n // 2 - 1)
    slope = (row[n // 2 + q + 1] - row[n // 2 + q - 1]) / 2  # of a parabola it is exact
    torch.testing.assert_close(slope, 2 * a * q.double() + b, **EXACT)


@pytest.mark.parametrize(
    ("n", "shares"),
    [
        (32, (0.110, 0.276, 0.497)),
        (64, (0.080, 0.244, 0.463)),
        (128, (0.064, 0.227, 0.443)),
        (320, (0.058, 0.217, 0.432)),
    ],
)
def test_as_much_lies_outside_as_in_the_original(n, shares):
    """Its clamp begins two pixels further out on the lower right."""
    for place, share in zip((0, n / 4, n / 2), shares, strict=True):
        places = (retina_grid(torch.full((1, 2), place, dtype=torch.float64), n)[0] + 1) * n / 2  # 0 to n
        assert abs(((places < 0) | (places > n + 2)).any(-1).double().mean().item() - share) < 1e-3


def test_a_flat_image_stays_flat_inside_and_is_black_outside():
    places = gaze((5, -7))
    seen, inside = look(torch.ones(1, 1, 64, 64, dtype=torch.float64), places)[0, 0, 0], seen_inside(64, places[0])
    torch.testing.assert_close(seen[inside], torch.ones_like(seen[inside]), **EXACT)
    pixels = retina_grid(places[0], 64)[0] * 32 + 31.5
    outside = ((pixels <= -1) | (pixels >= 64)).any(-1)
    assert outside.any()
    assert (seen[outside] == 0).all()
    assert abs(inside.double().mean().item() - 0.848) < 2e-3
    assert (look(torch.ones(1, 1, 64, 64), places.float(), outside="reflection") > 0.999).all()


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "straight_through"])
def test_all_gazes_in_one_call_equal_a_loop_bit_for_bit(mode):
    x, places = images().float(), torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(1)) * 9
    one_by_one = [look(x, places[:, k : k + 1], mode) for k in range(5)]
    assert torch.equal(look(x, places, mode), torch.cat(one_by_one, 1))


def test_the_same_gazes_for_all_images_need_not_be_repeated():
    x, places = images().float(), fixed_gazes(8)
    assert torch.equal(look(x, places), look(x, places.expand(2, 5, 2)))
    assert places.tolist() == [[0, 0], [-8, -8], [8, -8], [-8, 8], [8, 8]]


def test_gradients_to_image_and_gaze():
    x = images(8, 1).requires_grad_()
    places = torch.tensor([[[0.63, -1.21], [1.37, 0.88]]], dtype=torch.float64, requires_grad=True)
    assert gradcheck(look, (x, places), atol=1e-6)
    assert gradcheck(lambda x, places: look(x, places, outside="reflection"), (x, places), atol=1e-6)
    assert gradcheck(lambda x: look(x, places.detach(), "nearest"), (x,))


def test_only_the_four_pixels_around_a_sample_have_a_gradient():
    x = images(32, 1).requires_grad_()
    (found,) = torch.autograd.grad(look(x, gaze((9, -6)))[0, 0, 0].sum(), x)
    touched = torch.zeros(34, 34, dtype=torch.bool)  # with a rim of one pixel
    first = (retina_grid(torch.tensor([[9.0, -6.0]], dtype=torch.float64), 32)[0] * 16 + 15.5).floor().long() + 1
    for column, row in first[((first >= 0) & (first <= 32)).all(-1)].tolist():
        touched[row : row + 2, column : column + 2] = True
    assert torch.equal(found[0, 0] > 0, touched[1:-1, 1:-1])
    assert 0.01 < (~touched[1:-1, 1:-1]).double().mean() < 0.05  # far from the gaze samples are over two pixels apart
    (within,) = torch.autograd.grad(look(x, gaze((9, -6)))[0, 0, 0, :8, 20:].sum(), x)
    assert within[0, 0, 20:].abs().max() == 0  # a mask in the upper right reads nothing at the bottom


def test_the_nearest_version_reads_three_quarters_of_the_pixels():
    x = images(32, 1).requires_grad_()
    (found,) = torch.autograd.grad(look(x, gaze((0, 0)), "nearest").sum(), x)
    nearest = (retina_grid(NO_GAZE, 32)[0] * 16 + 15.5).round()
    inside = ((nearest >= 0) & (nearest <= 31)).all(-1)
    times = torch.zeros(32, 32, dtype=torch.float64)
    for column, row in nearest[inside].long().tolist():
        times[row, column] += 1
    torch.testing.assert_close(found[0, 0], times, **EXACT)
    assert times.max() == 4


@pytest.mark.parametrize(("n", "reach", "one", "five"), [(32, 8, 0.738, 1.0), (64, 16, 0.772, 0.992)])
def test_what_a_single_gaze_leaves_out_the_five_see(n, reach, one, five):
    """The original reads 72 % at 32 pixels and 77 at 64: its shift makes it two points less at 32."""
    x = images(n, 1).requires_grad_()
    for places, share in ((NO_GAZE, one), (fixed_gazes(reach).double(), five)):
        (found,) = torch.autograd.grad(look(x, places, "nearest").sum(), x)
        assert abs((found[0, 0] > 0).double().mean().item() - share) < 0.01


def test_the_nearest_pixel_tells_nothing_about_the_gaze_but_its_stand_in_does():
    x, places = images(16, 1), torch.tensor([[[0.63, -1.21]]], dtype=torch.float64, requires_grad=True)
    weights, x = images(16, 1, seed=5), x.requires_grad_()
    to_image, to_gaze = {}, {}
    for mode in ("bilinear", "nearest", "straight_through"):
        seen = look(x, places, mode)
        to_image[mode], to_gaze[mode] = torch.autograd.grad(
            (seen[:, 0] * weights).sum(), (x, places), materialize_grads=True
        )
    assert to_gaze["nearest"].abs().max() == 0
    assert to_gaze["bilinear"].abs().min() > 0.1
    for found in (to_image, to_gaze):
        assert torch.equal(found["straight_through"], found["bilinear"])
    assert not torch.equal(to_image["nearest"], to_image["bilinear"])
    shown, sharp = look(x, places, "straight_through"), look(x, places, "nearest")
    torch.testing.assert_close(shown, sharp, atol=1e-15, rtol=0)
    assert (sharp - look(x, places)).abs().max() > 0.1
    assert all((x == value).any() for value in sharp.flatten()[sharp.flatten() > 0])  # no pixel is mixed


def test_places_keep_their_precision_under_autocast():
    x, places = images().float(), torch.tensor([[3.3, -4.7]])
    plain = look(x, places)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(look(x, places), plain)
        assert torch.equal(look(x.bfloat16(), places), look(x.bfloat16().float(), places))
        assert torch.equal(retina_grid(places, 64), retina_grid(places.double().float(), 64))
        assert retina_grid(places.bfloat16(), 64).dtype == torch.float32
    assert look(x.bfloat16(), places.bfloat16()).dtype == torch.float32
    assert look(x, places.double()).dtype == torch.float64


def test_beyond_the_edge_lies_black_or_the_last_pixel_or_the_mirror_image():
    x, places = images(16, 1), torch.tensor([[7.5, 7.5]], dtype=torch.float64)
    grid = retina_grid(places, 16)
    pixels = grid[0] * 8 + 7.5
    beyond = (pixels > 16).any(-1)
    assert beyond.sum() == 0  # the gaze is in the lower right corner; the frame ends there
    far = (pixels < -1).any(-1)
    assert far.any()
    shown = {outside: look(x, places, outside=outside)[0, 0] for outside in ("zeros", "border", "reflection")}
    for outside, seen in shown.items():
        expected = F.grid_sample(x, grid, padding_mode=outside, align_corners=False)[0]
        assert torch.equal(seen, expected)
    assert (shown["zeros"][:, far] == 0).all()
    assert (shown["border"][:, far] > 0).all()
    assert not torch.equal(shown["border"], shown["reflection"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((torch.rand(2, 3, 8, 10), torch.zeros(1, 2)), r"images must be float \(N, C, n, n\), got .* \(2, 3, 8, 10\)"),
        ((torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(1, 2)), "images must be float .*uint8"),
        ((torch.rand(3, 8, 8), torch.zeros(1, 2)), "images must be float"),
        ((torch.rand(2, 3, 8, 8), torch.zeros(2)), "gazes must be"),
        ((torch.rand(2, 3, 8, 8), torch.full((2, 1, 2), -torch.inf)), "NaN or infinite"),
        ((torch.rand(2, 3, 8, 8), torch.zeros(1, 2, dtype=torch.int64)), "gazes must be float .*int64"),
        ((torch.rand(2, 3, 8, 8), torch.zeros(3, 1, 2)), "gazes must be .* for 2 images"),
        ((torch.rand(2, 3, 8, 8), torch.zeros(2, 1, 3)), "gazes must be"),
        ((torch.rand(2, 3, 8, 8), torch.full((1, 2), torch.nan)), "NaN or infinite"),
        ((torch.rand(2, 3, 9, 9), torch.zeros(1, 2)), "even side of 8 pixels or more, got 9"),
        ((torch.rand(2, 3, 6, 6), torch.zeros(1, 2)), "even side of 8 pixels or more, got 6"),
    ],
)
def test_what_does_not_fit_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        look(*given)


@pytest.mark.parametrize("places", [torch.zeros(1, 1, 2), torch.zeros(1, 3), torch.zeros(1, 2, dtype=torch.int64)])
def test_a_grid_needs_a_list_of_gazes(places):
    with pytest.raises(ValueError, match=r"gazes must be float \(M, 2\)"):
        retina_grid(places, 8)
