"""CLIP's training, classification by texts, and LoRA, drawn. Counts are read from the model that is passed in."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import nn

from .sheet import BLUE, GREEN, GREY, ORANGE, PINK, RED, Sheet, count, new_sheet
from .style import closed

PAIRS = 4  # drawn of a batch


def clip_training(model: nn.Module) -> Figure:
    """Two encoders and the table of cosines between a batch's images and texts, the right pairs on its diagonal.

    Args:
        model: one of transformers' dual encoders.
    """
    sheet = new_sheet(4.6, "CLIP: images and texts in one space")
    parts = (
        (3.0, "images", "image encoder", (model.vision_model, model.visual_projection), BLUE, "I"),
        (1.2, "texts", "text encoder", (model.text_model, model.text_projection), ORANGE, "T"),
    )
    for y, batch, name, owner, colour, letter in parts:
        sheet.box(0.25, y - 0.45, 1.2, 0.9, GREY)
        sheet.text(0.85, y + 0.12, batch, fontweight="bold", fontsize=9)
        sheet.text(0.85, y - 0.15, "N of them")
        sheet.arrow((1.45, y), (1.95, y))
        sheet.box(1.95, y - 0.55, 2.1, 1.1, colour)
        sheet.text(3.0, y + 0.18, name, fontweight="bold", fontsize=9)
        sheet.text(3.0, y - 0.18, f"and linear projection\n{count(owner):,} parameters", fontsize=7.5)
        sheet.arrow((4.05, y), (4.6, y))
        _vectors(sheet, 4.65, y, letter, colour, model.config.projection_dim)
    _table(sheet, 7.0, 0.7)
    sheet.path([(5.75, 3.0), (6.7, 3.0), (6.7, 2.2), (6.95, 2.2)])
    sheet.path([(5.75, 1.2), (6.4, 1.2), (6.4, 0.35), (8.4, 0.35), (8.4, 0.65)])
    scale = model.logit_scale.exp().item()
    sheet.text(10.4, 2.1, f"s × cosine\nhere s = {scale:.1f}", fontsize=8.5)
    sheet.text(
        8.4, 3.95, "each row: which text?   each column: which image?\nloss: mean of both cross-entropies", fontsize=8.5
    )
    return closed(sheet.axis.figure)


def _vectors(sheet: Sheet, x: float, y: float, letter: str, colour: Sequence[float], width: int) -> None:
    """N unit vectors as a stack of strips."""
    for number in range(PAIRS):
        top = y + 0.36 - 0.22 * number
        sheet.axis.add_patch(Rectangle((x, top - 0.14), 0.75, 0.14, facecolor=colour, alpha=0.6, edgecolor="white"))
        sheet.text(x + 0.92, top - 0.07, f"${letter}_{{{number + 1 if number < PAIRS - 1 else 'N'}}}$", fontsize=8)
    sheet.text(x + 0.4, y - 0.68, f"unit vectors, N × {width}", fontsize=7.5)


def _table(sheet: Sheet, x: float, y: float, cell: float = 0.7) -> None:
    """The N x N cosines; the pairs that belong together are the diagonal."""
    for row in range(PAIRS):
        for column in range(PAIRS):
            right = row == column
            colour = GREEN if right else (0.9, 0.9, 0.9)
            place = (x + column * cell, y + (PAIRS - 1 - row) * cell)
            sheet.axis.add_patch(Rectangle(place, cell * 0.95, cell * 0.95, facecolor=colour, edgecolor="white"))
            names = [number + 1 if number < PAIRS - 1 else "N" for number in (row, column)]
            words = rf"$I_{{{names[0]}}}\!\cdot T_{{{names[1]}}}$"
            sheet.text(place[0] + 0.33, place[1] + 0.33, words, color="white" if right else "0.35", fontsize=8)


def zero_shot(classes: Sequence[str]) -> Figure:
    """A classifier with a learned head above one whose head is written in words."""
    sheet = new_sheet(5.15, "The same question, put in two ways")
    texts = ", ".join(f"“a photo of a {name}”" for name in classes[:2]) + ", …"
    learned = ("head: one weight vector a class", "learned from labelled images of these classes")
    written = ("text encoder: one vector a class", texts)
    _question(sheet, 3.1, "normal", "trained with the head", learned, RED, "largest logit")
    _question(sheet, 0.9, "zero-shot", "trained on image–text pairs", written, GREEN, "largest cosine")
    sheet.text(5.4, 0.3, "new classes: write new texts, train nothing", fontstyle="italic", color="0.35")
    return closed(sheet.axis.figure)


def _question(sheet: Sheet, y: float, name: str, trained: str, head: tuple[str, str], colour: Sequence[float],
              said: str) -> None:  # fmt: skip
    """Image, encoder, the product with what stands for the classes, and the answer."""
    sheet.text(0.7, y + 0.75, name, fontweight="bold", fontsize=10)
    sheet.box(0.25, y - 0.3, 0.9, 0.6, GREY)
    sheet.text(0.7, y, "image")
    sheet.arrow((1.15, y), (1.6, y))
    sheet.box(1.6, y - 0.4, 2.1, 0.8, BLUE)
    sheet.text(2.65, y, f"image encoder\n{trained}")
    sheet.arrow((3.7, y), (7.6, y))
    sheet.box(3.5, y + 0.6, 3.8, 0.85, colour)
    sheet.text(5.4, y + 1.2, head[0], fontweight="bold", fontsize=8.5)
    sheet.text(5.4, y + 0.87, head[1], fontsize=7.5)
    sheet.path([(7.3, y + 1.02), (7.75, y + 1.02), (7.75, y + 0.16)])
    sheet.axis.plot(7.75, y, "o", markersize=15, markerfacecolor="white", markeredgecolor="0.2")
    sheet.axis.plot(7.75, y, "x", markersize=7, color="0.2", markeredgewidth=1.3)
    sheet.arrow((7.9, y), (8.5, y))
    sheet.box(8.5, y - 0.4, 2.2, 0.8, PINK)
    sheet.text(9.6, y, f"{said}\nis the answer")


def lora(rank: int = 8, alpha: int = 32, width: int = 768) -> Figure:
    """One linear layer with LoRA: the frozen weight, the two thin matrices, and their sum after merging."""
    sheet = new_sheet(3.9, f"LoRA on a linear layer of {width} × {width}: {2 * rank * width:,} weights learn")
    sheet.box(0.3, 1.5, 1.1, 0.7, GREY)
    sheet.text(0.85, 1.85, f"input x\n{width}")
    sheet.box(2.6, 2.2, 2.4, 1.2, BLUE)
    sheet.text(3.8, 2.8, f"W, frozen\n{width} × {width}\n{width**2:,} weights")
    sheet.box(2.3, 0.5, 1.25, 0.8, ORANGE)
    sheet.text(2.925, 0.9, f"A, random\n{rank} × {width}")
    sheet.box(4.05, 0.5, 1.25, 0.8, ORANGE)
    sheet.text(4.675, 0.9, f"B, zero at first\n{width} × {rank}", fontsize=7.5)
    sheet.path([(1.4, 1.95), (1.8, 1.95), (1.8, 2.8), (2.6, 2.8)])
    sheet.path([(1.4, 1.75), (1.8, 1.75), (1.8, 0.9), (2.3, 0.9)])
    sheet.arrow((3.55, 0.9), (4.05, 0.9))
    sheet.text(5.75, 1.1, rf"× $\alpha/r$ = {alpha // rank}", fontsize=8.5)
    sheet.path([(5.0, 2.8), (6.4, 2.8), (6.4, 2.02)])
    sheet.path([(5.3, 0.9), (6.4, 0.9), (6.4, 1.68)])
    sheet.plus(6.4, 1.85)
    sheet.arrow((6.55, 1.85), (7.0, 1.85))
    sheet.text(7.3, 1.85, "output", ha="left")
    sheet.box(8.4, 1.2, 2.3, 1.3, GREEN)
    sheet.text(9.55, 1.85, "merged:\n" + r"$W + \alpha/r \cdot BA$" + "\none layer, as before")
    sheet.text(9.55, 0.95, "nothing more to compute", fontstyle="italic", color="0.35")
    return closed(sheet.axis.figure)
