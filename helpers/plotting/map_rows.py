"""Maps over light images, beside the images themselves; a matplotlib figure to show or to save."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from torch import Tensor

from .images import show_image
from .style import closed

COLOURS = "YlOrRd"
Row = Tensor | tuple[Tensor, Tensor]


def map_rows(
    rows: Mapping[str, Row],
    captions: Mapping[str, Sequence[str]] | None = None,
    titles: Sequence[str] | None = None,
    bold: Collection[str] = (),
    most: float = 4.0,
    size: float = 1.3,
) -> Figure:
    """Rows of images in colour and of maps on a light ground, all maps on one colour scale: times the map's own mean.

    Args:
        rows: name to images, float `(N, C, H, W)` in [0, 1]; or to images and maps, float `(N, H, W)` >= 0. A map of
            zeros leaves the light image and the word "empty".
        captions: row's name to the text under each of its images.
        titles: text above each column.
        bold: names of rows that are written in bold.
        most: end of the colour scale; what is higher looks the same.
        size: inches an image.
    """
    captions, columns = captions or {}, max(len(_images(row)) for row in rows.values())
    heights = [1.28 if name in captions else 1.0 for name in rows]
    inches = (columns * size + 1.6, sum(heights) * size + 0.5)
    figure, axes = plt.subplots(len(rows), columns, figsize=inches, squeeze=False, height_ratios=heights)
    for line, (name, row) in zip(axes, rows.items(), strict=True):
        for number, axis in enumerate(line):
            _show(axis, row, number, most)
            if name in captions and number < len(_images(row)):
                axis.set_xlabel(captions[name][number], fontsize="x-small", labelpad=2)
        weight = "bold" if name in bold else "normal"
        line[0].set_ylabel(name, fontsize="small", fontweight=weight, rotation=0, ha="right", va="center")
    for axis, title in zip(axes[0], titles or [], strict=False):
        axis.set_title(title, fontsize="small")
    if any(isinstance(row, tuple) for row in rows.values()):
        scale = ScalarMappable(plt.Normalize(0, most), COLOURS)
        figure.colorbar(scale, ax=axes, label="times the map's mean", shrink=0.5, aspect=30)
    return closed(figure)


def over_light(image: Tensor, heat: Tensor, most: float = 4.0) -> np.ndarray:
    """`(H, W, 3)` in [0, 1]: the image in light grey where the map is 0, the scale's colour where it is high."""
    light = 0.6 + 0.4 * image.mean(0).clamp(0, 1).cpu().numpy()[..., None]  # (H, W, 1)
    shares = (heat / heat.mean().clamp_min(1e-12) / most).clamp(0, 1).cpu().numpy()  # (H, W)
    strength = 0.85 * np.sqrt(shares)[..., None]
    return ((1 - strength) * light + strength * plt.get_cmap(COLOURS)(shares)[..., :3]).clip(0, 1)


def _images(row: Row) -> Tensor:
    return row[0] if isinstance(row, tuple) else row


def _show(axis: Axes, row: Row, number: int, most: float) -> None:
    """Column `number` of a row, or nothing where the row is shorter."""
    if number >= len(_images(row)):
        axis.set_axis_off()
        return
    show_image(axis, _images(row)[number])
    if isinstance(row, tuple):
        heat = row[1][number]
        axis.images[0].set_data(over_light(row[0][number], heat, most))
        if not heat.any():
            axis.text(0.5, 0.5, "empty", transform=axis.transAxes, ha="center", va="center", fontsize="small")
