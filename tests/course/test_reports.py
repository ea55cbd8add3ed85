"""Texts are made from results files: README agrees with them, and a hand-in is checked before it is packed."""

import json
import re
import shutil
import zipfile

import nbformat
import pytest
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_notebook

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


STUDENTS = [("Ahmadi", "810199101"), ("Bagheri", "810199102")]


def test_submission(executed, tmp_path):
    path = reports.submission(1, STUDENTS, [executed], tmp_path)
    assert path.name == "HW1_Ahmadi_810199101_Bagheri_810199102.zip"
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["01.ipynb"]
        assert archive.read("01.ipynb") == executed.read_bytes()


def test_bad_submissions(executed, tmp_path):
    with pytest.raises(ValueError, match="one or two students"):
        reports.submission(1, [*STUDENTS, ("Third", "1")], [executed], tmp_path)
    with pytest.raises(ValueError, match="LASTNAME NUMBER"):
        reports.submission(1, [("Ahmadi", "no number")], [executed], tmp_path)
    with pytest.raises(ValueError, match=r"report.pdf does not exist"):
        reports.submission(1, STUDENTS, [tmp_path / "report.pdf"], tmp_path)
    notebook = nbformat.read(executed, as_version=4)
    notebook.cells[0].execution_count = 5
    nbformat.write(notebook, executed)
    with pytest.raises(ValueError, match="cannot be handed in: execution counts"):
        reports.submission(1, STUDENTS, [executed], tmp_path)
    assert not list(tmp_path.glob("HW*"))


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
