"""Pack a hand-in: `python -m helpers.course.submission --homework 1 --student Ahmadi 810199101 report.pdf 01.ipynb`."""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import nbformat

from ..contract import tqdm
from ..training.checkpoints import CheckpointError, replacing
from .code_hash import notebook_hash
from .command import Parser
from .document import Details, write_document
from .notebooks import read, tidy, unfinished
from .outputs import contradictions, results_name
from .reports import PARTS, TITLES
from .run import output_root, project_root

REPORTS = (".pdf", ".docx", ".doc", ".odt")
NEEDED = ("Makefile", "pyproject.toml", "requirements.txt", "constraints.txt", "overrides.txt")  # to run it elsewhere
FREE_DAYS, PENALTIES = 3, (0.05, 0.10, 0.15, 0.20)  # lost on the fourth to the seventh day; after that everything


def late_penalty(days: int) -> float:
    """The share of the points that is lost `days` after the deadline (0 or less: in time)."""
    over = days - FREE_DAYS
    return 0.0 if over <= 0 else PENALTIES[over - 1] if over <= len(PENALTIES) else 1.0


def lateness(deadline: date, handed_in: date) -> str:
    """The penalty in words."""
    days = (handed_in - deadline).days
    if days <= 0:
        return f"In time for {deadline}."
    lost = late_penalty(days)
    left = "no penalty" if not lost else "0 points" if lost == 1 else f"{lost:.0%} of the points are lost"
    return f"{days} {'day' if days == 1 else 'days'} after {deadline}: {left}."


def checked_students(students: list[tuple[str, str]], digits: int = 9) -> list[tuple[str, str]]:
    """One or two pairs of last name and number as they stand in the archive's name; ValueError says what is wrong."""
    if not 1 <= len(students) <= 2:
        raise ValueError(f"a hand-in has one or two students, not {len(students)}: give --student once or twice")
    found = [(_last_name(name), number) for name, number in students]
    for name, number in found:
        if not re.fullmatch(rf"[0-9]{{{digits}}}", number):
            raise ValueError(
                f"{number!r} of {name} is no student number: write {digits} digits (--digits for another length)"
            )
    if len({number for _, number in found}) < len(found):
        raise ValueError(f"student {found[0][1]} is named twice: give each student once")
    return found


def _last_name(name: str) -> str:
    joined = re.sub(r"[\s\u200c'’-]", "", name)  # \u200c: the half space inside Persian names
    if not re.fullmatch(r"[^\W\d_]+", joined):
        raise ValueError(f"{name!r} is no last name: write --student LASTNAME NUMBER, the name in letters")
    return joined


def submission(
    homework: int, students: list[tuple[str, str]], files: list[Path], folder: Path, digits: int = 9
) -> tuple[Path, list[str]]:
    """Pack a hand-in as `HW1_Ahmadi_810199101_Bagheri_810199102.zip`, with all it takes to run the notebooks.

    Progress bars and widgets are taken out of the notebooks in the archive; the files themselves stay as they are.

    Args:
        students: one or two pairs of last name and student number.
        files: the report, the executed notebooks, and whatever else belongs to them. Without a report one is written
            from the results of the assignment that the notebooks belong to.

    Returns:
        The archive, and remarks on what could not be checked.

    Raises:
        ValueError: in one line what is wrong and what to do; nothing is written then.
    """
    names = "_".join(word for student in checked_students(students, digits) for word in student)
    remarks: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        if assignment := _without_report(files):
            files = [*files, _written(assignment, homework, students, Path(scratch))]
            remarks.append(
                f"{files[-1].name} was written from the results of {assignment}: read it before you hand it in."
            )
        return _packed(homework, names, files, folder, remarks), remarks


def _packed(homework: int, names: str, files: list[Path], folder: Path, remarks: list[str]) -> Path:
    _check_files(files)
    packed = {_place(path): _content(path, remarks) for path in files} | dict(_course_files())
    target = folder / f"HW{homework}_{names}.zip"
    with replacing(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in packed.items():
            archive.writestr(name, content)
    return target


def _without_report(files: list[Path]) -> str | None:
    """The assignment whose report is missing among the files; None if there is a report, or no single assignment."""
    assignments = {PARTS[path.stem].assignment for path in files if _is_notebook(path) and path.stem in PARTS}
    has_report = any(path.suffix.lower() in REPORTS for path in files)
    return None if has_report or len(assignments) != 1 else assignments.pop()


def _written(assignment: str, homework: int, students: list[tuple[str, str]], folder: Path) -> Path:
    named = [f"{name} ({number})" for name, number in students]
    details = Details(TITLES[assignment], f"Homework {homework}", named, date.today().isoformat())
    try:
        return write_document(assignment, "docx", folder, details)
    except ValueError as error:
        raise ValueError(f"there is no report, and none could be written: {error}") from error


def _check_files(files: list[Path]) -> None:
    """ValueError: a file is missing, empty or named twice, or there is no report or no notebook."""
    seen = {Path(name).name.lower(): Path(name) for name in NEEDED}  # these are packed anyway
    for path in files:
        if not path.is_file():
            raise ValueError(f"{path} is not a file: check its name and folder")
        if path.stat().st_size == 0:
            raise ValueError(f"{path} is empty (0 bytes): save it again")
        if path.name.lower() in seen:
            raise ValueError(f"two files are called {path.name}: rename one or leave it out")
        seen[path.name.lower()] = path
    suffixes = {path.suffix.lower() for path in files}
    if not suffixes & set(REPORTS):
        raise ValueError(f"there is no report: add it as one of {', '.join(REPORTS)}")
    if ".ipynb" not in suffixes:
        raise ValueError("there is no notebook: add the executed .ipynb files")


def _is_notebook(path: Path) -> bool:
    return path.suffix.lower() == ".ipynb"


def _place(path: Path) -> str:
    return f"notebooks/{path.name}" if _is_notebook(path) else path.name


def _content(path: Path, remarks: list[str]) -> bytes | str:
    """What goes into the archive for one file; a notebook tidied, once it has been checked."""
    if not _is_notebook(path):
        return path.read_bytes()
    notebook = read(path)
    if problems := unfinished(notebook):
        raise ValueError(f"{path.name} cannot be handed in: {'; '.join(problems)}")
    if named := results_name(notebook):
        remarks += _against_results(path, notebook, *named)
    tidy(notebook)
    return nbformat.writes(notebook)


def _against_results(path: Path, notebook: nbformat.NotebookNode, name: str, profile: str) -> list[str]:
    """ValueError where the notebook contradicts its results file; a remark where there is no such file."""
    file = output_root() / "results" / f"{name}.{profile}.json"
    if not file.is_file():
        return [f"{path.name}: its numbers were not checked, for {file} is not there."]
    results = json.loads(file.read_text())
    problems = contradictions(notebook, results)
    if results.get("code_sha256") not in (None, notebook_hash(path)):
        problems.insert(0, "its code is not the code that wrote the results file")
    if problems:
        raise ValueError(f"{path.name} contradicts {file.name}: {problems[0]}; restart the kernel, run all cells, save")
    return []


def _course_files() -> Iterator[tuple[str, bytes]]:
    """Name in the archive and content of `helpers` and of the files that install it."""
    package, root = Path(__file__).parents[1], project_root()
    for path in sorted(package.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield f"helpers/{path.relative_to(package).as_posix()}", path.read_bytes()
    for name in NEEDED:
        if (root / name).is_file():
            yield name, (root / name).read_bytes()


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date: write it as 2026-11-20") from None


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m helpers.course.submission", description="Check a hand-in and pack it.")
    parser.add_argument("--homework", type=int, required=True, metavar="N", help="number of the homework")
    parser.add_argument(
        "--student",
        nargs=2,
        action="append",
        required=True,
        metavar=("LASTNAME", "NUMBER"),
        help='give it once or twice; a name with a space in quotes: --student "Seyed Ahmadi" 810199101',
    )
    parser.add_argument("--digits", type=int, default=9, help="length of a student number (default 9)")
    parser.add_argument("--deadline", type=_day, metavar="DATE", help="such as 2026-11-20: tells what is lost")
    parser.add_argument("--on", type=_day, metavar="DATE", help="day of the hand-in (default today)")
    parser.add_argument("files", nargs="+", type=Path, help="the report and the executed notebooks")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    options = _parse(arguments)
    students = [(name, number) for name, number in options.student]
    try:
        path, remarks = submission(options.homework, students, options.files, Path.cwd(), options.digits)
    except (ValueError, OSError, CheckpointError) as error:
        sys.exit(f"Nothing was packed: {error}")
    late = [lateness(options.deadline, options.on or date.today())] if options.deadline else []
    for line in [path.name, *remarks, *late]:
        tqdm.write(line)


if __name__ == "__main__":
    main()
