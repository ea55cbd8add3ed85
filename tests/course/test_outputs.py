"""What the committed notebooks show is what their results files hold; each number, forged by one digit, is found."""

import json
import re

import nbformat
import pandas as pd
import pytest
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_notebook, new_output

from helpers.course.outputs import CALLS, contradictions, results_name, shows
from helpers.course.run import Run

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def with_results(path):
    notebook = nbformat.read(path, as_version=4)
    name, profile = results_name(notebook)
    assert name == path.stem
    return notebook, json.loads((ROOT / f"reports/results/{name}.{profile}.json").read_text())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_outputs_are_those_of_the_results_file(path):
    assert contradictions(*with_results(path)) == []


def numbers(output):
    """(mime type, start, text) of what may hold a digit: a finding's text, the body cells of a table."""
    data = output.get("data", {})
    for finding in re.finditer("(?s).+", data.get("text/markdown", "")):
        yield "text/markdown", finding.start(), finding[0]
    html = data.get("text/html", "")
    for cell in re.finditer(r"<td>([^<]+)</td>", html):
        yield "text/html", cell.start(1), cell[1]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_forged_number_is_found(path):
    """The first digit of each cell of each table and of each finding, changed. `run.value` alone binds no table."""
    notebook, results = with_results(path)
    forged = 0
    for cell in notebook.cells:
        kinds = {kind for kind, _ in CALLS.findall(cell.source)} if cell.cell_type == "code" else set()
        for output in cell.outputs if kinds & {"table", "finding"} else []:
            for mime, start, text in numbers(output):
                for digit in list(re.finditer(r"\d", text))[:1]:
                    place, whole = start + digit.start(), output.data[mime]
                    output.data[mime] = f"{whole[:place]}{(int(digit[0]) + 5) % 10}{whole[place + 1 :]}"
                    alone = new_notebook(cells=[cell])
                    assert len(contradictions(alone, results)) == 1, text
                    output.data[mime] = whole
                    forged += 1
    assert forged > 50


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.4465", 0.446539), ("0.45", 0.446539), ("1,234", 1234), ("2.0e-14", 1.97e-14),
     ("14214.00", 14214.0), ("-0.0", 0.0), ("NaN", None), ("ViT", "ViT"), ("a long te...", "a long text"),
     ("True", True), ("[1, 2]", [1, 2]), ("(0,)", [0]), ("(0.005, 0.02)", [0.005, 0.02]),
     ("(a,)", ["a"]), ("(a, b)", ["a", "b"]), ("(0.00001, 10.0)", [1e-05, 10.0])],
)  # fmt: skip
def test_shown_as_printed(text, value):
    assert shows(text, value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.4466", 0.446539), ("0.44", 0.446539), ("1,235", 1234), ("2.1e-14", 1.97e-14), ("0.5", -0.5), ("NaN", 0.5),
     ("0.5", None), ("ResNet", "ViT"), ("b long te...", "a long text"), ("False", True), ("(0, 2)", [0, 1]),
     ("(a, b)", ["a", "c"]), ("(0.00001, 10.0)", [2e-05, 10.0]), ("(0.00001, 10.0)", [1e-05])],
)  # fmt: skip
def test_not_shown(text, value):
    assert not shows(text, value)


@pytest.fixture
def run():
    return Run("made", "toy")


def shown(source, **data):
    return new_notebook(cells=[new_code_cell(source, outputs=[new_output("execute_result", data, execution_count=1)])])


TABLES = {
    "unnamed index": pd.DataFrame({"a": [0.1, 0.2], "b": [3, 4]}, index=["x", "y"]),
    "two levels": pd.DataFrame(
        {"a": [0.1, 0.2, 0.3]}, index=pd.MultiIndex.from_tuples([("x", 1), ("x", 2), ("y", 1)], names=["m", "n"])
    ),
    "long": pd.DataFrame({"a": range(200)}),
    "wide": pd.DataFrame({f"c{i}": [i, i + 1] for i in range(40)}),
}


@pytest.mark.parametrize("frame", TABLES.values(), ids=TABLES)
def test_tables_as_pandas_writes_them(run, frame):
    html = run.table("t", frame, "").to_html(notebook=True, max_rows=60, max_cols=20)
    source = 'run.table("t", frame, "")'
    assert contradictions(shown(source, **{"text/html": html}), run.results) == []
    start, last = html.rsplit("<td>", 1)
    forged = f"{start}<td>9{last}"
    assert len(contradictions(shown(source, **{"text/html": forged}), run.results)) == 1
    assert len(contradictions(shown(source.replace('"t"', '"u"'), **{"text/html": html}), run.results)) == 1


def test_a_turned_table_is_the_same_table(run):
    frame = run.table("t", TABLES["unnamed index"].rename_axis("row"), "").T
    source, html = 'run.table("t", frame, "").T', frame.to_html()
    assert contradictions(shown(source, **{"text/html": html}), run.results) == []
    start, last = html.rsplit("<td>", 1)
    assert len(contradictions(shown(source, **{"text/html": f"{start}<td>9{last}"}), run.results)) == 1


def test_a_table_that_cannot_be_read_is_a_contradiction(run):
    run.table("t", TABLES["long"], "")
    source = 'run.table("t", frame, "")'
    broken = contradictions(shown(source, **{"text/html": "<table><tbody><tr><td>1</tr></table>"}), run.results)
    assert broken == ["cell 0 shows the row 'a table that cannot be read', its results file does not"]
    assert contradictions(shown(source, **{"text/html": "<b>no table</b>"}), run.results) == []


def test_rows_in_another_order_are_a_contradiction(run):
    frame = run.table("t", TABLES["unnamed index"], "")
    swapped = frame.iloc[::-1].set_axis(frame.index).to_html()
    assert len(contradictions(shown('run.table("t", frame, "")', **{"text/html": swapped}), run.results)) == 1


def test_a_value_alone(run):
    run.value("v", 0.123456)
    assert contradictions(shown('run.value("v", x)', **{"text/plain": "0.1235"}), run.results) == []
    assert contradictions(shown('run.value("v", x)', **{"text/plain": "0.2235"}), run.results) == [
        "cell 0 shows 0.2235, its results file does not"
    ]
