"""Figures of captions: Persian text shaped and from right to left, and where the decoder looked for each word."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

import matplotlib
import matplotlib.pyplot as plt
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from .images import show_image
from .style import PALETTE, closed

SHAPES_ITSELF = tuple(map(int, matplotlib.__version__.split(".")[:2])) >= (3, 11)

COARSE = 48  # pixels of the image under a heat map


def persian(text: str) -> str:
    """Persian as matplotlib must be given it: joined letters, from right to left.

    From 3.11 matplotlib shapes text itself; an older one (as on Colab) is given letters that are joined and turned
    already. DejaVu Sans, which comes with matplotlib, has all Persian letters.
    """
    if SHAPES_ITSELF:
        return text
    import arabic_reshaper
    from bidi.algorithm import get_display

    return get_display(arabic_reshaper.reshape(text))


def length_histogram(lengths: Sequence[int]) -> Figure:
    """How many captions have how many words, a bar a length."""
    figure, axis = plt.subplots(figsize=(6.4, 3.4))
    axis.hist(lengths, bins=[n - 0.5 for n in range(min(lengths), max(lengths) + 2)], rwidth=0.9, color=PALETTE[0])
    axis.set(xlabel="words", ylabel="captions", title="Length of captions")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(axis="x", visible=False)
    return closed(figure)


def captioned_images(images: Sequence[Tensor], captions: Sequence[str], columns: int = 3, size: float = 1.75) -> Figure:
    """Images `(3, H, W)` in [0, 1] of any size with text under each, `columns` in a row; long lines are broken."""
    rows = -(-len(images) // columns)
    captions = ["\n".join(fill(line, int(16.5 * size)) for line in caption.split("\n")) for caption in captions]
    lines = max(caption.count("\n") + 1 for caption in captions)
    height = size + 0.19 * lines
    figure, axes = plt.subplots(rows, columns, figsize=(columns * size, rows * height), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, caption in zip(axes.flat, images, captions, strict=False):
        show_image(axis, image)
        axis.text(
            0.5, -0.03, "\n".join(map(persian, caption.split("\n"))),
            transform=axis.transAxes, ha="center", va="top", fontsize="x-small", linespacing=1.5,
        )  # fmt: skip
    return closed(figure)


def word_maps(image: Tensor, words: Sequence[str], looks: Tensor, columns: int = 7, size: float = 0.92) -> Figure:
    """The image, then for each word the image under its attention; the words run from right to left, as Persian does.

    Args:
        image: `(3, H, W)` in [0, 1].
        looks: `(words, h, w)`, each sums to 1; drawn from 0 to the word's own largest value, which is written above in
            times an even spread.
    """
    cells = [None, *range(len(words))]
    rows = -(-len(cells) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(columns * size, rows * size * 1.25), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    maps = F.interpolate(looks[:, None], image.shape[1:], mode="bilinear")[:, 0]  # (words, H, W)
    grey = image.mean(0, keepdim=True)[None]  # (1, 1, H, W)
    rough = F.interpolate(grey, (COARSE, COARSE), mode="area")[0, 0]  # fine grain would only weigh megabytes
    for cell, place in zip(cells, range(rows * columns), strict=False):
        axis = axes[place // columns, columns - 1 - place % columns]  # the first is at the right
        if cell is None:
            show_image(axis, image)
        else:
            extent = (-0.5, image.shape[2] - 0.5, image.shape[1] - 0.5, -0.5)
            axis.imshow(rough.cpu().numpy(), cmap="gray", vmin=0, vmax=1, interpolation="bilinear", extent=extent)
            axis.imshow(maps[cell].cpu().numpy(), cmap="inferno", alpha=0.6, vmin=0)
            times = looks[cell].max().item() * looks[cell].numel()
            axis.set_title(f"{persian(words[cell])}\n{times:.1f}×", fontsize="x-small", fontweight="normal", pad=2)
    return closed(figure)
