"""Maps over light images: what is empty stays light, what is high is coloured, the unit of the score is no matter."""

import numpy as np
import pytest
import torch

from helpers.plotting.map_rows import map_rows, over_light


def pictures(count=2):
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def peak(count=2):
    maps = torch.zeros(count, 8, 8)
    maps[:, 1, 2] = 1.0
    return maps


def test_an_empty_map_leaves_a_light_image():
    shown = over_light(pictures(1)[0], torch.zeros(8, 8))
    assert shown.shape == (8, 8, 3)
    assert shown.min() >= 0.6
    assert np.allclose(shown[..., 0], shown[..., 2])  # grey


def test_only_what_is_high_is_coloured():
    image = pictures(1)[0]
    shown, empty = over_light(image, peak(1)[0]), over_light(image, torch.zeros(8, 8))
    assert shown[1, 2, 0] - shown[1, 2, 2] > 0.2  # red
    shown[1, 2] = empty[1, 2]
    assert np.allclose(shown, empty)


def test_the_unit_of_the_score_does_not_matter():
    image, heat = pictures(1)[0], torch.rand(8, 8)
    assert np.allclose(over_light(image, heat), over_light(image, 1000 * heat), atol=1e-5)


def test_rows_of_images_and_of_maps():
    images = pictures()
    maps = torch.stack([peak(1)[0], torch.zeros(8, 8)])
    figure = map_rows(
        {"image": images, "model": (images, maps)}, {"model": ["a", "b"]}, ["clean", "FGSM"], bold=["model"]
    )
    top, below = figure.axes[:2], figure.axes[2:4]
    assert np.allclose(top[0].images[0].get_array(), images[0].permute(1, 2, 0), atol=1e-6)  # in colour
    assert np.allclose(below[1].images[0].get_array(), over_light(images[1], maps[1]))
    assert [[text.get_text() for text in axis.texts] for axis in below] == [[], ["empty"]]
    assert [axis.get_title() for axis in top] == ["clean", "FGSM"]
    assert [axis.get_xlabel() for axis in (*top, *below)] == ["", "", "a", "b"]
    assert [axis.yaxis.label.get_fontweight() for axis in (top[0], below[0])] == ["normal", "bold"]
    assert figure.axes[4].get_ylabel() == "times the map's mean"


@pytest.mark.parametrize("lengths", [(2, 3), (3, 2)])
def test_rows_may_differ_in_length(lengths):
    figure = map_rows({str(n): pictures(length) for n, length in enumerate(lengths)})
    assert [axis.axison for axis in figure.axes].count(False) == 1
    assert len(figure.axes) == 6  # and no scale without a map
