"""Drawings for the theory questions: unit balls, sharp and flat minima, a loss surface, and two networks in blocks."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .network_diagrams import resnet18_diagram, vit_diagram
from .style import PALETTE, closed

__all__ = ["loss_contours", "lp_balls", "resnet18_diagram", "sharp_and_flat", "vit_diagram"]
GRADIENT = np.array([1.0, 0.6])
AS_INFINITY = 100  # from here on the ball cannot be told from the square


def lp_balls(ps: Sequence[float] = (0.5, 1, 2, 3, 100)) -> Figure:
    """The unit ball of each L_p in the plane, and where in it a linear function `<g, delta>` is largest.

    That place is an attack's best single step on a linear loss; its value is the dual norm of the gradient `g`, with
    `1/p + 1/q = 1`. Below p = 1 the set is not convex, so L_p is no norm and has no dual: only the largest value is
    given. p of 100 or more stands for infinity.

    Raises:
        ValueError: no p, or one that is not above 0.
    """
    if not ps or min(ps) <= 0:
        raise ValueError(f"need one p or more, each above 0, got {ps}")
    figure, axes = plt.subplots(1, len(ps), figsize=(2.2 * len(ps), 3.5), squeeze=False, layout="constrained")
    figure.get_layout_engine().set(h_pad=0.12)
    for axis, colour, p in zip(axes[0], np.resize(np.array(PALETTE), (len(ps), 3)), ps, strict=True):
        _ball(axis, p, tuple(colour))
    axes[0, 0].set_ylabel("$\\delta_2$")
    figure.suptitle(
        "Unit balls $\\|\\delta\\|_p \\leq 1$, and the point $\\delta^*$ that a linear loss with gradient "
        f"g = ({GRADIENT[0]:g}, {GRADIENT[1]:g}) likes best",
        fontsize="medium",
    )
    return closed(figure)


def best_in_ball(gradient: np.ndarray, p: float) -> np.ndarray:
    """The `delta` of L_p size 1 with the largest `<gradient, delta>` (Hölder's case of equality)."""
    size = np.abs(gradient)
    if p <= 1:  # a corner
        return np.where(np.arange(len(gradient)) == size.argmax(), np.sign(gradient), 0.0)
    if p >= AS_INFINITY:
        return np.sign(gradient)
    raised = np.sign(gradient) * (size / size.max()) ** (1 / (p - 1))
    return raised / np.linalg.norm(raised, p)


def _ball(axis: Axes, p: float, colour: tuple[float, ...]) -> None:
    angle = np.linspace(0, 2 * np.pi, 801)  # a multiple of 8: the corners are among them
    around = np.stack([np.cos(angle), np.sin(angle)])
    size = (np.abs(around) ** p).sum(0) ** (1 / p) if p < AS_INFINITY else np.abs(around).max(0)
    edge = around / size
    axis.fill(*edge, facecolor=(*colour, 0.25), edgecolor=colour, linewidth=1.8)
    best = best_in_ball(GRADIENT, p)
    value = GRADIENT @ best
    across = np.array([-GRADIENT[1], GRADIENT[0]])
    line = GRADIENT * value / (GRADIENT @ GRADIENT) + np.outer([-2, 2], across)
    axis.plot(*line.T, ":", color="0.35", linewidth=1)  # where <g, delta> has that value
    arrow = {"arrowstyle": "-|>", "color": "0.2", "linewidth": 1.3, "shrinkA": 0, "shrinkB": 0}
    axis.annotate("", GRADIENT * 0.55, (0, 0), arrowprops=arrow)
    axis.annotate("g", GRADIENT * 0.28, xytext=(-5, 5), textcoords="offset points", fontsize="small")
    axis.plot(*best, "o", color="0.1", markersize=5)
    axis.annotate("$\\delta^*$", best, xytext=(5, 4), textcoords="offset points", fontsize="small")
    axis.set(xlim=(-1.45, 1.45), ylim=(-1.45, 1.45), aspect="equal", xticks=(-1, 0, 1), yticks=(-1, 0, 1))
    axis.set_title(f"p = {p:g}" + (" (for $\\infty$)" if p >= AS_INFINITY else ""), fontsize="medium")
    axis.tick_params(labelsize="x-small")
    axis.set_xlabel(f"$\\delta_1$\n\n{_largest(p, float(value))}", fontsize="small")


def _largest(p: float, value: float) -> str:
    """What stands under a ball: the largest value, and whose norm that is."""
    if p < 1:
        return f"largest $\\langle g, \\delta\\rangle$ = {value:.2f}\nnot a norm (not convex)"
    dual = "\\infty" if p == 1 else "1" if p >= AS_INFINITY else f"{p / (p - 1):g}"
    return f"largest $\\langle g, \\delta\\rangle$ = {value:.2f}\n$= \\|g\\|_{{{dual}}}$, the dual norm"


def sharp_and_flat(shift: float = 0.22) -> Figure:
    """The classic sketch: one sharp and one flat minimum of the training loss, and a test loss moved by `shift`.

    The axis is the weights, not the image; the curves are made up and not measured.
    """
    weights = np.linspace(-3.4, 3.6, 701)
    figure, axis = plt.subplots(figsize=(8.2, 4.0), layout="constrained")
    axis.plot(weights, _two_minima(weights), color=PALETTE[0], linewidth=2.2, label="training loss")
    axis.plot(weights, _two_minima(weights - shift), "--", color=PALETTE[1], linewidth=2.2, label="test loss")
    for place, name in ((-1.9, "sharp minimum"), (1.4, "flat minimum")):
        low, high = float(_two_minima(place)), float(_two_minima(place - shift))
        axis.plot([place], [low], "o", color=PALETTE[0], markersize=7, zorder=3)
        axis.plot([place] * 2, [low, high], color=PALETTE[3], linewidth=3.5, solid_capstyle="butt")
        text = f"{name}:\n{'large' if high - low > 0.2 else 'small'} gap"
        axis.annotate(text, (place, -0.1), ha="center", va="top", fontsize="small", fontweight="bold")
    axis.set(ylim=(-0.35, 1.3), xticks=[], yticks=[], ylabel="loss")
    axis.set_xlabel("weights $\\theta$ (one direction of millions)")
    axis.set_title("A sketch, not a measurement: the same shift costs more in a sharp minimum")
    axis.legend(loc="upper right", fontsize="small", ncols=2)
    return closed(figure)


def _two_minima(weights: np.ndarray | float) -> np.ndarray:
    """Two wells of the same depth, the left one narrow."""
    left, right = np.exp(-(((weights + 1.9) / 0.22) ** 2)), np.exp(-(((weights - 1.4) / 1.1) ** 2))
    return 1 - 0.95 * left - 0.95 * right


def loss_contours(
    plane: pd.DataFrame,
    xlabel: str = "amount of the second direction",
    ylabel: str = "amount of the first",
    title: str = "",
) -> Figure:
    """The loss on a plane through the weights, as `explain.sharpness.loss_plane` gives it, in contours; a star at (0, 0).

    Levels are evenly spaced in the logarithm, so that valley and rim both show.
    """
    figure, axis = plt.subplots(figsize=(5.6, 4.4), layout="constrained")
    values = plane.to_numpy()
    finite = values[np.isfinite(values) & (values > 0)]
    levels = np.geomspace(finite.min(), finite.max() * (1 + 1e-6), 14)
    filled = axis.contourf(plane.columns, plane.index, values, levels=levels, norm="log", cmap="mako_r")
    axis.contour(plane.columns, plane.index, values, levels=levels, colors="white", linewidths=0.5)
    axis.plot(0, 0, "*", color=PALETTE[1], markersize=13, markeredgecolor="white")
    bar = figure.colorbar(filled, label="cross-entropy (nats)", format="%.2g")
    bar.minorticks_off()
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
    return closed(figure)
