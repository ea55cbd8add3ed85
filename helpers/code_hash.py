"""The hash of a notebook's code cells, which ties a results file to the code that wrote it.

Apart from `notebooks`, because every run needs it and reading the file as plain JSON spares it seconds of imports.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path


def code_hash(sources: Iterable[str]) -> str:
    """SHA-256 of code cells in order.

    Empty cells, white space at the end of lines and the cell that starts with `# parameters` do not count: what is
    chosen there (the profile) stands in the results file by itself.
    """
    cells = ("\n".join(line.rstrip() for line in source.strip().splitlines()) for source in sources)
    return hashlib.sha256(
        "\n\0\n".join(cell for cell in cells if cell and not cell.startswith("# parameters")).encode()
    ).hexdigest()


def notebook_hash(path: Path | str) -> str:
    """`code_hash` of the code cells of a notebook file."""
    cells = json.loads(Path(path).read_text())["cells"]
    return code_hash("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def executed_hash() -> str | None:
    """`code_hash` of the cells that this kernel has run so far, the present one included.

    None outside IPython, and where a front end runs cells without keeping them (nbval does).
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    history = shell.history_manager.input_hist_raw[1:] if shell else []
    return code_hash(history) if any(history) else None
