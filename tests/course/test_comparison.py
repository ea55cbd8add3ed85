"""The figures of the source reports stand beside ours, all of them, and ours are those of the results files."""

import json
import re
import shutil

import pytest
from conftest import ROOT

from helpers.course.comparison import blocks, comparison, look_up, read_sources
from helpers.course.reports import PARTS, compared

THEIRS = re.compile(r"\b(?:reports?|paper)\b")  # columns in which a notebook quotes a source
NUMBER = re.compile(r"\d*\.\d+|\d[\d,]*")


def numbers(text):
    """The numbers in a text, `0.4150`, `.415` and `41` as floats."""
    return {float(found.replace(",", "")) for found in NUMBER.findall(str(text))}


def quoted(result):
    """What a notebook's tables quote: numbers in the columns that name a report or a paper."""
    for table in result["tables"].values():
        places = [place for place, column in enumerate(table["columns"]) if THEIRS.search(column)]
        for row in table["rows"]:
            for place in places:
                if isinstance(row[place], float):
                    yield row[place]
                elif isinstance(row[place], str):
                    yield from numbers(re.sub(r"\(.*?\)", "", row[place]))


def missing(result, sources):
    """The numbers that a notebook quotes and the comparison leaves out; figures are rounded as the notebook rounds."""
    listed = {
        number
        for source in sources.values()
        for block in source["block"]
        if block["notebook"] == result["notebook"]
        for row in block["rows"]
        for number in numbers(row[1])
    }
    return sorted(one for one in quoted(result) if not any(abs(one - other) < 6e-4 for other in listed))


RESULTS = [json.loads(path.read_text()) for path in sorted((ROOT / "reports/results").glob("*.json"))]


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: result["notebook"])
def test_no_figure_that_a_notebook_quotes_is_missing(result):
    assert missing(result, read_sources(ROOT)) == []


def test_a_missing_row_is_found():
    sources = read_sources(ROOT)
    result = next(result for result in RESULTS if result["notebook"] == "09_gaze_attention")
    block = next(block for block in sources["gaze"]["block"] if "standard: clean" in block["rows"][0])
    del block["rows"][0]
    assert missing(result, sources) == [0.8813]


def test_every_notebook_and_every_source_is_there():
    sources = read_sources(ROOT)
    assert len(sources) == 5
    assert {block["notebook"] for source in sources.values() for block in source["block"]} == set(PARTS)


def test_the_page_is_what_the_files_say():
    assert (ROOT / "reports/README.md").read_text() == compared()


@pytest.fixture
def root(tmp_path):
    """A repository with one notebook, its results and one source."""
    (tmp_path / "reports/results").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copy(ROOT / "notebooks/09_gaze_attention.ipynb", tmp_path / "notebooks")
    shutil.copy(ROOT / "reports/results/09_gaze_attention.lite.json", tmp_path / "reports/results")
    return tmp_path


def told(*row, section="9 · Verdicts"):
    return {"block": [{"notebook": "09_gaze_attention", "section": section, "about": "So.", "rows": [row]}]}


def test_a_row_has_our_number_and_a_link_to_its_section(root):
    (block,) = blocks(told("clean", "0.8813", "robust | standard | clean", "not comparable"), root)
    result = json.loads((root / "reports/results/09_gaze_attention.lite.json").read_text())
    assert block.rows[0].ours == f"{look_up(result, 'robust | standard | clean'):.4f}" != "0.8813"
    assert block.link == "../notebooks/09_gaze_attention.ipynb#9-·-Verdicts"


def test_a_changed_result_changes_the_row(root):
    path = root / "reports/results/09_gaze_attention.lite.json"
    result = json.loads(path.read_text())
    result["values"]["attacked_images"], result["values"]["first_move"] = 1234, 0.5
    path.write_text(json.dumps(result))
    rows = [blocks(told("x", "1", f"values | {name}", "not comparable"), root)[0].rows[0].ours
            for name in ("attacked_images", "first_move")]  # fmt: skip
    assert rows == ["1,234", "0.5000"]


def test_what_was_not_run_says_so(root):
    (root / "reports/results/09_gaze_attention.lite.json").unlink()
    row = blocks(told("clean", "0.8813", "robust | standard | clean", "reproduced"), root)[0].rows[0]
    assert (row.ours, row.verdict) == ("not run", "not run")


@pytest.mark.parametrize(
    ("row", "section", "fault"),
    [
        (("x", "1", "robust | nobody | clean", "reproduced"), None, "has no number 'robust | nobody | clean'"),
        (("x", "1", "robust | standard | cleaner", "reproduced"), None, "has no number"),
        (("x", "1", "values | nothing", "reproduced"), None, "has no number"),
        (("x", "1", "seeds | clean", "reproduced"), None, "has no number"),
        (("x", "1", "robust | standard | clean", "true"), None, "a verdict is one of"),
        (("x", "1", "robust | standard | clean", "not run"), None, "'not run' with a figure of ours"),
        (("x", "1", "", "refuted"), None, "'refuted' without a figure of ours"),
        (("x", "1", "robust | standard | clean", "reproduced"), "10 · Nowhere", "has no section '10 · Nowhere'"),
    ],
)
def test_what_does_not_exist_is_refused(root, row, section, fault):
    with pytest.raises(ValueError, match=re.escape(fault)):
        blocks(told(*row, section=section or "9 · Verdicts"), root)


def test_two_rows_of_one_name_are_refused():
    table = {"columns": ["name", "top1"], "rows": [["a", 1.0], ["a", 2.0]]}
    with pytest.raises(ValueError, match="has no number"):
        look_up({"notebook": "n", "profile": "lite", "values": {}, "tables": {"t": table}}, "t | a | top1")


def test_sources_are_sorted_by_title_and_counted():
    sources = comparison()
    text = compared()
    for title, parts in sources.items():
        assert f"## {title}" in text
        assert all(f"({block.link})" in text for block in parts)
    rows = [row for parts in sources.values() for block in parts for row in block.rows]
    counts = [int(count) for count in re.findall(r"(?m)^\| [a-z ]+ \| [^|]+ \| (\d+) \|$", text)]
    assert sum(counts) == len(rows) > 150
