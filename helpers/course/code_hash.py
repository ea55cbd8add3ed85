"""The hash of a notebook's code cells, which ties a results file to the code that wrote it.

Apart from `notebooks`, because every run needs it and reading the file as plain JSON spares it seconds of imports.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path

NOT_COUNTED = ("# parameters", "# setup")  # the first line of cells that choose or install, and compute nothing
SHELL = re.compile(r"^(\s*)[!%].*$", re.MULTILINE)


def code_hash(sources: Iterable[str]) -> str:
    """SHA-256 of code cells in order.

    What changes no result does not count: empty cells, white space at the end of lines, import statements, statements
    `run.save_model(...)`, and the cells that start with `# parameters` or `# setup` (the profile that is chosen there
    stands in the results file).
    """
    cells = ("\n".join(_counted(source)) for source in sources)
    return hashlib.sha256("\n\0\n".join(cell for cell in cells if cell).encode()).hexdigest()


def _counted(source: str) -> list[str]:
    """The lines of a cell that count."""
    source = source.strip()
    if source.startswith(NOT_COUNTED):
        return []
    lines = (line.rstrip() for line in _without_silent(source).splitlines())
    return [line for line in lines if line]


def _without_silent(source: str) -> str:
    """The cell without the statements that change no result."""
    try:
        tree = _parsed(source)
    except SyntaxError:  # an unfinished cell: all of it counts
        return source
    lines = [line.encode() for line in source.splitlines()]  # the offsets of `ast` count bytes
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) or _only_saves(node):
            first, last = node.lineno - 1, node.end_lineno - 1
            rest = lines[last][node.end_col_offset :]
            lines[first] = lines[first][: node.col_offset] + (b"" if first != last else rest)
            for number in range(first + 1, last):
                lines[number] = b""
            if first != last:
                lines[last] = rest
    return b"\n".join(lines).decode()


def _only_saves(node: ast.AST) -> bool:
    """Whether it is a statement `run.save_model(...)` that computes nothing in its arguments."""
    if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        return False
    inner = [part for part in ast.walk(node.value) if isinstance(part, ast.Call) and part is not node.value]
    return ast.unparse(node.value.func) == "run.save_model" and all(
        ast.unparse(call.func) in ("dict", "len") for call in inner
    )


def notebook_hash(path: Path | str) -> str:
    """`code_hash` of the code cells of a notebook file."""
    return code_hash(_sources(path))


def hash_until_saved(path: Path | str, name: str) -> str | None:
    """`code_hash` of the cells up to and including the last with a call `<...>.save_model("<name>", ...)`.

    None: there is no such cell, or no such notebook.
    """
    sources = _sources(path) if Path(path).is_file() else []
    saving = [number for number, source in enumerate(sources) if _saves(source, name)]
    return code_hash(sources[: saving[-1] + 1]) if saving else None


def _sources(path: Path | str) -> list[str]:
    cells = json.loads(Path(path).read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def _saves(source: str, name: str) -> bool:
    try:
        tree = _parsed(source)
    except SyntaxError:
        return False
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute))
    return any(
        call.func.attr == "save_model" and isinstance(call.args[0], ast.Constant) and call.args[0].value == name
        for call in calls
        if call.args
    )


def _parsed(source: str) -> ast.Module:
    return ast.parse(SHELL.sub(r"\1pass", source))


def executed_hash() -> str | None:
    """`code_hash` of the cells that this kernel has run so far, the present one included.

    None outside IPython, and where a front end runs cells without keeping them (nbval does).
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    history = shell.history_manager.input_hist_raw[1:] if shell else []
    return code_hash(history) if any(history) else None
