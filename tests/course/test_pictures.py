"""Small pictures keep every pixel, large ones get a palette and keep their looks."""

import io

import numpy as np
import pytest
from PIL import Image

from helpers.course.pictures import LARGE, compact


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def pixels_of(picture):
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"), dtype=float)


def photograph(side, opacity=255):
    """A smooth picture with some noise, (side, side, 4)."""
    rows, columns = np.mgrid[:side, :side] / side
    smooth = np.stack([rows, columns, rows * columns, np.ones_like(rows)], -1) * 255
    made = (smooth + np.random.default_rng(0).normal(0, 12, smooth.shape)).clip(0, 255).astype(np.uint8)
    made[..., 3] = opacity
    return made


def test_a_small_picture_loses_its_fourth_channel_and_no_pixel():
    made = photograph(60)
    smaller = compact(png(made))
    assert len(smaller) < len(png(made)) < LARGE
    assert np.array_equal(pixels_of(smaller), made[..., :3])


def test_a_large_picture_gets_a_palette():
    made = photograph(400)
    smaller = compact(png(made))
    assert Image.open(io.BytesIO(smaller)).mode == "P"
    assert len(smaller) < 0.5 * len(png(made))
    assert np.abs(pixels_of(smaller) - made[..., :3]).mean() < 6  # levels of 255; median cut alone leaves 6.2
    assert compact(smaller) is smaller  # a second time changes nothing


@pytest.mark.parametrize("picture", [png(photograph(400, 254)), png(photograph(400))[:900], b"no picture"])
def test_what_is_transparent_or_broken_stays(picture):
    assert compact(picture) is picture
