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
    return torch.tensor([places], dtype=torch.float64).view(1, -1, 2)


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


def test_without_curvature_and_magnification_nothing_changes(monkeypatch):
    monkeypatch.setattr(retina, "retina_fit", lambda n: RetinaFit(0.0, 1.0, 1.0))
    for places in (gaze(0, 0), gaze(7.3, -11)):
        torch.testing.assert_close(look(images(), places.expand(2, 1, 2))[:, 0], images(), **EXACT)


@pytest.mark.parametrize("turned", [lambda x: x.flip(-1), lambda x: x.flip(-2), lambda x: x.rot90(1, (-2, -1))])
def test_a_gaze_at_the_centre_turns_and_mirrors_with_the_image(turned):
    torch.testing.assert_close(look(turned(images()), NO_GAZE), turned(look(images(), NO_GAZE)), **EXACT)


def test_the_originals_shift_of_a_pixel_and_a_half_would_be_seen():
    """It adds n / 2 where it had taken (n - 1) / 2 away, and forgets its own padding of two pixels."""

    def shifted(x):
        grid = retina_grid(NO_GAZE, x.shape[-1]) - 1.5 * 2 / x.shape[-1]
        return F.grid_sample(x, grid.expand(len(x), -1, -1, -1), align_corners=False)

    x = images()
    assert (shifted(x.flip(-1)) - shifted(x).flip(-1)).abs().max() > 0.1


def test_mirroring_the_image_and_the_gaze_mirrors_what_is_seen():
    mirrored = look(images().flip(-1), gaze(-5.2, 3.7).expand(2, 1, 2))
    torch.testing.assert_close(mirrored, look(images(), gaze(5.2, 3.7).expand(2, 1, 2)).flip(-1), **EXACT)


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
    torch.testing.assert_close(
        found.flatten(), (1 - b) * torch.tensor([0.3, -0.2], dtype=torch.float64), atol=1e-5, rtol=0
    )


def test_the_gaze_itself_stays_and_its_surroundings_grow_by_the_fit():
    a, b, _ = retina_fit(64)
    place = torch.tensor([[4.5, -2.5]], dtype=torch.float64)  # on the pixel in column 36, row 29
    source = retina_grid(place, 64)[0] * 32
    torch.testing.assert_close(source[29, 36], place[0], atol=1e-5, rtol=0)
    for q in (1, 5, 20):
        assert abs((source[29, 36 + q] - place[0])[0].item() - (a * q * q + b * q)) < 1e-5
    q = (1 - b) / (2 * a)  # where one pixel is one pixel
    assert 15 < q < 16


def test_a_flat_image_stays_flat_inside_and_is_black_outside():
    places = gaze(5, -7)
    seen, inside = look(torch.ones(1, 1, 64, 64, dtype=torch.float64), places)[0, 0, 0], seen_inside(64, places[0])
    torch.testing.assert_close(seen[inside], torch.ones_like(seen[inside]), **EXACT)
    pixels = retina_grid(places[0], 64)[0] * 32 + 31.5
    outside = ((pixels <= -1) | (pixels >= 64)).any(-1)
    assert outside.any()
    assert (seen[outside] == 0).all()
    assert abs(inside.double().mean().item() - 0.848) < 0.02
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
    assert gradcheck(look, (x, places), atol=1e-5)
    assert gradcheck(lambda x: look(x, places.detach(), "nearest"), (x,))


def test_only_pixels_under_a_sample_have_a_gradient():
    x = images(32, 1).requires_grad_()
    (found,) = torch.autograd.grad(look(x, gaze(0, 0), "nearest").sum(), x)
    nearest = (retina_grid(NO_GAZE, 32)[0] * 16 + 15.5).round()
    inside = ((nearest >= 0) & (nearest <= 31)).all(-1)
    times = torch.zeros(32, 32, dtype=torch.float64)
    for column, row in nearest[inside].long().tolist():
        times[row, column] += 1
    torch.testing.assert_close(found[0, 0], times, **EXACT)
    assert 0.65 < (times > 0).double().mean() < 0.80  # of the image, a fifth to a third is not read at all


def test_the_nearest_pixel_tells_nothing_about_the_gaze_but_its_stand_in_does():
    x, places = images(16, 1), torch.tensor([[[0.63, -1.21]]], dtype=torch.float64, requires_grad=True)
    weights = images(16, 1, seed=5)
    grads = {}
    for mode in ("bilinear", "nearest", "straight_through"):
        seen = look(x, places, mode)
        (grads[mode],) = torch.autograd.grad((seen[:, 0] * weights).sum(), places, materialize_grads=True)
    assert grads["nearest"].abs().max() == 0
    assert torch.equal(grads["straight_through"], grads["bilinear"])
    torch.testing.assert_close(look(x, places, "straight_through"), look(x, places, "nearest"), **EXACT)


def test_places_keep_their_precision_under_autocast():
    x, places = images().float(), torch.tensor([[3.3, -4.7]])
    plain = look(x, places)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(look(x, places), plain)
        assert retina_grid(places.bfloat16(), 64).dtype == torch.float32


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((torch.rand(2, 3, 8, 10), torch.zeros(1, 2)), "images must be float"),
        ((torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(1, 2)), "images must be float"),
        ((torch.rand(2, 3, 8, 8), torch.zeros(3, 1, 2)), "gazes must be .* for 2 images"),
        ((torch.rand(2, 3, 8, 8), torch.zeros(2, 1, 3)), "gazes must be"),
        ((torch.rand(2, 3, 8, 8), torch.full((1, 2), torch.nan)), "NaN or infinite"),
        ((torch.rand(2, 3, 7, 7), torch.zeros(1, 2)), "even side of 8 pixels or more, got 7"),
        ((torch.rand(2, 3, 6, 6), torch.zeros(1, 2)), "got 6"),
    ],
)
def test_what_does_not_fit_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        look(*given)


def test_a_grid_needs_a_list_of_gazes():
    with pytest.raises(ValueError, match="gazes must be float"):
        retina_grid(torch.zeros(1, 1, 2), 8)
