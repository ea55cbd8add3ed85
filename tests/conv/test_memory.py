"""What a step costs is measured; the designs compared compute the same; the drawn example is true."""

import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers.conv import memory as measure
from helpers.conv.designs import DESIGNS
from helpers.plotting.conv_diagrams import conv_example


@pytest.mark.parametrize("design", list(DESIGNS))
@pytest.mark.parametrize(
    "options", [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "bias": False}, {"stride": (1, 3)}]
)
def test_all_designs_are_the_same_convolution(design, options):
    torch.manual_seed(0)
    layer, images = DESIGNS[design](3, 4, (3, 2), **options), torch.rand(2, 3, 9, 8, requires_grad=True)
    options = {key: value for key, value in options.items() if key != "bias"}
    expected = F.conv2d(images, layer.weight, layer.bias, **options)
    found = layer(images)
    assert torch.allclose(found, expected, atol=1e-5)
    ours, theirs = (torch.autograd.grad(out.square().sum(), [images, layer.weight]) for out in (found, expected))
    assert all(torch.allclose(a, b, atol=1e-3) for a, b in zip(ours, theirs, strict=True))


def test_a_step_learns():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    before = network[0].weight.clone()
    measure.training_step(network, 2, 8)()
    assert not torch.equal(network[0].weight, before)


def test_a_slower_step_has_the_larger_ratio():
    seconds = measure.seconds_by_turns({"one": lambda: time.sleep(0.01), "three": lambda: time.sleep(0.03)}, 3)
    assert seconds.shape == (3, 2)
    table = measure.ratios(seconds, "one")
    assert (table.loc["one"] == 1).all()
    assert table.lowest["three"] <= table.time["three"] <= table.highest["three"]
    assert table.time["three"] > 1.5


def test_keeping_the_unfolded_images_takes_more_memory():
    ours, kept = (measure.peak_megabytes("SimpleNet", name, 16, 96) for name in list(DESIGNS)[1:3])
    assert 10 < ours < kept  # 16 images of 96 px: the first layer's columns alone are 22 MB


def test_what_cannot_be_measured_says_why():
    with pytest.raises(RuntimeError, match="no memory figure for NoSuchNet .*NoSuchNet"):
        measure.peak_megabytes("NoSuchNet", "nn.Conv2d", 1, 32)


def numbers(axis):
    return [float(text.get_text()) for text in axis.texts]


def test_the_drawn_numbers_are_those_of_torch():
    image = torch.arange(16.0).view(4, 4)
    weight = torch.tensor([[1.0, 0, -1], [2, 0, -2], [0, 0, 1]])
    given = [image[None, None].requires_grad_(), weight[None, None].requires_grad_()]
    out = F.conv2d(*given)
    grad = torch.tensor([[1.0, 2], [0, -1]])
    by_image, by_weight = torch.autograd.grad(out, given, grad[None, None])
    axes = conv_example(image.detach(), weight, grad).axes
    shown = {axis.get_title(): numbers(axis) for axis in axes}
    assert shown["$y$, as an image"] == out.flatten().tolist()
    assert next(values for title, values in shown.items() if title.startswith("$dx")) == by_image.flatten().tolist()
    assert next(values for title, values in shown.items() if title.startswith("$dw")) == by_weight.flatten().tolist()
