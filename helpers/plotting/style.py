"""The look that all figures share."""

from __future__ import annotations

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

PALETTE = sns.color_palette("colorblind")


def use_style() -> None:
    """The look of all notebooks: white ground, light grid, colours that the colour-blind can tell apart."""
    sns.set_theme(style="whitegrid", palette=PALETTE, font_scale=0.95)
    plt.rcParams.update(
        {
            "figure.dpi": 100,
            "axes.titlesize": "medium",
            "axes.titleweight": "bold",
            "figure.constrained_layout.use": True,
            "legend.frameon": False,
            "axes.spines.right": False,
            "axes.spines.top": False,
        }
    )


def closed(figure: Figure) -> Figure:
    """Out of pyplot's hands, so that a notebook shows it once, where it is asked to."""
    plt.close(figure)
    return figure
