"""Persian text in figures, shaped and from right to left, and how long captions are."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .style import PALETTE, closed

SHAPES_ITSELF = tuple(map(int, matplotlib.__version__.split(".")[:2])) >= (3, 11)


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
