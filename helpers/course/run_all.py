"""`python -m helpers.course.run_all`: execute the notebooks outside Jupyter and index what came out."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import time
from pathlib import Path

import nbformat

from ..contract import tqdm
from ..training.checkpoints import replacing
from .command import Parser
from .notebooks import code_cells, execute, read, run_time
from .outputs import results_name
from .reports import write_index
from .run import PROFILES, choose_profile, project_root

STOPPED = (
    "Stopped; the notebook is as it was. Give the same command again to go on: trainings resume where they were.",
    "Stopped; the notebook is as it was. Give the same command again to run from the start.",
)
ANSI = re.compile(r"\x1b\[[\d;]*m")


def main(arguments: list[str] | None = None) -> int:
    """Run the notebooks asked for; returns the number that failed."""
    options = _parse(arguments)
    paths = _notebooks(options)
    os.environ |= {
        "PROFILE": options.profile,
        "TQDM_DISABLE": "1",
        "OUTPUT_DIR": str(options.output),
        "CHECKPOINT_DIR": str(options.checkpoints),
    }
    for folder in (options.output, options.logs):
        folder.mkdir(parents=True, exist_ok=True)
    if options.profile == "toy":  # seconds to train again, and a stale checkpoint would hide a change in the code
        for folder in options.checkpoints.glob("*.toy"):
            shutil.rmtree(folder)
    try:
        results = [run_one(path, options) for path in paths]
    except KeyboardInterrupt:
        raise SystemExit(STOPPED[options.profile == "toy"]) from None
    if not options.in_place:
        tqdm.write(
            f"Open {os.path.relpath(write_index(options.output, options.profile, results))} in a browser to see them."
        )
    _repeat_failures([path.stem for path, _, error in results if error], options.logs)
    return sum(error is not None for _, _, error in results)


def run_one(path: Path, options: argparse.Namespace) -> tuple[Path, str, str | None]:
    """Execute one notebook; returns where it was written, how long it took, and what stopped it."""
    started, target = time.perf_counter(), path if options.in_place else options.output / path.name
    total = len(code_cells(read(path)))
    with tqdm(
        total=total,
        desc=path.stem,
        unit="cell",
        bar_format="{desc}: {bar:24} {n_fmt}/{total_fmt} cells, {elapsed}",
        disable=False,
    ) as bar:
        notebook, error = execute(path, options.output, on_cell=lambda done, of: bar.update())
    if not (options.in_place and error):  # a committed notebook is only replaced by one that ran through
        with replacing(target) as temporary:
            nbformat.write(notebook, temporary)
    message = _failure(error, options.logs / f"{path.stem}.traceback.txt")
    tqdm.write(f"{path.stem} ({options.profile}): {'FAILED: ' + message if message else 'ok'}, {run_time(started)}")
    return target, run_time(started), message


def _repeat_failures(names: list[str], logs: Path) -> None:
    """Once more at the end, where one looks first (and where a log of other machines is cut): where each one broke."""
    for name in names:
        lines = [line for line in (logs / f"{name}.traceback.txt").read_text().splitlines() if line.strip()]
        tqdm.write("\n".join([f"\n{name} FAILED, at", *lines[-12:]]))


def _failure(error: Exception | None, log: Path) -> str | None:
    """The whole message of what stopped a notebook; its traceback goes into `log`, which a good run removes."""
    if error is None:
        log.unlink(missing_ok=True)
        return None
    log.write_text(ANSI.sub("", str(error)))
    name, message = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", str(error))
    return f"{name}: {ANSI.sub('', message)}\n(traceback in {os.path.relpath(log)})"


def _notebooks(options: argparse.Namespace) -> list[Path]:
    """The notebooks asked for; one line and no run where there is none, or one would lose a longer run."""
    folder = project_root() / "notebooks"
    paths = sorted(folder.glob(f"{options.number or '[0-9][0-9]'}_*.ipynb"))
    if not paths:
        there = ", ".join(path.name[:2] for path in sorted(folder.glob("[0-9][0-9]_*.ipynb")))
        raise SystemExit(f"no notebook has the number {options.number}: there are {there}")
    for path in paths if options.in_place and not options.force else []:
        _, shown = results_name(read(path)) or ("", "toy")
        if PROFILES.index(options.profile) < PROFILES.index(shown):
            raise SystemExit(
                f"{path.name} holds a {shown} run, which a {options.profile} run would replace: "
                "add FORCE=1 (--force) if that is meant"
            )
    return paths


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m helpers.course.run_all", description=__doc__)
    parser.add_argument("number", nargs="?", help="such as 01 or 1; all notebooks if left out")
    parser.add_argument("--profile", choices=PROFILES, help="default: $PROFILE")
    parser.add_argument(
        "--in-place",
        action="store_true",
        help="write the executed notebook, its figures and results into the repository",
    )
    parser.add_argument("--force", action="store_true", help="let a smaller profile replace a committed run")
    options, root = parser.parse_args(arguments), project_root()
    if options.in_place and not (options.number and options.profile):
        parser.error("needs a number and a profile, such as: make notebook N=01 PROFILE=lite")
    if options.number and not re.fullmatch("[0-9]{1,2}", options.number):
        parser.error(f"{options.number!r} is not the number of a notebook, such as 01")
    try:
        options.profile = choose_profile(options.profile)
    except ValueError as error:
        parser.error(str(error))
    options.number = options.number and options.number.zfill(2)
    options.logs = root / "build" / options.profile
    options.output = root / "reports" if options.in_place else options.logs
    options.checkpoints = root / "checkpoints"
    return options


if __name__ == "__main__":
    sys.exit(min(main(), 125))
