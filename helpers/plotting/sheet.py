"""A page measured in inches, and what the block diagrams are drawn with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.layout_engine import PlaceHolderLayoutEngine
from matplotlib.patches import FancyBboxPatch
from torch import Tensor, nn

from .style import PALETTE

GREY, BLUE, ORANGE, GREEN, RED, PINK = ((0.55, 0.55, 0.55), *(PALETTE[number] for number in (0, 1, 2, 3, 4)))
WIDTH, LEFT = 11.0, 1.0  # inches; what stands left of the boxes names the rows


@dataclass(frozen=True)
class Sheet:
    """The page's axis, in inches from the lower left, and how to draw on it."""

    axis: Axes

    def box(self, x: float, y: float, width: float, height: float, colour: Sequence[float]) -> None:
        """Left, bottom, size."""
        style = "round,pad=0,rounding_size=0.08"
        face = tuple(0.8 + 0.2 * value for value in colour)
        self.axis.add_patch(
            FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=face, edgecolor=colour, linewidth=1.2)
        )

    def text(self, x: float, y: float, words: str, **options: object) -> None:
        """Centred unless said otherwise."""
        self.axis.text(x, y, words, **({"ha": "center", "va": "center", "fontsize": 8, "color": "0.1"} | options))

    def arrow(self, start: tuple[float, float], end: tuple[float, float], **options: object) -> None:
        """From `start` to `end`."""
        style = {"arrowstyle": "-|>", "color": "0.3", "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 9}
        self.axis.annotate("", end, start, arrowprops=style | options)

    def path(self, points: Sequence[tuple[float, float]], **options: object) -> None:
        """Straight pieces with an arrow at the end."""
        self.axis.plot(*zip(*points[:-1], strict=True), linewidth=1.1, **({"color": "0.3"} | options))
        self.arrow(points[-2], points[-1], **({"color": "0.3"} | options))

    def plus(self, x: float, y: float) -> None:
        """Where two paths are added."""
        self.axis.plot(x, y, "o", markersize=15, markerfacecolor="white", markeredgecolor="0.2")
        self.axis.plot(x, y, "+", markersize=9, color="0.2", markeredgewidth=1.3)

    def row(
        self,
        columns: Sequence[tuple[str, float, str, Sequence[int], nn.Module | Iterable[Tensor] | None, Sequence[float]]],
        y: float,
        height: float,
    ) -> list[tuple[float, float]]:
        """Boxes from left to right, each with its name, words, output and parameters; their lefts and widths."""
        gap = (WIDTH - LEFT - 0.15 - sum(column[1] for column in columns)) / (len(columns) - 1)
        places, x = [], LEFT
        for name, width, words, shape, owner, colour in columns:
            self.box(x, y, width, height, colour)
            self.text(x + width / 2, y + height - 0.17, name, fontweight="bold", fontsize=9)
            self.text(x + width / 2, y + height / 2 - 0.1, words)
            self.text(x + width / 2, y - 0.17, " × ".join(map(str, shape)))
            self.text(x + width / 2, y - 0.38, f"{count(owner):,}" if owner is not None else "–")
            if places:
                self.arrow((x - gap, y + height / 2), (x, y + height / 2))
            places.append((x, width))
            x += width + gap
        for below, words in ((0.17, "output"), (0.38, "parameters")):
            self.text(LEFT - 0.1, y - below, words, ha="right", color="0.35", fontstyle="italic")
        return places


def new_sheet(height: float, title: str) -> Sheet:
    """An empty page with its title."""
    # Places are given in inches. Not layout="none": after a first tight save matplotlib puts the default back for that.
    placed = PlaceHolderLayoutEngine(adjust_compatible=True, colorbar_gridspec=True)
    figure = plt.figure(figsize=(WIDTH, height), layout=placed)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, WIDTH), ylim=(0, height))
    axis.set_axis_off()
    axis.text(WIDTH / 2, height - 0.25, title, ha="center", va="center", fontsize=12, fontweight="bold")
    return Sheet(axis)


def count(owner: nn.Module | Iterable[nn.Module | Tensor]) -> int:
    """Number of parameters."""
    if isinstance(owner, Tensor):
        return owner.numel()
    return sum(count(part) for part in (owner.parameters() if isinstance(owner, nn.Module) else owner))
