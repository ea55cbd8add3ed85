"""Reports as documents: everything that was shown, in order, with numbered captions; and what is refused."""

import json
import re
import sys
import zipfile

import pytest
from nbformat import write as write_notebook
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from PIL import Image

from helpers.course import document, markup
from helpers.course.code_hash import notebook_hash
from helpers.course.document import Details, blocks, main, read_details
from helpers.course.markup import as_markdown, number, speaking

NAME = "09_gaze_attention"
CELLS = [
    ("md", "# 09 · Looking\n\n[![Open in Colab](https://x/badge.svg)](https://x)\n\nWhy it matters: $a^2$."),
    ("md", "## 0 · Set up\nNot for a report."),
    ("code", "import torch"),
    ("md", "## 1 · A result\nRead it."),
    ("code", 'for name in ("one", "two"):\n    run.table(f"history_{name}", frame, "Epochs")'),
    ("code", 'run.finding(f"It is {x}.")\nrun.figure("seen", figure, "What is seen")'),
    ("code", 'for key in found:\n    run.table(key, found[key], "Words")'),
    ("md", "جمله‌ای به فارسی."),
    ("md", "## Exercises\n1. Try."),
    ("md", "## References\n- B. Second,\n  2020\n- A. First, 2010"),
]


def table(*rows):
    columns = ["epoch", "val_top1", "error"]
    return {"caption": "Epochs | of one", "columns": columns, "rows": [list(row) for row in rows]}


WORDS = {"caption": "Words", "columns": ["word"], "rows": [["a | b*c_d* <e>"]]}


@pytest.fixture
def root(tmp_path):
    """A repository with one executed notebook."""
    make = {"md": new_markdown_cell, "code": new_code_cell}
    notebook = new_notebook(cells=[make[kind](text) for kind, text in CELLS])
    (tmp_path / "notebooks").mkdir()
    write_notebook(notebook, tmp_path / f"notebooks/{NAME}.ipynb")
    (tmp_path / "reports/results").mkdir(parents=True)
    (tmp_path / "reports/figures").mkdir()
    Image.new("RGB", (4, 3), "red").save(tmp_path / "reports/figures/seen.png")
    save(tmp_path)
    return tmp_path


def save(root, **changes):
    result = {
        "notebook": NAME,
        "profile": "lite",
        "seed": 0,
        "device": "a machine",
        "precision": "no",
        "seconds": 660.0,
        "date": "2026-01-02",
        "code_sha256": notebook_hash(root / f"notebooks/{NAME}.ipynb"),
        "data": [{"name": "toy", "split": "train", "examples": 1200}],
        "tables": {"history_one": table([1, 0.4366, 1.2e-5]), "history_two": table([2, 0.25, None]), "words": WORDS},
        "figures": {"seen": {"caption": "What is seen", "file": "figures/seen.png"}},
        "findings": {"1": "It is **so**."},
        "order": [
            ["table", "history_one"],
            ["table", "history_two"],
            ["finding", "1"],
            ["figure", "seen"],
            ["table", "words"],
        ],
    }
    (root / f"reports/results/{NAME}.lite.json").write_text(json.dumps(result | changes))


def test_it_is_the_notebook_without_code_set_up_and_exercises(root):
    text = as_markdown(blocks("gaze", root))
    pieces = ["# Looking", "Why it matters: $a^2$.", "## 1 · A result", "*Table 1. ", "| 1 | 0.437 | 1.2e-05 |",
              "*Table 2. ", "| 2 | 0.250 | – |", "It is **so**.", "![What is seen](figures/seen.png)", "*Figure 1. ",
              "*Table 3. ", "a \\| b\\*c\\_d\\* \\<e\\>",
              "فارسی", "# How this was made", "*Table 4. ", "1,200",
              "# References\n\n- A. First, 2010\n- B. Second, 2020"]  # fmt: skip
    places = [text.index(piece) for piece in pieces]
    assert places == sorted(places)
    for left_out in ("import torch", "badge", "Set up", "Not for a report", "Exercises", "Try.", "09 ·"):
        assert left_out not in text
    assert "| epoch | validation accuracy | error |" in text


def test_a_changed_number_changes_the_report(root):
    before = as_markdown(blocks("gaze", root))
    save(root, tables={"history_one": table([1, 0.999, 0.5]), "history_two": table([2, 0.25, None]), "words": WORDS})
    assert "0.999" not in before
    assert "0.999" in as_markdown(blocks("gaze", root))


def test_no_result_is_lost(root):
    save(root, order=[["table", "words"], ["figure", "seen"]])
    with pytest.raises(ValueError, match="no cell shows 'figure seen'"):
        list(blocks("gaze", root))


def test_text_and_numbers_have_to_fit(root):
    save(root, code_sha256="another")
    with pytest.raises(ValueError, match=f"{NAME} changed after it was run"):
        list(blocks("gaze", root))
    (root / f"reports/results/{NAME}.lite.json").unlink()
    with pytest.raises(ValueError, match="no notebook of gaze was run: make notebook N=09 PROFILE=lite"):
        list(blocks("gaze", root))


DETAILS = Details("A title", "A course", ["Sara Ahmadi (810199101)"], "2026-01-03")


def test_docx(root, tmp_path):
    path = document.write_document("gaze", "docx", tmp_path / "out", DETAILS, root=root)
    text = zipfile.ZipFile(path).read("word/document.xml").decode()
    words = re.sub(r"<[^>]+>", "", text.replace("\xa0", " "))
    for piece in ("A title", "A course", "Sara Ahmadi (810199101)", "2026-01-03", "0.437", "Epochs | of one", "1,200",
                  "Table 1", "Table 4", "Figure 1", "a | b*c_d* <e>".replace("<e>", "&lt;e&gt;")):  # fmt: skip
        assert piece in words
    assert words.rindex("What is seen") > words.rindex("Epochs | of one")  # before that they are in the lists
    assert {"List of Figures", "List of Tables"} <= set(re.findall(r"<w:t[^>]*>(List of \w+)<", text))
    assert "<m:oMath>" in text  # a formula, not its source
    assert text.index("TableCaption") < text.index("<w:tbl>")
    assert text.index("<pic:pic") < text.index("ImageCaption", text.index("<pic:pic"))
    assert "فارسی" in words


def test_pdf(root, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(document, "as_pandoc", lambda pieces: seen.append(markup.as_pandoc(pieces)) or seen[-1])
    path = document.write_document("gaze", "pdf", tmp_path / "out", DETAILS, root=root)
    assert path.read_bytes().startswith(b"%PDF")
    assert "Epochs \\| of one" in seen[0]
    assert sorted(file.name for file in (root / "reports").iterdir()) == ["figures", "results"]  # as before


def test_a_damaged_figure_is_said(root, tmp_path):
    (root / "reports/figures/seen.png").write_bytes(b"no image")
    for form in ("pdf", "docx"):
        with pytest.raises(ValueError, match=r"figures/seen\.png is damaged: run its notebook again"):
            document.write_document("gaze", form, tmp_path / "out", DETAILS, root=root)
    assert not list((tmp_path / "out").iterdir())


def test_a_tall_figure_is_narrower_than_the_page(root, tmp_path, monkeypatch):
    texts = []
    monkeypatch.setattr(document, "as_pandoc", lambda pieces: texts.append(markup.as_pandoc(pieces)) or texts[-1])
    for size in ((300, 100), (100, 300)):
        Image.new("RGB", size, "red").save(root / "reports/figures/seen.png")
        document.write_document("gaze", "pdf", tmp_path / "out", DETAILS, root=root)
    wide, tall = (float(re.search(r"seen\.png\)\{width=(\d+)%\}", text)[1]) for text in texts)
    assert wide == 100
    assert tall == pytest.approx(100 * document.TALLEST / 3, abs=1)  # three times as high as it is wide


@pytest.mark.parametrize("form", ["docx", "pdf", "md"])
def test_a_missing_figure_is_said(root, tmp_path, form):
    (root / "reports/figures/seen.png").unlink()
    with pytest.raises(ValueError, match=r"figures/seen\.png is missing: run its notebook again"):
        document.write_document("gaze", form, tmp_path / "out", DETAILS, root=root)


def test_without_pandoc_one_line_says_what_to_install(root, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pypandoc", None)
    with pytest.raises(
        ValueError, match="docx needs what is not installed here: pip install pypandoc-binary python-docx"
    ):
        document.write_document("gaze", "docx", tmp_path / "out", DETAILS, root=root)
    assert document.write_document("gaze", "md", tmp_path / "out", DETAILS, root=root).is_file()


STYLE = b'<w:style w:type="paragraph" w:styleId="OurOwn"><w:name w:val="Our Own"/></w:style>'


def test_the_styles_of_a_template_are_taken(root, tmp_path):
    plain = document.write_document("gaze", "docx", tmp_path / "plain", DETAILS, root=root)
    own = tmp_path / "own.docx"
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(own, "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name).replace(b"</w:styles>", STYLE + b"</w:styles>"))
    path = document.write_document("gaze", "docx", tmp_path / "styled", DETAILS, own, root=root)
    assert b'w:styleId="OurOwn"' not in zipfile.ZipFile(plain).read("word/styles.xml")
    assert b'w:styleId="OurOwn"' in zipfile.ZipFile(path).read("word/styles.xml")
    with pytest.raises(ValueError, match="is not a file: give the course's .docx"):
        document.write_document("gaze", "docx", tmp_path / "styled", DETAILS, tmp_path / "none.docx", root=root)


def test_details(tmp_path):
    path = tmp_path / "report.toml"
    path.write_text('course = "C"\n[[student]]\nname = "Sara"\nnumber = "81"\n')
    assert read_details(path, "gaze") == (document.TITLES["gaze"], "C", ["Sara (81)"], "")
    assert read_details(None, "gaze").students == []
    path.write_text('[[student]]\nname = "Sara"\n')
    with pytest.raises(ValueError, match="needs a name and a number"):
        read_details(path, "gaze")
    path.write_text("title = ")
    with pytest.raises(ValueError, match=r"report.toml cannot be read"):
        read_details(path, "gaze")


def test_the_command_says_in_one_line_what_is_wrong(tmp_path):
    with pytest.raises(SystemExit, match=r"No report was written: .*none\.toml cannot be read"):
        main(["gaze", "--details", str(tmp_path / "none.toml"), "--output", str(tmp_path)])


@pytest.mark.parametrize(("value", "text"), [
    (None, "–"), (3, "3"), (45_000, "45,000"), (45_000.0, "45,000"), (0.4366, "0.437"), (0.0, "0.000"), (1.0, "1.000"),
    (-2.07, "-2.070"), (1.2e-5, "1.2e-05"), (-3e-4, "-3.0e-04"), (123.456, "123.5"), (4321.5, "4,321.5"), ("a", "a"),
    (True, "True"),
])  # fmt: skip
def test_numbers_as_a_report_shows_them(value, text):
    assert number(value) == text


def test_names_of_columns_speak():
    assert speaking("val_top1") == "validation accuracy"
    assert speaking("val_adv_top1") == "validation attacked accuracy"
    assert speaking("precision_weighted") == "precision weighted"
    assert speaking("images_a_class") == "images_a_class"


def test_a_table_wider_than_a_page_and_short_is_turned():
    checks = {
        "caption": "Checks",
        "columns": ["network", "val_top1", *map(str, range(1, 11))],
        "rows": [["a", *range(11)], ["b"] * 12],
    }
    lines = as_markdown([markup.Piece("table", checks)]).splitlines()[2:]
    assert lines[0] == "| network | a | b |"
    assert lines[2] == "| validation accuracy | 0 | b |"
    assert lines[3:] == [f"| {place} | {place} | b |" for place in range(1, 11)]
    checks["rows"] *= 5  # as long as it is wide: it stays
    assert (
        as_markdown([markup.Piece("table", checks)]).splitlines()[2].startswith("| network | validation accuracy | 1 |")
    )
