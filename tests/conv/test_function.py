"""Convolution by hand against `F.conv2d`: outputs, first and second gradients, and every way to call it wrongly."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from helpers.conv import CustomConv2d, conv2d
from helpers.conv import function as conv
from helpers.conv import geometry as conv_geometry
from helpers.conv.geometry import Geometry

pairs = lambda low, high: st.tuples(st.integers(low, high), st.integers(low, high))  # noqa: E731


@st.composite
def cases(draw):
    """Shapes and arguments of one convolution that F.conv2d accepts."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    channels, filters = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    kernel, size = draw(pairs(1, 5)), draw(pairs(1, 11))
    arguments = {"stride": draw(pairs(1, 6)), "padding": draw(pairs(0, 4)), "dilation": draw(pairs(1, 2))}
    fits = zip(size, kernel, arguments["padding"], arguments["dilation"], strict=True)
    assume(all(s + 2 * p >= d * (k - 1) + 1 for s, k, p, d in fits))
    layout = draw(st.sampled_from(["contiguous", "channels last", "transposed", "sliced"]))
    shape = (draw(st.integers(1, 4)), channels, *size)
    return shape, (filters, channels // groups, *kernel), arguments | {"groups": groups}, layout, draw(st.booleans())


def laid_out(shape, layout, generator, dtype):
    """Random images of this shape, not all of them contiguous."""
    n, c, h, w = shape
    if layout == "transposed":
        return torch.randn(n, c, w, h, generator=generator, dtype=dtype).mT
    if layout == "sliced":
        return torch.randn(n, 2 * c, h, w + 1, generator=generator, dtype=dtype)[:, ::2, :, 1:]
    images = torch.randn(shape, generator=generator, dtype=dtype)
    return images.to(memory_format=torch.channels_last) if layout == "channels last" else images


@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@settings(max_examples=200, deadline=None)
@given(case=cases(), seed=st.integers(0, 2**31))
def test_output_and_gradients_equal_those_of_pytorch(dtype, within, case, seed):
    shape, kernel, arguments, layout, with_bias = case
    g = torch.Generator().manual_seed(seed)
    inputs = [laid_out(shape, layout, g, dtype), torch.randn(kernel, generator=g, dtype=dtype) / 5]
    inputs += [torch.randn(kernel[0], generator=g, dtype=dtype)] if with_bias else []
    inputs = [tensor.requires_grad_() for tensor in inputs]
    ours, theirs = conv2d(*inputs, **arguments), F.conv2d(*inputs, **arguments)
    assert ours.shape == theirs.shape
    grad = torch.randn(ours.shape, generator=g, dtype=dtype)
    scale = max(
        1.0, *(t.detach().abs().max().item() for t in torch.autograd.grad(theirs, inputs, grad, retain_graph=True))
    )
    torch.testing.assert_close(ours, theirs, rtol=within, atol=within)
    for one, other in zip(
        torch.autograd.grad(ours, inputs, grad), torch.autograd.grad(theirs, inputs, grad), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=within, atol=within * scale)


CHECKED = {
    "plain": ((2, 3, 5, 4), (4, 3, 3, 2), {"padding": 1}),
    "stride larger than the kernel": ((1, 2, 7, 7), (2, 2, 2, 2), {"stride": 3}),
    "dilated, in groups": ((2, 4, 6, 5), (2, 2, 2, 2), {"dilation": 2, "groups": 2, "padding": (1, 0)}),
    "1x1": ((2, 3, 3, 2), (2, 3, 1, 1), {}),
    "1x1 with a stride": ((1, 2, 4, 5), (3, 2, 1, 1), {"stride": 2}),
}


def double(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("name", CHECKED)
def test_gradcheck_and_gradgradcheck(name):
    shape, kernel, arguments = CHECKED[name]
    inputs = double(shape, 0), double(kernel, 1), double(kernel[:1], 2)
    assert gradcheck(lambda *x: conv2d(*x, **arguments), inputs)
    assert gradgradcheck(lambda *x: conv2d(*x, **arguments), inputs)


def test_the_assignments_own_check():
    images, weight, bias = double((2, 3, 12, 12), 0), double((64, 3, 7, 7), 1), double((64,), 2)
    assert (conv2d(images, weight, bias, 2, 3) - F.conv2d(images, weight, bias, 2, 3)).abs().max() < 1e-5
    few = weight[:4].detach().requires_grad_()
    assert gradcheck(lambda x, w: conv2d(x, w, None, 2, 3), (images, few), eps=1e-4, atol=1e-5)


@pytest.mark.parametrize("tile", [1, 500, 10**9])
def test_tiles_change_nothing(tile, monkeypatch):
    images, weight = double((5, 3, 7, 6), 0), double((4, 3, 3, 3), 1)
    expected = F.conv2d(images, weight, padding=1)
    grads = torch.autograd.grad(expected.square().sum(), (images, weight))
    monkeypatch.setattr(conv_geometry, "TILE", tile)
    ours = conv2d(images, weight, padding=1)
    torch.testing.assert_close(ours, expected)
    for one, other in zip(torch.autograd.grad(ours.square().sum(), (images, weight)), grads, strict=True):
        torch.testing.assert_close(one, other)


def test_tiles_hold_no_more_than_they_may(monkeypatch):
    seen = []
    unfold = Geometry.unfold
    monkeypatch.setattr(conv_geometry, "TILE", 3 * 9 * 16 * 2)  # two images' worth
    monkeypatch.setattr(Geometry, "unfold", lambda at, images: seen.append(len(images)) or unfold(at, images))
    conv2d(torch.rand(5, 3, 6, 6), torch.rand(2, 3, 3, 3))
    assert seen == [2, 2, 1]


def test_only_images_and_weight_are_kept():
    images, weight = double((4, 3, 9, 9), 0), double((2, 3, 5, 5), 1)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        conv2d(images, weight, padding=2)
    assert sorted(kept) == sorted([images.numel(), weight.numel()])


@pytest.mark.parametrize("wanted", ["images", "weight", "bias"])
def test_only_the_gradient_that_is_asked_for_is_computed(wanted, monkeypatch):
    def forbid(name):
        def raising(*_):
            raise AssertionError(f"{name} was not asked for")

        return raising

    for function, owner in ((conv.ToImages, "images"), (conv.ToWeight, "weight")):
        if owner != wanted:
            monkeypatch.setattr(function, "forward", staticmethod(forbid(owner)))
    given = {"images": torch.rand(2, 3, 5, 5), "weight": torch.rand(4, 3, 3, 3), "bias": torch.rand(4)}
    given[wanted].requires_grad_()
    conv2d(*given.values()).sum().backward()
    assert [tensor.grad is not None for tensor in given.values()] == [name == wanted for name in given]


def test_the_output_is_new_and_may_be_changed_in_place():
    images, weight = torch.rand(2, 3, 4, 4), torch.rand(5, 3, 1, 1).requires_grad_()
    out = conv2d(images, weight)
    assert out._base is None
    F.relu(out, inplace=True).sum().backward()
    assert weight.grad is not None


def test_no_images_give_no_outputs():
    images, weight = torch.rand(0, 3, 5, 5).requires_grad_(), torch.rand(4, 3, 3, 3).requires_grad_()
    out = conv2d(images, weight)
    assert out.shape == (0, 4, 3, 3)
    out.sum().backward()
    assert images.grad.shape == images.shape
    assert weight.grad.eq(0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_its_type_and_gradients_stay_float32(dtype):
    layer, reference = CustomConv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
    reference.load_state_dict(layer.state_dict())
    images = torch.rand(2, 3, 6, 6).requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        ours, theirs = layer(images), reference(images)
    assert ours.dtype == theirs.dtype == dtype
    torch.testing.assert_close(ours.float(), theirs.float(), rtol=0.02, atol=0.02)
    ours.float().square().sum().backward()
    assert layer.weight.grad.dtype == images.grad.dtype == torch.float32


LAYERS = {
    "pairs": {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)},
    "no bias, groups": {"kernel_size": 3, "groups": 2, "bias": False},
    "same": {"kernel_size": (4, 3), "padding": "same", "dilation": (1, 2)},
    "valid": {"kernel_size": 3, "padding": "valid"},
    "reflect": {"kernel_size": 3, "padding": 2, "padding_mode": "reflect"},
    "circular": {"kernel_size": 3, "padding": (1, 2), "padding_mode": "circular"},
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer_is_a_drop_in(name):
    torch.manual_seed(0)
    reference = nn.Conv2d(4, 6, **LAYERS[name])
    torch.manual_seed(0)
    layer = CustomConv2d(4, 6, **LAYERS[name])
    for key, value in layer.state_dict().items():
        assert torch.equal(value, reference.state_dict()[key])
    images = torch.rand(2, 4, 9, 8)
    torch.testing.assert_close(layer(images), reference(images))
    torch.testing.assert_close(layer(images[0]), reference(images[0]))


X, W = torch.rand(2, 4, 5, 5), torch.rand(6, 4, 3, 3)
MISUSES = {
    "images of other channels": (lambda: conv2d(X[:, :3], W), "images of 4 channels"),
    "three dimensions": (lambda: conv2d(X[0], W), "images must have 4 dimensions"),
    "flat weight": (lambda: conv2d(X, W.flatten(1)), "weight must have 4 dimensions"),
    "bytes": (lambda: conv2d((X * 255).byte(), W), "need floats"),
    "two types": (lambda: conv2d(X.double(), W), "one type for all"),
    "biases too few": (lambda: conv2d(X, W, torch.rand(5)), "6 filters but 5 biases"),
    "kernel too large": (lambda: conv2d(X, torch.rand(1, 4, 6, 6)), "larger than images"),
    "dilated kernel too large": (lambda: conv2d(X, W, dilation=3), "larger than images"),
    "stride 0": (lambda: conv2d(X, W, stride=0), "stride and dilation must be 1 or more"),
    "negative padding": (lambda: conv2d(X, W, padding=-1), "padding 0 or more"),
    "three strides": (lambda: conv2d(X, W, stride=(1, 1, 1)), "stride"),
    "groups that do not divide": (lambda: conv2d(X, W[:5, :2], groups=2), "multiple of 2 filters"),
    "no groups": (lambda: conv2d(X, W, groups=0), "groups"),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_raises_a_clear_error(name):
    call, words = MISUSES[name]
    with pytest.raises(ValueError, match=words):
        call()
