"""What pandoc's .docx still needs to be handed in: contents that every program shows, and tables that fit the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from docx import Document
from docx.oxml import OxmlElement
from docx.oxml.ns import qn
from docx.shared import Inches, Length, Pt
from docx.table import Table
from docx.text.paragraph import Paragraph

PAGE = Inches(5.5)  # of text, where a template does not say how wide its page is
PADDING = Inches(0.16)  # of a cell, left and right
SIZES, SMALL = (10, 9, 8, 7.5, 7, 6.5, 6), 8  # of a table's letters in points; the first at which no word is broken
EASY = 30  # letters of a line that reads well; for it the letters become smaller, down to SMALL
EM = 0.68  # width of a letter in letter sizes: a little more than that of a digit in DejaVu Sans, a wide font
LISTS = {"Table of Contents": ("Heading 1", "Heading 2"), "List of Figures": ("Image Caption",),
         "List of Tables": ("Table Caption",)}  # fmt: skip


def finish(path: Path) -> None:
    """Change the .docx in place."""
    document = Document(str(path))
    section = document.sections[0]
    sides = (section.page_width, section.left_margin, section.right_margin)
    page = Length(sides[0] - sides[1] - sides[2]) if None not in sides else PAGE
    for table in document.tables:
        _fit(table, page)
    entries = list(_entries(document.paragraphs))
    for block in list(document.element.body.iter(qn("w:sdt"))):
        gallery = block.find(".//" + qn("w:docPartGallery"))
        if gallery is not None and (listed := LISTS.get(gallery.get(qn("w:val")))):
            _fill(block, [entry for entry in entries if entry[0] in listed])
    document.save(str(path))


def column_widths(texts: list[list[str]], page: int) -> tuple[float, list[int]]:
    """Size of the letters in points and width of each column, for the texts of each column; lengths as in `docx`.

    Every column gets its longest word. What the page has left goes to those whose texts are longer.
    """
    words = [max((len(word) for text in column for word in text.split()), default=1) for column in texts]
    longest = [max(map(len, column)) for column in texts]
    usual = [max(word, sum(map(len, column)) / len(column)) for word, column in zip(words, texts, strict=True)]
    eased = [max(word, min(width, EASY)) for word, width in zip(words, usual, strict=True)]
    room = page - len(texts) * PADDING
    fitting = [size for size in SIZES if sum(eased if size >= SMALL else words) * EM * Pt(size) <= room]
    size = fitting[0] if fitting else SIZES[-1]
    letters = room / (EM * Pt(size))
    widths = [word * min(1.0, letters / sum(words)) for word in words]  # less than a word only if nothing else is left
    for wish in (usual, longest):
        missing = [max(0.0, w - width) for w, width in zip(wish, widths, strict=True)]
        share = min(1.0, max(0.0, letters - sum(widths)) / max(1.0, sum(missing)))
        widths = [width + share * more for width, more in zip(widths, missing, strict=True)]
    return size, [round(width * EM * Pt(size) + PADDING) for width in widths]


def _fit(table: Table, page: int) -> None:
    columns = [column.cells for column in table.columns]
    size, widths = column_widths([[cell.text for cell in cells] for cells in columns], page)
    table.autofit = False
    whole = table._tbl.tblPr.find(qn("w:tblW"))
    whole.set(qn("w:type"), "dxa")
    whole.set(qn("w:w"), str(round(Length(sum(widths)).pt * 20)))
    for column, cells, width in zip(table.columns, columns, widths, strict=True):
        column.width = width
        for cell in cells:
            cell.width = width
            for run in (run for paragraph in cell.paragraphs for run in paragraph.runs):
                run.font.size = Pt(size)
                # The size of letters that run from right to left, in half points.
                persian = _element("w:szCs", **{"w:val": str(round(2 * size))})
                run._r.rPr.find(qn("w:sz")).addnext(persian)


def _entries(paragraphs: list[Paragraph]) -> Iterator[tuple[str, str, str]]:
    """Style, text and bookmark of every paragraph that a list names; each gets a bookmark of its own."""
    styles = {style for several in LISTS.values() for style in several}
    for place, paragraph in enumerate(paragraphs):
        if paragraph.style.name in styles and paragraph.text:
            name, number = f"listed_{place}", str(100_000 + place)  # far from pandoc's own numbers
            start = _element("w:bookmarkStart", **{"w:id": number, "w:name": name})
            paragraph._p.insert(1 if paragraph._p.pPr is not None else 0, start)
            paragraph._p.append(_element("w:bookmarkEnd", **{"w:id": number}))
            yield paragraph.style.name, "".join(part.text for part in paragraph._p.iter(qn("w:t"))), name


def _fill(block: OxmlElement, entries: list[tuple[str, str, str]]) -> None:
    """Put the entries in the place of a list's field, which stays empty in all programs but Word."""
    title = next(block.iter(qn("w:p")))
    block.addprevious(title)
    for style, text, name in entries:
        block.addprevious(line := OxmlElement("w:p"))
        paragraph = Paragraph(line, None)
        paragraph.paragraph_format.left_indent = Inches(0.25 if style == "Heading 2" else 0)
        paragraph.paragraph_format.space_after = Pt(2)
        paragraph.add_run(f"{text} · ")
        _page_of(paragraph, name)
    block.getparent().remove(block)


def _page_of(paragraph: Paragraph, bookmark: str) -> None:
    """The number of the page on which the bookmark lies, as a field."""
    code = _element("w:instrText")
    code.text = f"PAGEREF {bookmark} \\h"
    begin = _element("w:fldChar", **{"w:fldCharType": "begin", "w:dirty": "true"})  # Word counts pages when asked to
    for part in (begin, code, *(_element("w:fldChar", **{"w:fldCharType": kind}) for kind in ("separate", "end"))):
        paragraph.add_run()._r.append(part)


def _element(name: str, **attributes: str) -> OxmlElement:
    element = OxmlElement(name)
    for key, value in attributes.items():
        element.set(qn(key), value)
    return element
