"""Drawings of a caption decoder, of what a beam search kept, and of where each word was looked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from .captions import persian
from .images import show_image
from .sheet import BLUE, GREEN, GREY, ORANGE, PINK, RED, Sheet, count, new_sheet
from .style import PALETTE, closed

KINDS = {"best": (PALETTE[3], "-"), "kept": (PALETTE[0], "-"), "ended": (PALETTE[2], "--"), "cut": ((0.6,) * 3, ":")}


def captioner_diagram(decoder: nn.Module, encoder: nn.Module, name: str, regions: Sequence[int]) -> Figure:
    """What a `CaptionDecoder` computes for one word, with its sizes and parameters, read from the modules.

    Args:
        name: of the encoder; regions: `(R, D)`, what it makes of an image.
    """
    hidden, words, (count_of, dim) = decoder.cell.hidden_size, decoder.embed.num_embeddings, regions
    sheet = new_sheet(4.9, f"Encoder, attention, LSTM: {count(decoder):,} trained parameters")
    top, low = 3.1, 1.25
    name, *more = name.split("+")
    _box(sheet, 0.2, top, 1.0, "image", "pixels in [0, 1]", GREY, None)
    below = "\n".join([name, *(f"+ {each}" for each in more), "frozen"])
    _box(sheet, 1.6, top, 1.75, "encoder", below, GREY, encoder)
    below = f"{count_of} × {dim} and place\nlinear, norm:\n{count_of} × {hidden}"
    _box(sheet, 3.95, top, 1.45, "regions", below, ORANGE, decoder.read)
    _box(sheet, 6.0, top, 1.55, "attention", f"softmax over the\n{count_of} regions", PINK, decoder.attention)
    _box(sheet, 8.15, top, 1.5, "context", "weighted mean\n× gate", PINK, decoder.gate)
    _box(sheet, 5.6, low, 1.5, "last word", f"its vector:\n{decoder.embed.embedding_dim} values", BLUE, decoder.embed)
    _box(sheet, 7.7, low, 1.15, "LSTM cell", f"state of\n{hidden}", GREEN, decoder.cell)
    naming = [decoder.from_hidden, decoder.from_context, decoder.bias]
    _box(sheet, 9.35, low, 1.45, "next word", f"word + state\n+ context, times\n{words:,} vectors", BLUE, naming)
    _box(sheet, 2.35, low, 1.45, "first state", "from the mean\nregion", GREEN, decoder.first)
    for start, end in (((1.2, 3.55), (1.6, 3.55)), ((3.35, 3.55), (3.95, 3.55)), ((5.4, 3.55), (6.0, 3.55)),
                       ((7.55, 3.55), (8.15, 3.55)), ((7.1, 1.7), (7.7, 1.7)), ((8.85, 1.7), (9.35, 1.7))):  # fmt: skip
        sheet.arrow(start, end)
    sheet.path([(8.5, top), (8.5, low + 0.9)])
    sheet.path([(9.65, 3.55), (10.1, 3.55), (10.1, low + 0.9)])
    sheet.path([(7.9, low + 0.9), (7.9, 2.6), (6.7, 2.6), (6.7, top)], color=RED)
    sheet.text(6.6, 2.6, "the state asks", ha="right", color=RED)
    sheet.path([(10.1, low), (10.1, 0.55), (6.35, 0.55), (6.35, low)], color=RED)
    sheet.text(8.2, 0.33, "the word written is read next (in training: the caption's own)", color=RED)
    sheet.path([(4.6, top), (4.6, 2.6), (3.1, 2.6), (3.1, low + 0.9)])
    sheet.path([(3.1, low), (3.1, 0.75), (8.6, 0.75), (8.6, low)])
    return closed(sheet.axis.figure)


def _box(sheet: Sheet, x: float, y: float, width: float, title: str, words: str, colour: Sequence[float],
         owner: object) -> None:  # fmt: skip
    """A box with its name, what it does, and its parameters below."""
    sheet.box(x, y, width, 0.9, colour)
    sheet.text(x + width / 2, y + 0.76, title, fontweight="bold", fontsize=9)
    sheet.text(x + width / 2, y + 0.34, words, fontsize=7.5)
    if owner is not None:
        sheet.text(x + 0.04, y - 0.13, f"{count(owner):,}", color="0.35", fontsize=7, ha="left")


def beam_tree(nodes: pd.DataFrame, size: float = 1.0) -> Figure:
    """What a beam search looked at, from right to left as Persian is written; each step's best continuation on top.

    Args:
        nodes: a row for each continuation: `step` (from 0), `parent` (a row's label, -1: the start), `word`, `log_prob`
            (of the whole beginning), and `kind`: `"kept"` (goes on), `"ended"` (put aside), `"cut"` (dropped), or
            `"best"` (on the way to the caption that is given back).
        size: inches a step.
    """
    rows, steps = nodes.groupby("step").size().max(), nodes.step.max() + 1
    figure, axis = plt.subplots(figsize=(size * (steps + 0.6), 0.42 * rows + 1.0))
    rank = nodes.groupby("step").log_prob.rank(ascending=False, method="first")
    place = {-1: (0.0, -1.0)} | {label: (-1.0 - row.step, -float(rank[label])) for label, row in nodes.iterrows()}
    for label, row in nodes.sort_values("kind", ascending=False, key=lambda kind: kind == "cut").iterrows():
        colour, line = KINDS[row.kind]
        ends = zip(place[row.parent], place[label], strict=True)
        axis.plot(*ends, line, color=colour, linewidth=2.2 if row.kind == "best" else 1.0, zorder=1)
        axis.text(*place[label], f"{persian(row.word)}\n{row.log_prob:.1f}", ha="center", va="center", fontsize=7.5,
                  bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": colour})  # fmt: skip
    axis.text(0, -1, "<sos>", ha="center", va="center", fontsize=7.5, bbox={"facecolor": "white", "edgecolor": "0.3"})
    for kind, (colour, line) in KINDS.items():
        axis.plot([], [], line, color=colour, label=kind)
    figure.legend(loc="outside lower center", ncols=len(KINDS), fontsize="small")
    axis.set(xlim=(-steps - 0.5, 0.5), ylim=(-rows - 0.6, -0.4))
    axis.axis("off")
    return closed(figure)


def word_tiles(image: Tensor, words: Sequence[str], looks: Tensor, columns: int = 5, size: float = 1.65) -> Figure:
    """The image, then each word over the image under its attention, all on one scale; from right to left.

    Args:
        image: `(3, H, W)` in [0, 1].
        looks: `(words, h, w)`, each sums to 1; the scale is in times an even spread.
    """
    rows, times = -(-(len(words) + 1) // columns), looks * looks[0].numel()
    figure, axes = plt.subplots(rows, columns, figsize=(columns * size, rows * size * 1.2), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    maps = F.interpolate(times[:, None], image.shape[1:], mode="bilinear")[:, 0]  # (words, H, W)
    most = float(times.max())
    for cell in range(len(words) + 1):
        axis = axes[cell // columns, columns - 1 - cell % columns]  # the first is at the right
        show_image(axis, image if cell == 0 else image.mean(0, keepdim=True))
        if cell:
            shown = axis.imshow(maps[cell - 1].cpu().numpy(), cmap="inferno", alpha=0.55, vmin=0, vmax=most)
            axis.set_title(persian(words[cell - 1]), fontsize="small", fontweight="normal", pad=3)
    figure.colorbar(shown, ax=axes, label="times an even spread", shrink=0.8, aspect=25, pad=0.01)
    return closed(figure)


def caption_cards(
    images: Sequence[Tensor], texts: Sequence[Mapping[str, str]], columns: int = 2, size: float = 1.5
) -> Figure:
    """Images with several captions each: whose a caption is stands at its left, the Persian text ends at the right.

    Args:
        texts: for each image from whose caption it is (`"reference 1"`, `"beam 3"`) to the caption.
    """
    rows, width = -(-len(images) // columns), 3.0
    lines = [sum(1 + len(_lines(text)) for text in of.values()) for of in texts]
    height = max(size * 1.08, 0.165 * max(lines))  # of a row, in inches: no line of a text covers another
    shape = {"figsize": (columns * (size + width), rows * height), "width_ratios": [size, width] * columns}
    figure, axes = plt.subplots(rows, 2 * columns, squeeze=False, **shape)
    for axis in axes.flat:
        axis.axis("off")
    for number, (image, of) in enumerate(zip(images, texts, strict=True)):
        row, column = divmod(number, columns)
        show_image(axes[row, 2 * column], image)
        axes[row, 2 * column].set_anchor("N")
        axis, line = axes[row, 2 * column + 1], 1.0
        step = min(1 / lines[number], 0.17 / height)
        shades = iter([PALETTE[place] for place in (0, 3, 2, 4, 5, 7)])  # those that can be read as text
        for name, text in of.items():
            shade = "0.4" if name.startswith("reference") else next(shades, "0.1")
            axis.text(0, line, name, va="top", fontsize=7, color=shade, fontstyle="italic")
            for number_of, part in enumerate(_lines(text), 1):
                axis.text(1, line - number_of * step, persian(part), va="top", ha="right", fontsize=8, color=shade)
            line -= step * (1 + len(_lines(text)))
    return closed(figure)


def _lines(text: str, most: int = 44) -> list[str]:
    """A caption cut between words into lines of at most `most` letters."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= most:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
