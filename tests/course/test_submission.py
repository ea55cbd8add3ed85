"""A hand-in: what is refused and in which words, what is accepted and tidied, and that the archive runs."""

import json
import subprocess
import sys
import zipfile
from datetime import date

import nbformat
import pytest
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_notebook, new_output

from helpers.course import submission as hand_in
from helpers.course.notebooks import WIDGET

STUDENTS = [("Ahmadi", "810199101"), ("Bagheri", "810199102")]


@pytest.fixture
def report(tmp_path):
    (tmp_path / "report.pdf").write_bytes(b"%PDF-1.7")
    return tmp_path / "report.pdf"


def write(path, *cells, **metadata):
    """A notebook file of (source, outputs) pairs, executed in order."""
    made = [
        new_code_cell(source, execution_count=place, outputs=outputs)
        for place, (source, outputs) in enumerate(cells, start=1)
    ]
    path.parent.mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=made, metadata=metadata), path)
    return path


@pytest.fixture
def notebook(tmp_path):
    return write(tmp_path / "01.ipynb", ("1", []))


def pack(files, tmp_path, students=STUDENTS):
    return hand_in.submission(1, students, list(files), tmp_path)[0]


def test_archive_unpacks_to_something_that_runs(report, notebook, tmp_path):
    path = pack([report, notebook], tmp_path)
    assert path.name == "HW1_Ahmadi_810199101_Bagheri_810199102.zip"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "unpacked")
        names = set(archive.namelist())
    assert {"report.pdf", "notebooks/01.ipynb", *hand_in.NEEDED, "helpers/course/templates/index.html.j2"} <= names
    assert not [name for name in names if "__pycache__" in name]
    code = (
        "import helpers, helpers.course.run_all, helpers.course.submission\n"
        "from helpers.course import reports, run\n"
        "reports._render('index.html.j2', profile='toy', runs=[])\n"
        "print(helpers.__file__, run.project_root(), sep='\\n')"
    )
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "unpacked")}, capture_output=True, text=True
    )
    assert done.stdout.split() == [str(tmp_path / "unpacked/helpers/__init__.py"), str(tmp_path / "unpacked")], done


def test_without_a_report_one_is_written(tmp_path, monkeypatch):
    asked = []

    def written(assignment, form, folder, details):
        asked.append((assignment, form, details))
        (folder / "gaze.docx").write_bytes(b"a report")
        return folder / "gaze.docx"

    monkeypatch.setattr(hand_in, "write_document", written)
    notebook = write(tmp_path / "09_gaze_attention.ipynb", ("1", []))
    path, remarks = hand_in.submission(5, STUDENTS, [notebook], tmp_path)
    assert zipfile.ZipFile(path).read("gaze.docx") == b"a report"
    assert remarks == ["gaze.docx was written from the results of gaze: read it before you hand it in."]
    ((assignment, form, details),) = asked
    assert (assignment, form, details.course) == ("gaze", "docx", "Homework 5")
    assert details.students == ["Ahmadi (810199101)", "Bagheri (810199102)"]
    (tmp_path / "own.pdf").write_bytes(b"%PDF")
    hand_in.submission(5, STUDENTS, [notebook, tmp_path / "own.pdf"], tmp_path)
    assert len(asked) == 1  # one's own is taken as it is


def test_a_report_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    def fails(*_):
        raise ValueError("no notebook of gaze was run")

    monkeypatch.setattr(hand_in, "write_document", fails)
    notebook = write(tmp_path / "09_gaze_attention.ipynb", ("1", []))
    with pytest.raises(ValueError, match="there is no report, and none could be written: no notebook of gaze was run"):
        hand_in.submission(5, STUDENTS, [notebook], tmp_path)
    other = write(tmp_path / "08_leaf_disease.ipynb", ("1", []))
    with pytest.raises(ValueError, match="there is no report: add it"):  # of which of the two assignments?
        hand_in.submission(5, STUDENTS, [notebook, other], tmp_path)
    assert not list(tmp_path.glob("HW*"))


@pytest.mark.parametrize(
    ("students", "said"),
    [
        ([], "one or two students, not 0"),
        ([*STUDENTS, ("Third", "810199103")], "one or two students, not 3"),
        ([STUDENTS[0], STUDENTS[0]], "student 810199101 is named twice"),
        ([("Ahmadi", "81019910")], "'81019910' of Ahmadi is no student number: write 9 digits"),
        ([("Ahmadi", "8101991011")], "write 9 digits"),
        ([("Ahmadi", "۸۱۰۱۹۹۱۰۱")], "write 9 digits"),
        ([("810199101", "Ahmadi")], "'810199101' is no last name: write --student LASTNAME NUMBER"),
        ([("../Ahmadi", "810199101")], "is no last name"),
    ],
)
def test_students_that_are_refused(report, notebook, tmp_path, students, said):
    with pytest.raises(ValueError, match=said):
        pack([report, notebook], tmp_path, students)
    assert not list(tmp_path.glob("HW*"))


def test_students_that_are_accepted():
    found = hand_in.checked_students([("Al-Ahmadi", "810199101"), ("Seyed Bagheri\u200cnia", "810199102")])
    assert found == [("AlAhmadi", "810199101"), ("SeyedBagherinia", "810199102")]
    assert hand_in.checked_students([("احمدی", "4021")], digits=4) == [("احمدی", "4021")]


def test_files_that_are_refused(report, notebook, tmp_path):
    def refused(said, *files):
        with pytest.raises(ValueError, match=said) as error:
            pack(files, tmp_path)
        assert len(str(error.value).splitlines()) == 1
        assert not list(tmp_path.glob("HW*"))

    refused("there is no report: add it as one of .pdf, .docx", notebook)
    refused("there is no notebook", report)
    refused("gone.pdf is not a file", tmp_path / "gone.pdf", notebook)
    twin = write(tmp_path / "other" / "01.IPYNB", ("1", []))
    refused("two files are called 01.IPYNB", report, notebook, twin)
    (tmp_path / "requirements.txt").write_text("torch\n")
    refused("two files are called requirements.txt", report, notebook, tmp_path / "requirements.txt")
    report.write_bytes(b"")
    refused(r"report.pdf is empty \(0 bytes\)", report, notebook)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"nbformat": 4, "cells": [{}]}', "no notebook", "\x00\xff"])
def test_a_broken_notebook_is_refused(report, tmp_path, content):
    (tmp_path / "01.ipynb").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=r"^01\.ipynb is broken or no notebook: open it in JupyterLab and save it"):
        pack([report, tmp_path / "01.ipynb"], tmp_path)


def test_a_notebook_that_was_not_run_through_is_refused(report, notebook, tmp_path):
    write(notebook, ("1 / 0", [new_output("error", ename="ZeroDivisionError", evalue="", traceback=[])]))
    with pytest.raises(ValueError, match=r"01\.ipynb cannot be handed in: a cell ended in an error"):
        pack([report, notebook], tmp_path)
    opened = nbformat.read(write(notebook, ("1", [])), as_version=4)
    opened.cells[0].execution_count = 5
    nbformat.write(opened, notebook)
    with pytest.raises(ValueError, match="execution counts are not 1..1: restart and run all"):
        pack([report, notebook], tmp_path)


def test_what_jupyterlab_leaves_is_accepted_and_tidied_in_the_archive_only(report, notebook, tmp_path):
    bar = "train:  50%|#####     | 5/10 [00:01<00:01,  4.9it/s]"
    full = "train: 100%|#| 10/10 [00:02<00:00,  5.0img/s]"
    shown = [
        new_output("stream", name="stderr", text=f"\r{bar}\r{full}\nw: deprecated\n"),
        new_output("stream", name="stderr", text="\rsteps: 3it [00:00, 99.1it/s]"),
        new_output("display_data", {WIDGET: {"model_id": "a"}, "text/plain": bar}),
        new_output("display_data", {WIDGET: {"model_id": "b"}, "text/plain": "IntSlider(value=0)"}),
        new_output("display_data", {WIDGET: {"model_id": "c"}}),
        new_output("stream", name="stdout", text="loss [12, 3]\n"),
    ]  # fmt: skip
    write(notebook, ("1", shown), widgets={"state": {}}, language_info={"name": "python", "version": "3.12.1"})
    before = notebook.read_bytes()
    with zipfile.ZipFile(pack([report, notebook], tmp_path)) as archive:
        packed = nbformat.reads(archive.read("notebooks/01.ipynb").decode(), as_version=4)
    texts = [output.get("text", output.get("data")) for output in packed.cells[0].outputs]
    assert texts == ["w: deprecated\n", {"text/plain": "IntSlider(value=0)"}, "loss [12, 3]\n"]
    assert "widgets" not in packed.metadata
    assert notebook.read_bytes() == before


@pytest.fixture
def with_results(tmp_path, monkeypatch):
    """The committed notebook 02 and its results, as a student's own."""
    monkeypatch.setenv("OUTPUT_DIR", str(tmp_path / "out"))
    (tmp_path / "out/results").mkdir(parents=True)
    source = ROOT / "reports/results/02_vit_transfer.lite.json"
    (tmp_path / "out/results" / source.name).write_text(source.read_text())
    copy = tmp_path / "02_vit_transfer.ipynb"
    copy.write_text((ROOT / "notebooks" / copy.name).read_text())
    return copy, tmp_path / "out/results" / source.name


def test_a_notebook_must_agree_with_its_results(report, with_results, tmp_path):
    path, results = with_results
    assert hand_in.submission(1, STUDENTS, [report, path], tmp_path)[1] == []
    text = path.read_text()
    path.write_text(text.replace("network names 25.0% of", "network names 45.0% of"))
    with pytest.raises(ValueError, match=r"contradicts 02_vit_transfer.lite.json: cell \d+ shows the finding"):
        pack([report, path], tmp_path)
    path.write_text(text.replace("def features(model, data):", "def features(model, data, more=0):"))
    with pytest.raises(ValueError, match="its code is not the code that wrote the results file; restart the kernel"):
        pack([report, path], tmp_path)
    path.write_text(text)
    results.unlink()
    assert "its numbers were not checked" in hand_in.submission(1, STUDENTS, [report, path], tmp_path)[1][0]


@pytest.mark.parametrize(
    ("day", "lost"), [(-5, 0), (0, 0), (1, 0), (3, 0), (4, 0.05), (5, 0.1), (6, 0.15), (7, 0.2), (8, 1), (400, 1)]
)
def test_late_penalty(day, lost):
    assert hand_in.late_penalty(day) == lost


def test_lateness_in_words():
    deadline = date(2026, 11, 20)
    assert hand_in.lateness(deadline, deadline) == "In time for 2026-11-20."
    assert hand_in.lateness(deadline, date(2026, 11, 21)) == "1 day after 2026-11-20: no penalty."
    assert hand_in.lateness(deadline, date(2026, 11, 25)).endswith(
        "5 days after 2026-11-20: 10% of the points are lost."
    )
    assert hand_in.lateness(deadline, date(2026, 12, 1)).endswith("11 days after 2026-11-20: 0 points.")


def command(*arguments):
    return hand_in.main(["--homework", "1", *map(str, arguments)])


def test_command(report, notebook, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    late = ("--deadline", "2026-11-20", "--on", "2026-11-24")
    command("--student", "Al-Ahmadi", "810199101", *late, report, notebook)
    said = "HW1_AlAhmadi_810199101.zip\n4 days after 2026-11-20: 5% of the points are lost.\n"
    assert capsys.readouterr().out == said
    assert (tmp_path / "HW1_AlAhmadi_810199101.zip").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--student", "Ahmadi", "1", "report.pdf"], "Nothing was packed: '1' of Ahmadi is no student number"),
        (["--student", "Ahmadi", "810199101", "gone.pdf"], "Nothing was packed: gone.pdf is not a file"),
        (["--student", "Ahmadi", "810199101"], "required: files; --help explains"),
        (["--student", "Ahmadi"], "--student: expected 2 arguments; --help explains"),
        (["--student", "A", "810199101", "--deadline", "20.11.", "x"], "'20.11.' is no date: write it as 2026-11-20"),
    ],
)
def test_command_refuses_in_one_line(arguments, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        command(*arguments)
    text = stopped.value.code if isinstance(stopped.value.code, str) else capsys.readouterr().err
    assert said in text
    assert len(text.strip().splitlines()) == 1


def test_written_results_are_what_is_compared(report, tmp_path, monkeypatch):
    """The whole way with a student's own notebook: a table shown, its file, and one digit changed in the file."""
    monkeypatch.setenv("OUTPUT_DIR", str(tmp_path / "out"))
    html = "<table><thead><tr><th></th><th>a</th></tr></thead><tbody><tr><th>x</th><td>0.25</td></tr></tbody></table>"
    shown = [new_output("execute_result", {"text/html": html, "text/plain": ""}, execution_count=1)]
    named = [new_output("execute_result", {"text/plain": "'results/own.toy.json'"}, execution_count=2)]
    path = write(tmp_path / "own.ipynb", ("run.table('t', t, '')", shown), ("run.finish('')", named))
    (tmp_path / "out/results").mkdir(parents=True)
    for value, accepted in ((0.251, True), (0.26, False)):
        content = {"code_sha256": None, "tables": {"t": {"rows": [[value]]}}, "findings": {}, "values": {}}
        (tmp_path / "out/results/own.toy.json").write_text(json.dumps(content))
        if accepted:
            assert pack([report, path], tmp_path).is_file()
        else:
            with pytest.raises(
                ValueError, match=r"own.ipynb contradicts own.toy.json: cell 0 shows the row 'x \| 0.25'"
            ):
                pack([report, path], tmp_path)
