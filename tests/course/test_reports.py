"""Texts are made from results files, README agrees with them, and pages to read ask no other host for anything."""

import json
import re
import shutil

import nbformat
import pytest
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers.course import reports


def test_readme_says_what_the_results_files_say():
    assert (ROOT / "README.md").read_text() == reports.readme()


def test_reports_say_what_the_results_files_say():
    for assignment in reports.TITLES:
        path = ROOT / "reports" / f"{assignment}.md"
        assert (path.read_text() if path.exists() else None) == reports.report(assignment)


@pytest.fixture
def copy(tmp_path):
    """The parts of the repository that texts are made from, to change at will."""
    for folder in ("reports", "tests/golden", "notebooks"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def change_result(root, **changes):
    path = sorted((root / "reports/results").glob("01_*.json"))[0]
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_changed_result_shows_in_readme_and_report(copy):
    change_result(copy, headline="everything is 100 %", seconds=600.0)
    assert "everything is 100 % (" in reports.readme(copy) != (copy / "README.md").read_text()
    assert " / 10 / not run" in reports.readme(copy)
    change_result(copy, findings={"1": "nothing"}, order=[["finding", "1"]], tables={}, figures={})
    assert "\nnothing\n" in reports.report("robustness_and_captions", copy)


def test_what_was_not_run_says_so(copy):
    for path in (copy / "reports/results").glob("*.json"):
        path.unlink()
    rows = {row["name"]: row for row in reports.notebook_rows(copy)}
    assert rows["01_noisy_resnet"]["headline"] == "not run"
    (copy / "notebooks/01_noisy_resnet.ipynb").unlink()
    assert reports.notebook_rows(copy)[0]["headline"] == "not written yet"
    assert reports.report("robustness_and_captions", copy) is None


def test_report_has_captions_above_tables_and_below_figures():
    text = reports.report("robustness_and_captions")
    assert re.search(r"\*\*[^*]+\*\*\n\n\| ", text)
    assert re.search(r"!\[[^]]*\]\(figures/[^)]+\.png\)\n\n\*[^*]+\*\n", text)
    for link in re.findall(r"\]\((figures/[^)]+)\)", text):
        assert (ROOT / "reports" / link).is_file()


@pytest.fixture
def executed(tmp_path):
    notebook = new_notebook(cells=[new_code_cell("1", execution_count=1)])
    nbformat.write(notebook, tmp_path / "01.ipynb")
    return tmp_path / "01.ipynb"


def test_index_shows_results_and_failures(executed, tmp_path):
    (tmp_path / "results").mkdir()
    source = json.loads(next((ROOT / "tests/golden").glob("01_*.json")).read_text())
    (tmp_path / "results/01.toy.json").write_text(json.dumps(source | {"headline": "<b>7 %</b>"}))
    shutil.copy(executed, tmp_path / "02.ipynb")
    index = reports.write_index(
        tmp_path, "toy", [(executed, "0:10 min", None), (tmp_path / "02.ipynb", "0:01 min", "ValueError: x")]
    )
    page = index.read_text()
    assert "&lt;b&gt;7 %" in page
    assert "failed: ValueError: x" in page
    assert (tmp_path / "01.html").is_file()
    assert page.count("<figure>") == len(source["figures"])


LOADED = re.compile(
    r"""(?:<(?!a\b)\w+[^>]*\s(?:src|href|data)\s*=\s*["']?|url\(\s*["']?|@import\s+["']?|import\(["'])(?:https?:)?//"""
)


@pytest.mark.parametrize("name", ["03_attacks_and_defense", "05_clip_tecoa"])
def test_page_asks_no_other_host_and_renders_formulas(name):
    page = reports.page(ROOT / f"notebooks/{name}.ipynb")
    assert not LOADED.search(page)
    assert "<script" not in page
    assert page.count("<math") > 10
    assert "\\varepsilon" not in page
    assert "Open in Colab</a>" in page


def test_formulas_and_pictures_in_cells_and_outputs(executed):
    notebook = nbformat.read(executed, as_version=4)
    text = "$a_1$ and $$\\frac{a}{b}$$\n\n\\begin{align}x &= y\\end{align}\n\ncosts `$5`\n\n![there](https://x.y/z.png)"
    notebook.cells.append(new_markdown_cell(text))
    finding = new_output("display_data", {"text/markdown": "so $\\sigma$ it is"})
    notebook.cells.append(new_code_cell("2", execution_count=2, outputs=[finding]))
    nbformat.write(notebook, executed)
    page = reports.page(executed)
    assert page.count("<math") == 4
    assert "<msub><mi>a</mi><mn>1</mn></msub>" in page
    assert "<code>$5</code>" in page
    assert "there" in page
    assert not LOADED.search(page)


def test_what_counts_as_loaded_from_another_host():
    for text in (
        '<img alt="a" src="https://x.y/z">',
        "<script src='//x.y'></script>",
        "url(http://x.y)",
        '@import "https://x"',
    ):
        assert LOADED.search(text)
    assert not LOADED.search('<a href="https://x.y">prose</a> <img src="data:image/png;base64,//">')
