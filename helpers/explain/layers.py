"""An inner layer's output: caught on its way, and read as a grid of cells over the image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import gcd, isqrt
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Tokens(NamedTuple):
    """A grid of `height` x `width` patch tokens, row by row, behind `prefix` others (class token, registers)."""

    height: int
    width: int
    prefix: int = 1


def find_tokens(count: int, height: int, width: int) -> Tokens:
    """The grid of patches among `count` tokens of an image of `height` x `width` pixels.

    It has the image's ratio of sides and leaves the fewest prefix tokens, at most 5 (a class token and four registers).
    Patches of a whole number of pixels go first; others are possible where the model resizes its input.

    Raises:
        ValueError: no such grid.
    """
    unit = gcd(height, width)
    rows, columns = height // unit, width // unit
    most = isqrt(count // (rows * columns))
    grids = [Tokens(rows * k, columns * k, count - rows * columns * k * k) for k in range(most, 0, -1)]
    likely = [grid for grid in grids if grid.prefix <= 5 and grid.height * grid.width > 1]
    whole = [grid for grid in likely if height % grid.height == 0]
    if not likely:
        raise ValueError(
            f"{count} tokens are no grid of the shape of a {height} x {width} image with at most 5 tokens before it: "
            "give tokens=Tokens(height, width, prefix)"
        )
    return (whole or likely)[0]


def as_grid(output: Tensor, size: torch.Size, tokens: Tokens | None = None) -> Tensor:
    """A layer's output as `(N, C, h, w)`.

    Args:
        output: `(N, C, h, w)` of a CNN, `(N, h, w, C)` of a Swin, or `(N, T, C)` of a ViT.
        size: the image's height and width; a grid has about the same ratio of sides.
        tokens: where the patches lie among the T tokens; None: found by `find_tokens`.

    Raises:
        ValueError: the output is no grid of at least two cells.
    """
    if output.ndim == 3:
        return _patches(output, tokens or find_tokens(output.shape[1], *size))
    if output.ndim == 4 and _covers(output.shape[2:], size):
        return output
    if output.ndim == 4 and _covers(output.shape[1:3], size):
        return output.movedim(-1, 1)  # (N, C, h, w)
    found, image = tuple(output.shape), tuple(size)
    raise ValueError(f"the layer returns {found}: no grid of cells over an image of {image}; choose an earlier layer")


def _patches(output: Tensor, grid: Tokens) -> Tensor:
    end = grid.prefix + grid.height * grid.width
    if end > output.shape[1]:
        raise ValueError(f"{grid} needs {end} tokens, but the layer returns {output.shape[1]}")
    return output[:, grid.prefix : end].unflatten(1, grid[:2]).movedim(-1, 1)  # (N, T, C) to (N, C, h, w)


def _covers(grid: torch.Size, size: torch.Size) -> bool:
    """Whether a grid has several cells and the image's ratio of sides, up to a factor below 2, since strides round."""
    return grid.numel() > 1 and 0.5 < grid[0] * size[1] / (grid[1] * size[0]) < 2


@contextmanager
def cut_at(layer: nn.Module) -> Iterator[list[Tensor]]:
    """While open, what `layer` returns is collected, and starts the graph: nothing before it needs a gradient."""
    outputs: list[Tensor] = []

    def replace(module: nn.Module, inputs: tuple[object, ...], output: object) -> object:
        first, *rest = output if isinstance(output, tuple) else (output,)
        if not isinstance(first, Tensor):
            raise ValueError(f"the layer returns {type(first).__name__}, not a tensor")
        outputs.append(first.detach().requires_grad_())
        copy = outputs[-1].clone()  # the next layer may work in place
        return (copy, *rest) if isinstance(output, tuple) else copy

    handle = layer.register_forward_hook(replace)
    try:
        yield outputs
    finally:
        handle.remove()
