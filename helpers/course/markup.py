"""The pieces of a report as Markdown: tables with fit numbers and names, captions above tables and below figures."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

WORDS = {"train": "training", "val": "validation", "adv": "attacked", "top1": "accuracy", "top5": "top-5 accuracy",
         "lr": "learning rate", "noisy": "noisy", "loss": "loss", "precision": "precision", "recall": "recall",
         "f1": "F1", "macro": "macro", "weighted": "weighted"}  # fmt: skip
LISTED = {"Figures": "image", "Tables": "table"}
WIDEST = 10  # columns of a table that a page can hold
SPECIAL = re.compile(r"([\\`*_{}\[\]<>$~^#|])")


class Piece(NamedTuple):
    """A piece of a report: `kind` is text, table or figure; `content` what `results` holds of it, or Markdown."""

    kind: str
    content: Any


def speaking(column: str) -> str:
    """`val_top1` as `validation accuracy`; a name that is words already stays."""
    parts = column.split("_")
    return " ".join(WORDS[part] for part in parts) if all(part in WORDS for part in parts) else column


def number(value: Any) -> str:
    """A value as a report shows it: counts whole, shares to three places, what is tiny with its power of ten."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or (value == int(value) and abs(value) >= 10):
        return f"{value:,.0f}"
    if value and abs(value) < 0.001:
        return f"{value:.1e}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}"


def as_markdown(pieces: Iterable[Piece]) -> str:
    """Plain Markdown with numbered captions: above tables, below figures."""
    counted, texts = {"table": 0, "figure": 0}, []
    for kind, content in pieces:
        if kind == "text":
            texts.append(content)
            continue
        counted[kind] += 1
        caption = f"*{kind.capitalize()} {counted[kind]}. {content['caption']}*"
        shown = _grid(content) if kind == "table" else f"![{content['caption']}]({content['file']})"
        texts += [caption, shown] if kind == "table" else [shown, caption]
    return "\n\n".join(texts) + "\n"


def as_pandoc(pieces: Iterable[Piece]) -> str:
    """pandoc's Markdown: it numbers the captions itself, and lists figures and tables, in typst by our word only."""
    lists = (f"#outline(title: [{title}], target: figure.where(kind: {kind}))" for title, kind in LISTED.items())
    texts = ["\n".join(("```{=typst}", *lists, "```"))]
    for kind, content in pieces:
        if kind == "table":
            texts += [_grid(content), f": {_plain(content['caption'])}"]
        elif kind == "figure":
            width = content.get("width", 100)
            texts.append(f"![{_plain(content['caption'])}]({content['file']}){{width={width}%}}")
        else:
            texts.append(content)
    return "\n\n".join(texts) + "\n"


def _turned(table: dict[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows; of a table wider than long, and too wide for a page, with the two exchanged."""
    columns, rows = table["columns"], table["rows"]
    if len(columns) <= WIDEST or len(rows) >= WIDEST:
        return columns, rows
    turned = zip(map(speaking, columns), *rows, strict=True)
    return [columns[0], *(str(row[0]) for row in rows)], [list(line) for line in turned][1:]


def _grid(table: dict[str, Any]) -> str:
    """A pipe table; its dashes say how wide a column is beside the others, should the whole be wider than a page."""
    columns, given = _turned(table)
    head = [_plain(speaking(column)) for column in columns]
    rows = [[_plain(number(value)) for value in row] for row in given]
    lines = [head, [], *rows]
    for texts, values in zip(zip(head, *rows, strict=True), zip(*given, strict=True), strict=True):
        dashes = "-" * min(max(max(map(len, " ".join(texts).split())), max(map(len, texts)) // 2), 40)
        lines[1].append(f":{dashes}" if any(isinstance(value, str) for value in values) else f"{dashes}:")
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    """Text in which no sign is markup, on one line."""
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))
