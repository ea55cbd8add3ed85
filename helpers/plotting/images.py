"""Images and heat maps in rows. Each function returns a matplotlib figure to show or to save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .style import closed


def image_grid(
    rows: Mapping[str, Tensor], captions: Sequence[Sequence[str]] | None = None, size: float = 1.35
) -> Figure:
    """Rows of images under each other, the row's name at its left, broken into lines as long as the row is high.

    Args:
        rows: name to images, float `(N, C, H, W)` in [0, 1]; each row has the same N.
        captions: text above each image, one list a row.
        size: inches an image.
    """
    columns = len(next(iter(rows.values())))
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(columns * size, len(rows) * size * (1.2 if captions else 1.05)), squeeze=False
    )
    for r, (name, images) in enumerate(rows.items()):
        for c, image in enumerate(images):
            show_image(axes[r, c], image, captions[r][c] if captions else "")
        lines = (fill(line, max(8, round(12 * size))) for line in name.split("\n"))
        axes[r, 0].set_ylabel("\n".join(lines), fontsize="small", fontweight="bold")
    return closed(figure)


def heat_grid(
    rows: Mapping[str, tuple[Tensor, Tensor]],
    captions: Sequence[Sequence[str]] | None = None,
    titles: Sequence[str] | None = None,
    most: float = 4.0,
    size: float = 1.5,
) -> Figure:
    """Images in grey under a heat map, rows of them, all on one colour scale: times the mean of the image's own map.

    Args:
        rows: name to images, float `(N, C, H, W)` in [0, 1], and maps, float `(N, H, W)` >= 0.
        captions: text under each image, one list a row.
        titles: text above each column.
        most: end of the colour scale; what is higher looks the same.
        size: inches an image.
    """
    columns = max(len(maps) for _, maps in rows.values())
    figure, axes = plt.subplots(
        len(rows),
        columns,
        figsize=(columns * size + 1.2, len(rows) * size * (1.3 if captions else 1.05)),
        squeeze=False,
    )
    for r, (name, (images, maps)) in enumerate(rows.items()):
        for c, (image, heat) in enumerate(zip(images, maps, strict=True)):
            show_image(axes[r, c], image.mean(0, keepdim=True))
            shares = (heat / heat.mean().clamp_min(1e-12)).cpu().numpy()
            shown = axes[r, c].imshow(shares, cmap="inferno", vmin=0, vmax=most, alpha=0.6, interpolation="bilinear")
            axes[r, c].set_xlabel(captions[r][c] if captions else "", fontsize="x-small", labelpad=2)
        axes[r, 0].set_ylabel(name, fontsize="small", fontweight="bold")
    for axis, title in zip(axes[0], titles or [], strict=False):
        axis.set_title(title, fontsize="small")
    figure.colorbar(shown, ax=axes, label="times the map's mean", shrink=0.6, aspect=30)
    return closed(figure)


def show_image(axis: Axes, image: Tensor, caption: str = "") -> None:
    """One image, float `(C, H, W)` in [0, 1], without ticks; pixels stay pixels."""
    axis.imshow(
        image.clamp(0, 1).permute(1, 2, 0).cpu().numpy().squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest"
    )
    axis.set_title(caption, fontsize="x-small", fontweight="normal", pad=2)
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    sns.despine(ax=axis, left=True, bottom=True)
