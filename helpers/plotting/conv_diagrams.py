"""Convolution as a product of matrices, drawn with its numbers: every number comes from `conv`."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from ..conv import conv2d
from ..conv.geometry import Geometry
from .style import PALETTE


def conv_example(image: Tensor, weight: Tensor, grad: Tensor | None = None) -> Figure:
    """One image and one filter: above, the output as weights x columns; below, the gradient on its way back.

    Args:
        image: float `(H, W)`; small whole numbers are the most readable.
        weight: float `(k, k)`.
        grad: the gradient that comes in, as large as the output; None: ones.
    """
    at = Geometry(tuple(image.shape), tuple(weight.shape), (1, 1), (0, 0), (1, 1), 1)
    columns = at.unfold(image[None, None])[0, 0]  # (k k, L)
    out = conv2d(image[None, None], weight[None, None])[0, 0]
    grad = torch.ones_like(out) if grad is None else grad
    back = weight.flatten()[:, None] * grad.flatten()  # (k k, L): W^T dy
    folded = at.fold(back[None, None])[0, 0]  # (H, W)
    kernel, column = tuple(weight.shape), (weight.numel(), 1)  # what is framed: the kernel's first place
    forward = [("image $x$", image, kernel), ("columns $X$ = unfold($x$)", columns, column),
               ("weights $W$, as a row", weight.view(1, -1), column[::-1]), ("$y = W X$", out.view(1, -1), (1, 1)),
               ("$y$, as an image", out, (1, 1))]  # fmt: skip
    backward = [("gradient $dy$", grad, (1, 1)), ("$W^T dy$", back, column), ("$dx$ = fold($W^T dy$)", folded, kernel),
                ("$dw = dy\\,X^T$, as a kernel", (columns @ grad.flatten()).view_as(weight), kernel)]  # fmt: skip
    figure = plt.figure(figsize=(12.5, 7.2))
    upper, lower = figure.subfigures(2, 1)
    _row(upper, "Forward", forward)
    _row(lower, "Backward", backward)
    plt.close(figure)
    return figure


def _row(figure: Figure, title: str, parts: Sequence[tuple[str, Tensor, tuple[int, int]]]) -> None:
    """Matrices side by side, each as wide as it has columns."""
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    widths = [max(3.0, values.shape[1]) for _, values, _ in parts]
    for axis, part in zip(figure.subplots(1, len(parts), width_ratios=widths), parts, strict=True):
        _matrix(axis, *part)


def _matrix(axis: Axes, name: str, values: Tensor, framed: tuple[int, int]) -> None:
    """The numbers on a light ground, blue below 0, red above; a frame round the upper left `framed` ones."""
    largest = max(1e-9, values.abs().max().item())
    axis.imshow(values.numpy(), cmap="RdBu_r", vmin=-2.5 * largest, vmax=2.5 * largest)
    for (row, column), value in np.ndenumerate(values.numpy()):
        axis.text(column, row, f"{value + 0:g}", ha="center", va="center", fontsize=10)  # + 0: no minus before a zero
    axis.set_title(name, fontsize=10)
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    height, width = framed
    frame = Rectangle((-0.46, -0.46), width - 0.08, height - 0.08, fill=False, linewidth=2.5, edgecolor=PALETTE[2])
    axis.add_patch(frame)
