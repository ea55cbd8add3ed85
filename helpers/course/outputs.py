"""What a notebook shows, held against the results file that its run wrote: a number changed by hand is found."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from nbformat import NotebookNode

RESULTS = re.compile(r"results/(\w+)\.(toy|lite|full)\.json")
NUMBER = re.compile(r"-?\d[\d,]*(?:\.(?P<decimals>\d+))?(?:e(?P<power>[+-]?\d+))?")
CALLS = re.compile(r"""\brun\.(table|finding|value)\(\s*f?(?:["']([^"'{]+)["'])?""")
MISSING = ("NaN", "<NA>", "None", "inf", "-inf", "")  # what the results file holds as null


def results_name(notebook: NotebookNode) -> tuple[str, str] | None:
    """Name and profile of the results file that the notebook says it wrote, in its last such output."""
    texts = [str(o.get("data", {}).get("text/plain", "")) for c in notebook.cells for o in c.get("outputs", [])]
    found = [match.groups() for text in texts for match in RESULTS.finditer(text)]
    return found[-1] if found else None


def contradictions(notebook: NotebookNode, results: dict[str, Any]) -> list[str]:
    """Each shown result of `run.table`, `run.finding` and `run.value` that the results file does not hold, as a line.

    A number agrees if rounding the file's to the digits shown gives it; a finding must be the file's, word for word.
    """
    found = []
    for place, cell in enumerate(notebook.cells):
        calls = CALLS.findall(cell.source) if cell.cell_type == "code" else []
        for output in cell.outputs if calls else []:
            problems = _against(output.get("data", {}), calls, results)
            found += [f"cell {place} shows {problem}, its results file does not" for problem in problems]
    return found


def _against(data: dict[str, Any], calls: list[tuple[str, str]], results: dict[str, Any]) -> Iterator[str]:
    kinds = {kind for kind, _ in calls}
    if "finding" in kinds and "text/markdown" in data:
        if data["text/markdown"] not in results["findings"].values():
            yield f"the finding {_short(data['text/markdown'])!r}"
    elif "table" in kinds and "text/html" in data:
        named = [results["tables"].get(name, {"rows": []}) for kind, name in calls if kind == "table" and name]
        rows = list(_rows(data["text/html"]))
        missing = [_missing(rows, way) for table in named or results["tables"].values() for way in _ways(table)]
        if all(missing):
            yield f"the row {_short(' | '.join(missing[0]))!r}"
    elif "value" in kinds and set(data) == {"text/plain"}:
        number = data["text/plain"]
        if NUMBER.fullmatch(number) and not any(shows(number, value) for value in results["values"].values()):
            yield number


def _ways(table: dict[str, Any]) -> Iterator[list[list[Any]]]:
    """The rows of a table as it is stored, and as `.T` shows it."""
    yield table["rows"]
    yield [list(line) for line in zip(table.get("columns", ()), *table["rows"], strict=False)][1:]


def _missing(shown: list[list[str]], stored: list[list[Any]]) -> list[str] | None:
    """The first shown row that is no stored row, in the order of these; None if there is none."""
    left = iter(stored)
    return next((row for row in shown if not any(_same_row(row, values) for values in left)), None)


def _same_row(shown: list[str], stored: list[Any]) -> bool:
    """Aligned from the right: an index without a name is shown, and not in the file."""
    if "..." in shown:  # pandas leaves out the middle columns of a wide table
        shown = shown[len(shown) - shown[::-1].index("...") :]
        stored = stored[len(stored) - len(shown) :]
    extra = len(shown) - len(stored)
    return 0 <= extra <= 1 and all(map(shows, shown[extra:], stored))


def _rows(html: str) -> Iterator[list[str]]:
    """The cells of each body row of a table written by pandas, a cell that spans rows in each of them."""
    try:
        found = re.search(r"(?s)<table.*?</table>", html)
        table = ElementTree.fromstring(found[0].replace("&nbsp;", " ") if found else "<table/>")
    except ElementTree.ParseError:  # no row of any results file
        yield ["a table that cannot be read"]
        return
    spanning: dict[int, tuple[int, str]] = {}
    for row in table.iterfind("tbody/tr"):
        cells, given = [], iter(row)
        for column in range(len(row) + sum(left > 0 for left, _ in spanning.values())):
            left, text = spanning.get(column, (0, ""))
            if not left:
                cell = next(given)
                left, text = int(cell.get("rowspan", 1)), "".join(cell.itertext()).strip()
            spanning[column] = left - 1, text
            cells.append(text)
        if set(cells) != {"..."}:  # pandas shows a long table's ends only
            yield cells


def shows(text: str, value: Any) -> bool:
    """Whether `text` is the value of a results file (floats of six digits) as it would be printed."""
    if value is None:
        return text in MISSING
    if isinstance(value, list) and text.startswith("("):  # JSON has no tuples
        parts = text.removeprefix("(").removesuffix(")").removesuffix(",").split(", ")
        if len(parts) == len(value) and all(shows(part, one) for part, one in zip(parts, value, strict=True)):
            return True  # 1e-05 in a tuple is printed as 0.00001
        value = str(tuple(value)).replace("'", "")  # pandas prints the texts in a tuple without quotes
    number = NUMBER.fullmatch(text)
    if isinstance(value, str | bool | list) or not number:
        return text == str(value) or (text.endswith("...") and str(value).startswith(text[:-3]))
    unit = 10.0 ** (int(number["power"] or 0) - len(number["decimals"] or ""))
    return abs(float(text.replace(",", "")) - value) <= 0.5001 * unit + 5e-6 * abs(value) * isinstance(value, float)


def _short(text: str, width: int = 70) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
