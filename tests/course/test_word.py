"""A .docx for paper: no table wider than the page, no broken word, and contents that are filled in."""

from copy import deepcopy
from pathlib import Path

import pypandoc
import pytest
from docx import Document
from docx.oxml.ns import qn
from docx.shared import Inches, Pt
from PIL import Image

from helpers.course.word import EM, PADDING, SIZES, column_widths, finish

PAGE = Inches(5.5)


@pytest.mark.parametrize("columns", [1, 4, 7])
def test_no_word_is_broken_and_no_page_is_too_narrow(columns):
    texts = [["seed", "0.123", "word " * 20], *([["accuracy", "0.123", "0.456"]] * columns)]
    size, widths = column_widths(texts, PAGE)
    assert size in SIZES
    assert sum(widths) <= PAGE + len(widths)  # but for rounding
    letters = [(width - PADDING) / (EM * Pt(size)) for width in widths]
    assert all(width >= need - 1e-3 for width, need in zip(letters, [5, *[8] * columns], strict=True))
    assert letters[0] > 6  # what is left goes to the long text


def test_letters_become_smaller_only_where_they_must():
    sizes = [column_widths([["accuracy", "0.123"]] * count, PAGE)[0] for count in (2, 9, 12)]
    assert sizes[0] == SIZES[0]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[2] < sizes[0]


def test_a_narrow_table_stays_narrow():
    assert sum(column_widths([["a", "b"], ["1", "2"]], PAGE)[1]) < PAGE / 4


def test_words_too_long_for_a_page_stay_on_it():
    assert sum(column_widths([["x" * 300], ["y" * 100]], PAGE)[1]) <= PAGE + 2


@pytest.fixture
def report(tmp_path):
    """What pandoc makes of two headings, a table and a figure."""
    Image.new("RGB", (4, 3), "red").save(tmp_path / "seen.png")
    text = ("# One\n\nText.\n\n## Two\n\n| network | accuracy of many words |\n|--|--:|\n| a | 0.5 |\n\n: A table\n\n"
            "![A figure](seen.png)\n")  # fmt: skip
    path = tmp_path / "made.docx"
    options = ["--toc", "--lof", "--lot", f"--resource-path={tmp_path}"]
    pypandoc.convert_text(text, "docx+native_numbering", "markdown", options, outputfile=path)
    return path


def test_contents_are_filled_in(report: Path):
    finish(report)
    document = Document(str(report))
    lines = [line.text.replace("\xa0", " ").partition(" ·")[0] for line in document.paragraphs]
    start = lines.index("Table of Contents")
    assert lines[start : start + 8] == ["Table of Contents", "One", "Two", "List of Figures", "Figure 1: A figure",
                                        "List of Tables", "Table 1: A table", "One"]  # fmt: skip
    codes = [code.text.split()[1] for code in document.element.iter(qn("w:instrText")) if "PAGEREF" in code.text]
    marks = {mark.get(qn("w:name")) for mark in document.element.iter(qn("w:bookmarkStart"))}
    assert len(set(codes)) == 4
    assert set(codes) <= marks
    kinds = [mark.get(qn("w:fldCharType")) for mark in document.element.iter(qn("w:fldChar"))]
    assert kinds == ["begin", "separate", "end"] * len(codes)
    assert not list(document.element.iter(qn("w:sdt")))


def test_what_is_no_list_of_contents_stays(report: Path):
    document = Document(str(report))
    other = deepcopy(next(document.element.body.iter(qn("w:sdt"))))
    other.find(".//" + qn("w:docPartGallery")).set(qn("w:val"), "Cover Pages")
    document.element.body.insert(0, other)
    document.save(str(report))
    finish(report)
    (kept,) = Document(str(report)).element.body.iter(qn("w:sdt"))
    assert kept.find(".//" + qn("w:docPartGallery")).get(qn("w:val")) == "Cover Pages"


def test_tables_have_the_widths_of_their_words(report: Path):
    finish(report)
    (table,) = Document(str(report)).tables
    size, widths = column_widths([["network", "a"], ["accuracy of many words", "0.5"]], PAGE)
    assert [round(column.width / 1000) for column in table.columns] == pytest.approx([w / 1000 for w in widths], abs=1)
    assert {cell.width for row in table.rows for cell in row.cells} == {column.width for column in table.columns}
    assert {run.font.size for cell in table.column_cells(0) for run in cell.paragraphs[0].runs} == {Pt(size)}
    persian = {each.get(qn("w:val")) for each in table._tbl.iter(qn("w:szCs"))}
    assert persian == {str(round(2 * size))}
