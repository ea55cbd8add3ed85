"""Convolution by hand: unfold, multiply, fold, and its three gradients.

A convolution is linear in the images `x` and linear in the weights `w`. Write each patch under the kernel as a column,
`X = unfold(x)` of shape `(C k k, L)` for `L` places of the kernel, and the weights as rows, `W` of shape `(D, C k k)`:

    y = W X                 the convolution
    dx = fold(W^T dy)       what a patch gets goes back to the pixels it came from; overlaps add up
    dw = sum_n dy_n X_n^T
    db = sum of dy over images and places

So there are three products, each linear in two arguments, and each is the gradient of the other two. That is all that
a second derivative needs as well. Nothing but `x` and `w` is kept for the backward pass: the unfolded images, `k k`
times as large, are made again, a few images at a time.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from .geometry import Geometry, Pair


class Convolve(Function):
    """`y = W X`."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, at: Geometry) -> Tensor:
        """Images `(N, C, H, W)`, weight `(D, C/groups, k, k)`, bias `(D,)` or None; a new tensor `(N, D, H', W')`."""
        ctx.save_for_backward(images, weight)
        ctx.at = at
        out = images.new_empty(len(images), len(weight), *at.output)
        rows = at.rows(weight)
        for tile in at.tiles(images):
            out[tile] = torch.matmul(rows, at.unfold(images[tile])).view_as(out[tile])
        return out if bias is None else out.add_(bias[:, None, None])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Of the images, the weight and the bias, each only where it is asked for."""
        images, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        return (
            ToImages.apply(grad, weight, ctx.at) if wanted[0] else None,
            ToWeight.apply(images, grad, ctx.at) if wanted[1] else None,
            grad.sum((0, 2, 3)) if wanted[2] else None,
            None,
        )


class ToImages(Function):
    """`dx = fold(W^T dy)`."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, weight: Tensor, at: Geometry) -> Tensor:
        """`(N, D, H', W')` to `(N, C, H, W)`."""
        ctx.save_for_backward(grad, weight)
        ctx.at = at
        out = grad.new_empty(len(grad), weight.shape[1] * at.groups, *at.size)
        columns = at.rows(weight).mT
        for tile in at.tiles(out):
            out[tile] = at.fold(torch.matmul(columns, at.split(grad[tile])))
        return out

    @staticmethod
    def backward(ctx: Any, images: Tensor) -> tuple[Tensor | None, ...]:
        """What comes in has the shape of images."""
        grad, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        return (
            Convolve.apply(images, weight, None, ctx.at) if wanted[0] else None,
            ToWeight.apply(images, grad, ctx.at) if wanted[1] else None,
            None,
        )


class ToWeight(Function):
    """`dw = sum_n dy_n X_n^T`."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, grad: Tensor, at: Geometry) -> Tensor:
        """`(N, C, H, W)` and `(N, D, H', W')` to `(D, C/groups, k, k)`."""
        ctx.save_for_backward(images, grad)
        ctx.at = at
        total = images.new_zeros(
            at.groups, grad.shape[1] // at.groups, images.shape[1] // at.groups * at.kernel[0] * at.kernel[1]
        )
        for tile in at.tiles(images):
            total += torch.matmul(at.split(grad[tile]), at.unfold(images[tile]).mT).sum(0)
        return total.view(grad.shape[1], -1, *at.kernel)

    @staticmethod
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor | None, ...]:
        """What comes in has the shape of the weight."""
        images, grad = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        return (
            ToImages.apply(grad, weight, ctx.at) if wanted[0] else None,
            Convolve.apply(images, weight, None, ctx.at) if wanted[1] else None,
            None,
        )


def conv2d(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> Tensor:
    """What `F.conv2d` computes, with zeros around the image, by `Convolve`.

    Args:
        images: float `(N, C, H, W)`, any memory format.
        weight: `(D, C / groups, k, k')`; `bias`: `(D,)` or None.
        stride, padding, dilation: an int, or one for rows and one for columns.

    Returns:
        A new tensor `(N, D, H', W')`, see `Geometry.output`. Under autocast in autocast's type.

    Raises:
        ValueError: shapes, types or numbers that do not fit, or a kernel larger than the padded image.
    """
    stride, padding, dilation = (_pair(value) for value in (stride, padding, dilation))
    _check(images, weight, bias)
    at = Geometry(tuple(images.shape[2:]), tuple(weight.shape[2:]), stride, padding, dilation, groups)
    _check_geometry(at, images, weight)
    if torch.is_autocast_enabled(images.device.type):
        chosen = torch.get_autocast_dtype(images.device.type)
        images, weight = images.to(chosen), weight.to(chosen)
        bias = None if bias is None else bias.to(chosen)
    return Convolve.apply(images, weight, bias, at)


class CustomConv2d(nn.Conv2d):
    """`nn.Conv2d` (arguments, initialisation, state dict) whose forward and backward are written here."""

    def forward(self, images: Tensor) -> Tensor:
        """`(N, C, H, W)` or one image `(C, H, W)`, to as many of `(D, H', W')`."""
        if images.ndim == 3:
            return self(images[None])[0]
        padding = self.padding
        if self.padding_mode != "zeros" or isinstance(padding, str):  # "same", "circular" and so on: padded beforehand
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            images, padding = F.pad(images, self._reversed_padding_repeated_twice, mode), 0
        return conv2d(images, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


def _pair(value: int | Pair) -> Pair:
    return (value, value) if isinstance(value, int) else tuple(value)


def _check(images: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Raise ValueError unless these are tensors of the right number of dimensions and of one type."""
    given = {"images": (images, 4), "weight": (weight, 4)} | ({} if bias is None else {"bias": (bias, 1)})
    for name, (tensor, dimensions) in given.items():
        if tensor.ndim != dimensions:
            raise ValueError(f"{name} must have {dimensions} dimensions, got {tuple(tensor.shape)}")
        if not tensor.is_floating_point() or tensor.device != images.device:
            raise ValueError(f"{name}: need floats on {images.device}, got {tensor.dtype} on {tensor.device}")
    if bias is not None and len(bias) != len(weight):
        raise ValueError(f"{len(weight)} filters but {len(bias)} biases")
    if not torch.is_autocast_enabled(images.device.type) and len({t.dtype for t, _ in given.values()}) > 1:
        raise ValueError(
            "one type for all, please: " + ", ".join(f"{name} {t.dtype}" for name, (t, _) in given.items())
        )


def _check_geometry(at: Geometry, images: Tensor, weight: Tensor) -> None:
    """Raise ValueError unless a kernel of this shape can stand on these images."""
    numbers = (at.kernel, at.stride, at.padding, at.dilation)
    if any(len(pair) != 2 for pair in numbers) or min(*at.stride, *at.dilation, *at.kernel) < 1 or min(at.padding) < 0:
        raise ValueError(
            f"stride and dilation must be 1 or more, padding 0 or more: got {at.stride}, {at.dilation}, {at.padding}"
        )
    if at.groups < 1 or len(weight) % at.groups or images.shape[1] != weight.shape[1] * at.groups:
        raise ValueError(
            f"weight {tuple(weight.shape)} with {at.groups} groups wants images of {weight.shape[1] * at.groups} "
            f"channels and a multiple of {at.groups} filters, got images {tuple(images.shape)}"
        )
    if min(at.output) < 1:
        raise ValueError(
            f"a kernel of {at.kernel} with dilation {at.dilation} is larger than images of {at.size} with padding "
            f"{at.padding}"
        )
