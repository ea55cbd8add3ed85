"""Every figure of the source reports beside ours: theirs from `reports/sources.toml`, ours from the results files."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from .notebooks import read
from .run import project_root, read_results

VERDICTS = {
    "reproduced": "the same holds here",
    "refuted": "the contrary was measured here",
    "not confirmed": "the claim was looked for here and not found; that is not yet its contrary",
    "not decidable here": "measured, but the interval or the scale does not allow a verdict",
    "not comparable": "other data, other schedules or another network: two figures side by side, no verdict",
    "not in the report": "a control or a question that the source left out",
    "not run": "nobody measured it here",
}
ANCHOR = re.compile(r"(?m)^#+ (.+)$")


class Row(NamedTuple):
    """One figure of a source, and ours."""

    what: str
    theirs: str
    ours: str
    verdict: str


class Compared(NamedTuple):
    """The figures that one section of a notebook answers."""

    notebook: str
    section: str
    link: str
    about: str
    rows: list[Row]


def read_sources(root: Path) -> dict[str, dict[str, Any]]:
    """`reports/sources.toml`."""
    return tomllib.loads((root / "reports" / "sources.toml").read_text())


def look_up(result: dict[str, Any], where: str) -> Any:
    """The number that `where` names in a results file: "values | name" or "table | labels of the row | column".

    Raises:
        ValueError: nothing, or more than one row, goes by that name.
    """
    table, *labels, name = where.split(" | ")
    if table == "values" and not labels and name in result["values"]:
        return result["values"][name]
    found = result["tables"].get(table, {"columns": [], "rows": []})
    rows = [row for row in found["rows"] if [str(cell) for cell in row[: len(labels)]] == labels]
    if name not in found["columns"] or len(rows) != 1:
        raise ValueError(f"{result['notebook']}.{result['profile']} has no number {where!r}")
    return rows[0][found["columns"].index(name)]


def anchor(section: str) -> str:
    """The name by which JupyterLab and nbviewer jump to a heading."""
    return section.replace(" ", "-")


def blocks(source: dict[str, Any], root: Path) -> list[Compared]:
    """One source's figures beside ours.

    Raises:
        ValueError: a section, a number or a verdict that does not exist.
    """
    return [_block(told, root) for told in source["block"]]


def _block(told: dict[str, Any], root: Path) -> Compared:
    name, section = told["notebook"], told["section"]
    result = read_results(name, "full", root) or read_results(name, "lite", root)
    path = root / "notebooks" / f"{name}.ipynb"
    if section not in {title for cell in read(path).cells for title in ANCHOR.findall(cell.source)}:
        raise ValueError(f"{name} has no section {section!r}")
    rows = [_row(*entry, result) for entry in told["rows"]]
    return Compared(
        name, section, f"../notebooks/{name}.ipynb#{anchor(section)}", " ".join(told["about"].split()), rows
    )


def _row(what: str, theirs: str, where: str, verdict: str, result: dict[str, Any] | None) -> Row:
    if verdict not in VERDICTS:
        raise ValueError(f"{what}: a verdict is one of {', '.join(VERDICTS)}, not {verdict!r}")
    if (where and verdict == "not run") or (not where and verdict not in ("not run", "not comparable")):
        raise ValueError(f"{what}: {verdict!r} {'with' if where else 'without'} a figure of ours")
    if result is None:
        return Row(what, theirs, "not run", "not run")
    return Row(what, theirs, _text(look_up(result, where)) if where else "–", verdict)


def _text(value: Any) -> str:
    """A number as the reports print it: counts as counts, the rest with four figures behind the point at most."""
    if not isinstance(value, int | float):
        return "not run" if value in (None, "not run") else str(value)
    return f"{value:,}" if value == int(value) and abs(value) > 1 else f"{value:.4f}"


def comparison(root: Path | None = None) -> dict[str, list[Compared]]:
    """All sources by title."""
    root = root or project_root()
    return {source["title"]: blocks(source, root) for source in read_sources(root).values()}
