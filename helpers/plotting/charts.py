"""Curves, lines, bars, confusion matrices, verdicts. Each function returns a matplotlib figure to show or to save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from .style import PALETTE, closed


def curves(
    histories: Mapping[str, pd.DataFrame],
    val: str | Mapping[str, str] = "val",
    accuracies: Mapping[str, str] = MappingProxyType({"top1": "Accuracy"}),
) -> Figure:
    """Accuracy and loss over epochs for each training: dashed on the training batches, solid on validation images.

    Args:
        histories: name to what `fit` returned.
        val: which validation columns (`"val"` for `val_top1`, `val_loss`), or the choice for each name.
        accuracies: which accuracies, each with its title: `{"top1": "Top-1", "top5": "Top-5"}`.
    """
    figure, axes = plt.subplots(1, len(accuracies) + 1, figsize=(4.75 * (len(accuracies) + 1), 3.6))
    for colour, (name, history) in zip(PALETTE, histories.items(), strict=False):
        column = val if isinstance(val, str) else val[name]
        for axis, key in zip(axes, (*accuracies, "loss"), strict=True):
            axis.plot(history.epoch, history[f"train_{key}"], "--", color=colour, alpha=0.8, label=f"{name}, training")
            axis.plot(history.epoch, history[f"{column}_{key}"], color=colour, label=f"{name}, validation")
    for axis, title in zip(axes, accuracies.values(), strict=False):
        axis.set(xlabel="epoch", ylabel="accuracy", title=title)
        _in_percent(axis)
    losses = np.concatenate([line.get_ydata() for line in axes[-1].lines])
    axes[-1].set(
        xlabel="epoch", ylabel="cross-entropy (nats)", title="Loss", ylim=(0, 1.5 * np.quantile(losses, 0.9))
    )  # one wild epoch hides no other
    for axis in axes:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=max(2, len(histories)), fontsize="small"
    )
    return closed(figure)


def lines(
    frame: pd.DataFrame,
    xlabel: str,
    ylabel: str = "accuracy",
    title: str = "",
    low: pd.DataFrame | None = None,
    high: pd.DataFrame | None = None,
    percent: bool = True,
    marks: Mapping[str, float] | None = None,
) -> Figure:
    """One line a column over the index, a band from `low` to `high` where given, named vertical lines at `marks`."""
    outside = frame.shape[1] > 4  # a long legend would lie on the lines
    figure, axis = plt.subplots(figsize=(8.4 if outside else 6.4, 3.8))
    for colour, marker, name in zip(PALETTE, "osD^vPX*", frame.columns, strict=False):
        axis.plot(frame.index, frame[name], marker=marker, markersize=4, color=colour, label=name)
        if low is not None and high is not None:
            axis.fill_between(frame.index, low[name], high[name], color=colour, alpha=0.2, linewidth=0)
    for text, x in (marks or {}).items():
        axis.axvline(x, color="0.4", linewidth=1, linestyle=":")
        axis.annotate(
            text,
            (x, 0.98),
            xycoords=("data", "axes fraction"),
            xytext=(4, 0),
            textcoords="offset points",
            va="top",
            fontsize="x-small",
        )
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title, ylim=(0, None))
    if percent:
        _in_percent(axis)
    if pd.api.types.is_integer_dtype(frame.index):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside right upper", fontsize="small") if outside else axis.legend(fontsize="small")
    return closed(figure)


def audit_curves(by_eps: pd.DataFrame, by_steps: pd.DataFrame) -> tuple[Figure, Figure]:
    """Of `attacks.audit.Audit`: robust accuracy over eps (shown in 1/255), and over steps."""
    by_eps = by_eps.set_axis(by_eps.index * 255)
    return lines(by_eps, "eps (1/255)", title="Larger budgets"), lines(by_steps, "steps", title="More steps")


def bars(
    frame: pd.DataFrame,
    ylabel: str = "accuracy",
    title: str = "",
    low: pd.DataFrame | None = None,
    high: pd.DataFrame | None = None,
    percent: bool = True,
) -> Figure:
    """A group of bars for each row, a colour for each column, the value above, whiskers from `low` to `high`."""
    figure, axis = plt.subplots(figsize=(min(12.0, max(5.0, 1.1 * frame.size + 1.5)), 3.8))
    width = 0.8 / frame.shape[1]
    crowded = frame.size > 24  # then the axis alone says percent
    shown = "{:.3g}" if not percent else "{:.0%}" if frame.shape[1] > 3 else "{:.1%}"  # many bars are narrow
    for number, name in enumerate(frame.columns):
        at = np.arange(len(frame)) + (number - (frame.shape[1] - 1) / 2) * width
        ends = None if low is None or high is None else [frame[name] - low[name], high[name] - frame[name]]
        drawn = axis.bar(
            at, frame[name], width * 0.92, label=name, color=PALETTE[number], yerr=ends, ecolor="0.3", capsize=2
        )
        values = [f"{100 * value:.0f}" if percent and crowded else shown.format(value) for value in frame[name]]
        axis.bar_label(drawn, values, fontsize="x-small", padding=2)
    axis.set_xticks(np.arange(len(frame)), [str(label) for label in frame.index])
    axis.set(ylabel=ylabel, title=title)
    if percent:
        _in_percent(axis)
    axis.margins(y=0.12)
    axis.grid(axis="x", visible=False)
    figure.legend(loc="outside lower center", ncols=frame.shape[1], fontsize="small")
    return closed(figure)


def confusion(matrix: np.ndarray, classes: Sequence[str], title: str = "", most_labels: int = 30) -> Figure:
    """Confusion matrix as shares of each true class (rows sum to 1); class names where there are not too many."""
    shares = matrix / matrix.sum(1, keepdims=True).clip(1)
    labels = list(classes) if len(classes) <= most_labels else False
    side = 5.2 if labels is False else max(4.2, 0.34 * len(classes) + 2)
    figure, axis = plt.subplots(figsize=(side + 0.8, side))
    sns.heatmap(
        shares,
        ax=axis,
        vmin=0,
        vmax=1,
        cmap="mako_r",
        square=True,
        xticklabels=labels,
        yticklabels=labels,
        cbar_kws={"label": "share of the true class", "format": PercentFormatter(1, decimals=0), "shrink": 0.8},
    )
    axis.set(xlabel="predicted class", ylabel="true class", title=title)
    return closed(figure)


def verdicts(frame: pd.DataFrame) -> Figure:
    """A field for each model (row) and check (column): "pass", "fail", "not run" or "too weak" (to judge)."""
    grey = (0.88, 0.88, 0.88)
    shades = {"pass": PALETTE[2], "not run": grey, "too weak": grey, "fail": PALETTE[3]}
    numbers = frame.replace({word: number for number, word in enumerate(shades)}).astype(float)
    figure, axis = plt.subplots(figsize=(0.72 * frame.shape[1] + 2.6, 0.32 * len(frame) + 2.2))
    sns.heatmap(
        numbers,
        ax=axis,
        annot=frame.to_numpy(),
        fmt="",
        annot_kws={"fontsize": "xx-small"},
        cmap=ListedColormap(list(shades.values())),
        vmin=0,
        vmax=3,
        cbar=False,
        linewidths=1,
    )
    axis.set(xlabel="", ylabel="")
    axis.set_xticklabels(axis.get_xticklabels(), rotation=35, ha="right", fontsize="small")
    axis.tick_params("y", rotation=0)  # seaborn turns names that are longer than a row is high
    return closed(figure)


def _in_percent(axis: Axes) -> None:
    """Shares of 0 to 1 as percentages, with as many decimals as the ticks need (2.5 % is not 2 %)."""
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
