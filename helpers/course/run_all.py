"""`python -m helpers.course.run_all`: execute the notebooks outside Jupyter and index what came out."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

import nbformat

from ..contract import tqdm
from .notebooks import code_cells, execute, run_time
from .reports import write_index
from .run import PROFILES, choose_profile, project_root


def main(arguments: list[str] | None = None) -> int:
    """Run the notebooks asked for; returns the number that failed."""
    options = _parse(arguments)
    root = project_root()
    paths = sorted((root / "notebooks").glob(f"{options.number or '[0-9][0-9]'}_*.ipynb"))
    if not paths:
        raise SystemExit(f"no notebook notebooks/{options.number}_*.ipynb")
    os.environ |= {
        "PROFILE": options.profile,
        "TQDM_DISABLE": "1",
        "OUTPUT_DIR": str(options.output),
        "CHECKPOINT_DIR": str(options.checkpoints),
    }
    if options.profile == "toy":  # seconds to train again, and a stale checkpoint would hide a change in the code
        for folder in options.checkpoints.glob("*.toy"):
            shutil.rmtree(folder)
    results = [run_one(path, options) for path in paths]
    if not options.in_place:
        tqdm.write(
            f"Open {os.path.relpath(write_index(options.output, options.profile, results))} in a browser to see them."
        )
    return sum(error is not None for _, _, error in results)


def run_one(path: Path, options: argparse.Namespace) -> tuple[Path, str, str | None]:
    """Execute one notebook; returns where it was written, how long it took, and what stopped it."""
    started, target = time.perf_counter(), path if options.in_place else options.output / path.name
    total = len(code_cells(nbformat.read(path, as_version=4)))
    with tqdm(
        total=total,
        desc=path.stem,
        unit="cell",
        bar_format="{desc}: {bar:24} {n_fmt}/{total_fmt} cells, {elapsed}",
        disable=False,
    ) as bar:
        notebook, error = execute(path, options.output, on_cell=lambda done, of: bar.update())
    if not (options.in_place and error):  # a committed notebook is only replaced by one that ran through
        nbformat.write(notebook, target)
    tqdm.write(
        f"{path.stem} ({options.profile}): {'FAILED: ' + _last_line(error) if error else 'ok'}, {run_time(started)}"
    )
    return target, run_time(started), _last_line(error) if error else None


def _last_line(error: Exception) -> str:
    """The line of a notebook's traceback that names the error."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("number", nargs="?", help="two digits, such as 01; all notebooks if left out")
    parser.add_argument("--profile", default=os.environ.get("PROFILE") or None, choices=PROFILES)
    parser.add_argument(
        "--in-place",
        action="store_true",
        help="write the executed notebook, its figures and results into the repository",
    )
    options = parser.parse_args(arguments)
    root, options.profile = project_root(), choose_profile(options.profile)
    options.output = root / "reports" if options.in_place else root / "build" / options.profile
    options.checkpoints = root / "checkpoints"
    options.output.mkdir(parents=True, exist_ok=True)
    return options


if __name__ == "__main__":
    sys.exit(min(main(), 125))
