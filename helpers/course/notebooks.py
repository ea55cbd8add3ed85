"""Notebooks as files: whether they are fit to commit, and running them outside Jupyter."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from .pictures import compact

MAX_BYTES = 3_000_000
MACHINE_PATH = re.compile(r"/(?:home|root|Users|work|tmp|var|opt|content)/[\w.-]+")
PROGRESS = re.compile(r"\[\d[\d:]*(?:<|, ).*\]|(?:it/s|s/it)\]|\?it")  # the end of a line of tqdm
WIDGET = "application/vnd.jupyter.widget-view+json"


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The code cells that hold something."""
    return [cell for cell in notebook.cells if _is_code(cell)]


def _is_code(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and bool(cell.source.strip())


def read(path: Path | str) -> NotebookNode:
    """A notebook in format 4; ValueError says in one line that the file is none."""
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except (ValueError, AttributeError, KeyError, TypeError, nbformat.ValidationError) as error:
        raise ValueError(
            f"{Path(path).name} is broken or no notebook: open it in JupyterLab and save it again"
        ) from error
    return notebook


def unfinished(notebook: NotebookNode) -> list[str]:
    """What shows that a notebook was not run from top to bottom; an empty list if nothing does."""
    cells = code_cells(notebook)
    counts = [cell.execution_count for cell in cells]
    found = {
        f"execution counts are not 1..{len(cells)}: restart and run all": counts != [*range(1, len(cells) + 1)],
        "a cell ended in an error": any(output.output_type == "error" for cell in cells for output in cell.outputs),
    }
    return [complaint for complaint, bad in found.items() if bad]


def complaints(path: Path | str) -> list[str]:
    """What keeps a notebook from being committed as executed; an empty list if nothing does."""
    path = Path(path)
    notebook = read(path)
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    text = "\n".join(
        str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", "")) for output in outputs
    )
    found = {
        "widget state in the metadata (GitHub will not show the notebook)": "widgets" in notebook.metadata,
        "an output names a folder of one machine": bool(MACHINE_PATH.search(text)),
        "a warning or progress bar was left in an output": any(output.get("name") == "stderr" for output in outputs),
        f"larger than {MAX_BYTES / 1e6:.0f} MB": path.stat().st_size > MAX_BYTES,
    }
    return unfinished(notebook) + [complaint for complaint, bad in found.items() if bad]


class _Client(NotebookClient):
    """For nbclient a Ctrl-C is the end of one kernel, and so of one cell; here it ends the run, and at once."""

    stopped = False

    async def async_start_new_kernel(self, **kwargs: Any) -> None:
        task = asyncio.current_task()

        def stop() -> None:
            if not self.stopped:  # a second Ctrl-C must not end the cleaning up
                self.stopped, self.shutdown_kernel = True, "immediate"
                task.cancel()

        with contextlib.suppress(NotImplementedError, RuntimeError):  # Windows; not in the main thread
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop)
        await super().async_start_new_kernel(**kwargs)


def execute(
    path: Path | str,
    folder: Path | str,
    on_cell: Callable[[int, int], Any] = lambda done, of: None,
    timeout: int = 4 * 3600,
) -> tuple[NotebookNode, Exception | None]:
    """Run a notebook in a fresh kernel with `folder` as its working folder, cell by cell.

    Returns:
        The executed notebook (as far as it came) and the exception that stopped it, or None.

    Raises:
        KeyboardInterrupt: Ctrl-C; the kernel is gone then.
    """
    notebook, done = nbformat.read(path, as_version=4), []
    total = len(code_cells(notebook))
    client = _Client(
        notebook, on_cell_executed=lambda **_: on_cell(len(done.append(0) or done), total), **_options(folder, timeout)
    )
    error = None
    try:
        client.execute()
    except (Exception, asyncio.CancelledError) as stopped:  # the caller decides; what ran is kept
        if client.stopped:
            raise KeyboardInterrupt from None
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
    client = NotebookClient(notebook, **_options(folder, timeout))
    with client.setup_kernel(env=environment or dict(os.environ)):
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index, execution_count=client.code_cells_executed + 1)
            if _is_code(cell):
                yield cell


def _options(folder: Path | str, timeout: int) -> dict[str, Any]:
    return {
        "timeout": timeout,
        "kernel_name": "python3",
        "extra_arguments": ["--log-level=ERROR"],  # the kernel's remarks on its transport are no reader's business
        "resources": {"metadata": {"path": str(folder)}},
        "record_timing": False,
    }


def tidy(notebook: NotebookNode) -> None:
    """Take out what changes from machine to machine (progress bars, widgets, Python's version); make pictures small."""
    for cell in code_cells(notebook):
        cell.outputs = [output for output in cell.outputs if _tidy_output(output)]
        cell.metadata.pop("execution", None)
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}


def _tidy_output(output: NotebookNode) -> bool:
    """Clean one output in place; False if nothing is left of it. Of a widget its text stays, unless it is a bar."""
    output.get("metadata", {}).clear()
    if output.get("name") == "stderr":
        lines = re.split(r"(?<=[\r\n])", output.text)
        output.text = "".join(line for line in lines if not PROGRESS.search(line)).lstrip("\r")
        return bool(output.text.strip())
    data = output.get("data", {})
    if data.pop(WIDGET, None) and PROGRESS.search(str(data.get("text/plain", ""))):
        return False
    if "image/png" in data:
        data["image/png"] = _compact(data["image/png"])
    return bool(data) or output.output_type not in ("display_data", "execute_result")


def _compact(png: str) -> str:
    """`compact` for a PNG in base64; what is none stays as it is."""
    try:
        raw = base64.b64decode(png)
    except ValueError:
        return png
    smaller = compact(raw)
    return png if smaller is raw else base64.b64encode(smaller).decode()


def run_time(started: float) -> str:
    """Time since `started` (of `time.perf_counter`) as `1:05 min`."""
    seconds = round(time.perf_counter() - started)
    return f"{seconds // 60}:{seconds % 60:02d} min"
