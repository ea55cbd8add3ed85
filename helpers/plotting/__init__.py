"""Every figure, in one look; each function returns a matplotlib figure to show or to save."""

from .charts import audit_curves, bars, confusion, curves, lines, verdicts
from .images import heat_grid, image_grid, show_image
from .style import PALETTE, use_style

__all__ = [
    "PALETTE",
    "audit_curves",
    "bars",
    "confusion",
    "curves",
    "heat_grid",
    "image_grid",
    "lines",
    "show_image",
    "use_style",
    "verdicts",
]
