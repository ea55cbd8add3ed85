"""Notebooks as files: whether they are fit to commit, and running them outside Jupyter."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

MAX_BYTES = 3_000_000
MACHINE_PATH = re.compile(r"/(?:home|root|Users|work|tmp|var|opt|content)/[\w.-]+")


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The code cells that hold something."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def complaints(path: Path | str) -> list[str]:
    """What keeps a notebook from being committed as executed; an empty list if nothing does."""
    path = Path(path)
    notebook = nbformat.read(path, as_version=4)
    cells = code_cells(notebook)
    outputs = [output for cell in cells for output in cell.outputs]
    text = "\n".join(
        str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", "")) for output in outputs
    )
    found = {
        f"execution counts are not 1..{len(cells)}: restart and run all": [cell.execution_count for cell in cells]
        != [*range(1, len(cells) + 1)],
        "a cell ended in an error": any(output.output_type == "error" for output in outputs),
        "widget state in the metadata (GitHub will not show the notebook)": "widgets" in notebook.metadata,
        "an output names a folder of one machine": bool(MACHINE_PATH.search(text)),
        "a warning or progress bar was left in an output": any(output.get("name") == "stderr" for output in outputs),
        f"larger than {MAX_BYTES / 1e6:.0f} MB": path.stat().st_size > MAX_BYTES,
    }
    return [complaint for complaint, bad in found.items() if bad]


def execute(
    path: Path | str,
    folder: Path | str,
    on_cell: Callable[[int, int], Any] = lambda done, of: None,
    timeout: int = 4 * 3600,
) -> tuple[NotebookNode, Exception | None]:
    """Run a notebook in a fresh kernel with `folder` as its working folder, cell by cell.

    Returns:
        The executed notebook (as far as it came) and the exception that stopped it, or None.
    """
    notebook, error = nbformat.read(path, as_version=4), None
    total = len(code_cells(notebook))
    try:
        for done, _ in enumerate(executed(notebook, folder, timeout), 1):
            on_cell(done, total)
    except Exception as stopped:  # the caller decides; what ran is kept
        error = stopped
    tidy(notebook)
    return notebook, error


def executed(
    notebook: NotebookNode, folder: Path | str, timeout: int = 4 * 3600, environment: dict[str, str] | None = None
) -> Iterator[NotebookNode]:
    """Run a notebook's code cells in a fresh kernel, one by one, and yield each with its outputs.

    Whoever stops asking for more closes it (`contextlib.closing`), which stops the kernel.

    Args:
        folder: the kernel's working folder.
        environment: the kernel's variables; None: those of this process.
    """
    from nbclient import NotebookClient

    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],  # the kernel's remarks on its transport are no business of the reader
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
    )
    with client.setup_kernel(env=environment or dict(os.environ)):
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index, execution_count=client.code_cells_executed + 1)
            if cell in code_cells(notebook):
                yield cell


def tidy(notebook: NotebookNode) -> None:
    """Take out what changes from machine to machine: progress bars, widget state, the interpreter's version."""
    for cell in code_cells(notebook):
        cell.outputs = [
            output for output in cell.outputs if not (output.get("name") == "stderr" and _is_progress(output.text))
        ]
        for output in cell.outputs:
            output.get("metadata", {}).clear()
        cell.metadata.pop("execution", None)
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}


def _is_progress(text: str) -> bool:
    return all(
        "it/s]" in line or "s/it]" in line or "?it" in line or not line.strip() for line in re.split(r"[\r\n]", text)
    )


def run_time(started: float) -> str:
    """Time since `started` (of `time.perf_counter`) as `1:05 min`."""
    seconds = round(time.perf_counter() - started)
    return f"{seconds // 60}:{seconds % 60:02d} min"
