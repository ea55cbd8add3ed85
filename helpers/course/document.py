"""An assignment's report as a document: `python -m helpers.course.document gaze --format docx`.

It is the notebooks without their code: every text, table, figure and finding in the order of the cells. Numbers come
from the results files. pandoc makes the .docx, and typst the .pdf.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from PIL import Image

from ..contract import tqdm
from ..training.checkpoints import replacing
from .command import Parser
from .markup import Piece, as_markdown, as_pandoc
from .notebooks import read
from .reports import PARTS, TITLES, stale
from .run import project_root, read_results

FORMATS = ("docx", "pdf", "md")
TALLEST = 1.2  # height of a figure over the width of the page's text
LEFT_OUT = re.compile(r"^#+ (0 ·|Exercises|References)")  # parts of a notebook that are no report
CALL = re.compile(r"""\brun\.(table|figure|finding)\(\s*(?:f?["']([^"']*)["'])?""")


class Details(NamedTuple):
    """What stands on the first page."""

    title: str
    course: str
    students: list[str]
    date: str


def read_details(path: Path | None, assignment: str) -> Details:
    """From a file such as `report.toml`; without one, the assignment's title and no names.

    Raises:
        ValueError: the file is missing or cannot be read, or a student has no name or number.
    """
    told: dict[str, Any] = {}
    if path is not None:
        try:
            told = tomllib.loads(path.read_text())
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise ValueError(f"{path.name} cannot be read: {error}") from error
    students = told.get("student", [])
    if not all(isinstance(one, dict) and one.get("name") and one.get("number") for one in students):
        raise ValueError('every [[student]] needs a name and a number: name = "Ahmadi", number = "810199101"')
    named = [f"{one['name']} ({one['number']})" for one in students]
    return Details(told.get("title", TITLES[assignment]), told.get("course", ""), named, str(told.get("date", "")))


def blocks(assignment: str, root: Path) -> Iterator[Piece]:
    """The whole report.

    Raises:
        ValueError: no notebook of the assignment was run, or one has changed since.
    """
    names = [name for name, part in PARTS.items() if part.assignment == assignment]
    found = {name: read_results(name, "full", root) or read_results(name, "lite", root) for name in names}
    runs = {name: result for name, result in found.items() if result}
    if not runs:
        raise ValueError(f"no notebook of {assignment} was run: make notebook N={names[0][:2]} PROFILE=lite")
    if old := {name.split(".")[0] for name in stale(root)} & set(runs):
        raise ValueError(f"{', '.join(sorted(old))} changed after it was run: run it again")
    references: dict[str, None] = {}
    for name, result in runs.items():
        notebook = read(root / "notebooks" / f"{name}.ipynb")
        yield from _chapter(notebook.cells, result, references)
    yield Piece("text", "# How this was made")
    yield Piece("table", _provenance(runs))
    yield Piece("text", "# References\n\n" + "\n".join(sorted(references)))


def _chapter(cells: Iterable[Any], result: dict[str, Any], references: dict[str, None]) -> Iterator[Piece]:
    """One notebook; its references are collected."""
    left, skipped = list(result["order"]), False
    for cell in cells:
        if cell.cell_type == "markdown":
            for part in re.split(r"(?m)^(?=#+ )", cell.source):
                if part.startswith("#"):
                    skipped = bool(LEFT_OUT.match(part))
                if re.match(r"#+ References", part):
                    references.update(dict.fromkeys(_entries(part)))
                elif not skipped and part.strip():
                    yield Piece("text", _cleaned(part))
        else:
            yield from _shown(cell.source, left, result)
    if left:
        raise ValueError(f"{result['notebook']}: no cell shows {' '.join(left[0])!r}, which its results file holds")


def _entries(part: str) -> list[str]:
    """The entries of a list of references, each on one line."""
    return [" ".join(entry.split()) for entry in re.split(r"(?m)^(?=- )", part)[1:]]


def _cleaned(text: str) -> str:
    """A notebook's Markdown without badges, and with the number that its title begins with taken away."""
    text = re.sub(r"(?m)^\[!\[Open in Colab\].*\n?", "", text)
    return re.sub(r"(?m)^# \d+ · ", "# ", text).strip()


def _shown(source: str, left: list[list[str]], result: dict[str, Any]) -> Iterator[Piece]:
    """What a cell's calls of `run` have shown: as many of the next results as fit their names."""
    calls = [(kind, ".*" if kind == "finding" else _pattern(name)) for kind, name in CALL.findall(source)]
    while left and any(kind == left[0][0] and re.fullmatch(pattern, left[0][1]) for kind, pattern in calls):
        kind, key = left.pop(0)
        content = result[f"{kind}s"][key]
        yield Piece("text", content) if kind == "finding" else Piece(kind, content)


def _pattern(name: str) -> str:
    """What a name can be that is written `f"history_{name}"`, or by a variable."""
    return re.escape(re.sub(r"\{[^}]*\}", "\0", name)).replace(re.escape("\0"), ".*") or ".*"


def _provenance(runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    rows = [
        [name, run["profile"], run["seed"], run["device"], run["precision"], round(run["seconds"] / 60), run["date"],
         "; ".join(f"{data['name']} {data.get('split', '')} ({data['examples']:,})" for data in run["data"]),
         run["code_sha256"][:12]]
        for name, run in runs.items()
    ]  # fmt: skip
    columns = ["notebook", "profile", "seed", "device", "precision", "minutes", "date", "data (images)", "code"]
    return {"caption": "What was run, on what, and the hash of its code", "columns": columns, "rows": rows}


def write_document(assignment: str, form: str, folder: Path, details: Details, template: Path | None = None,
          root: Path | None = None) -> Path:  # fmt: skip
    """Write the report into `folder`; `template` is a .docx whose styles are taken."""
    if template is not None and not template.is_file():
        raise ValueError(f"{template} is not a file: give the course's .docx")
    root = root or project_root()
    target = folder / f"{assignment}.{form}"
    pieces = list(blocks(assignment, root))
    files = [content["file"] for kind, content in pieces if kind == "figure"]
    if missing := [name for name in files if not (root / "reports" / name).is_file()]:  # pandoc would leave them out
        raise ValueError(f"{missing[0]} is missing: run its notebook again")
    with replacing(target) as temporary:
        if form == "md":
            heads = [f"# {details.title}", *details.students, details.course, details.date]
            temporary.write_text("\n\n".join(filter(None, heads)) + "\n\n" + as_markdown(pieces))
        else:
            sized = [_sized(piece, root / "reports") if piece.kind == "figure" else piece for piece in pieces]
            _convert(as_pandoc(sized), details, root / "reports", temporary, form, template)
    return target


def _sized(figure: Piece, folder: Path) -> Piece:
    """The figure with its width in per cent of the page's; a tall one is narrower, so that its caption fits below."""
    try:
        with Image.open(folder / figure.content["file"]) as image:
            ratio = image.height / image.width
    except OSError as error:
        raise ValueError(f"{figure.content['file']} is damaged: run its notebook again") from error
    return Piece("figure", figure.content | {"width": round(100 * min(1.0, TALLEST / ratio))})


def _convert(text: str, details: Details, figures: Path, target: Path, form: str, template: Path | None) -> None:
    try:
        import pypandoc
        import typst

        from .word import finish
    except ModuleNotFoundError as error:  # Colab has only what notebooks import
        missing = "pip install pypandoc-binary python-docx typst"
        raise ValueError(f"a .{form} needs what is not installed here: {missing}") from error
    meta = {"title": details.title, "subtitle": details.course, "author": details.students, "date": details.date}
    text = f"---\n{json.dumps(meta, ensure_ascii=False)}\n---\n\n{text}"
    options = ["--toc", "--toc-depth=2", "--lof", "--lot", f"--resource-path={figures}"]
    if form == "docx":
        options += [f"--reference-doc={template}"] if template else []
        pypandoc.convert_text(text, "docx+native_numbering", "markdown", options, outputfile=target)
        finish(target)
        return
    style = Path(__file__).parent / "templates" / "report.typ"
    made = pypandoc.convert_text(text, "typst", "markdown", [*options, "--standalone", f"--include-in-header={style}"])
    bare = "\n  )]\n  , kind: table"  # of a table without a caption: it takes no number
    source = figures / f".{target.stem}.typ"  # beside the figures, which it names
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"  # DejaVu Sans knows Persian
    try:
        source.write_text(made.replace(bare, f"{bare}, numbering: none, outlined: false"))
        target.write_bytes(typst.compile(str(source), root=str(figures), font_paths=[str(fonts)]))
    except typst.TypstError as error:  # a damaged figure, say
        raise ValueError(f"typst cannot set it: {str(error).splitlines()[0]}") from error
    finally:
        source.unlink(missing_ok=True)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = Parser(prog="python -m helpers.course.document", description="Write an assignment's report.")
    parser.add_argument("assignment", choices=TITLES)
    parser.add_argument("--format", choices=FORMATS, default="docx")
    parser.add_argument("--template", type=Path, metavar="DOCX", help="the course's .docx: its styles are taken")
    parser.add_argument(
        "--details", type=Path, metavar="TOML", help="title, course, date, students: see CONTRIBUTING.md"
    )
    parser.add_argument("--output", type=Path, default=Path("build/report"), metavar="FOLDER")
    options = parser.parse_args(arguments)
    try:
        details = read_details(options.details, options.assignment)
        tqdm.write(str(write_document(options.assignment, options.format, options.output, details, options.template)))
    except (ValueError, OSError, RuntimeError, argparse.ArgumentTypeError) as error:
        sys.exit(f"No report was written: {error}")


if __name__ == "__main__":
    main()
