"""A model that another notebook trains: loaded, or trained by that notebook's own cells."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from torch import nn

from ..contract import tqdm
from ..models.saved import Saved, load_model, read_card, shared_folder
from ..training.checkpoints import CheckpointError
from .code_hash import hash_until_saved
from .run import Run, checkpoint_root, notebook_path, project_root


def trained(run: Run, notebook: str, name: str) -> nn.Module:
    """The model that `notebook` saves as `name` in this run's profile, on the run's device, in eval mode.

    It is loaded, from the checkpoints or from `$DATA_ROOT/models`, if the code cells that led to it are those of the
    notebook as it is now. Else one line says why not, and these cells are executed in a fresh kernel until the model is
    there; that kernel's results and figures are thrown away, its checkpoints are kept.

    Raises:
        CheckpointError: the notebook saves no such model, or one of its cells failed.
    """
    code = hash_until_saved(notebook_path(notebook), name)
    if code is None:
        raise CheckpointError(f"no cell of notebooks/{notebook}.ipynb calls save_model({name!r}, ...)")
    folder = run.folder(name, notebook)
    saved = _saved(folder, code, run.profile)
    if isinstance(saved, str):
        given = _saved(shared_folder(folder.parent.name, name), code, run.profile)
        saved = saved if isinstance(given, str) else given
    if isinstance(saved, str):
        tqdm.write(f"{saved}, so the cells of notebook {notebook} are executed ({run.profile}) until {name!r} is saved")
        saved = _execute(run, notebook, name, folder, code)
    return saved.model.to(run.device)


def _saved(folder: Path, code: str, profile: str) -> Saved | str:
    """The model in `folder`, or why it cannot be taken."""
    try:
        card, name = read_card(folder), f"{folder.parent.name}/{folder.name}"
        if card.get("profile") != profile:
            return f"{name} was trained in profile {card.get('profile')}"
        if card.get("code") != code:
            return f"{name} was not trained by the code that its notebook has now"
        return load_model(folder)
    except CheckpointError as error:
        return str(error).splitlines()[0]


def _execute(run: Run, notebook: str, name: str, folder: Path, code: str) -> Saved:
    """Run the owner's cells until the model is up to date, and load it."""
    import nbformat  # slow, as nbclient, and seldom needed

    from .notebooks import code_cells, executed

    owner = nbformat.read(notebook_path(notebook), as_version=4)
    for cell in code_cells(owner):
        if cell.source.startswith("# parameters"):
            cell.source += f"\nPROFILE = {run.profile!r}"
        elif cell.source.startswith("# setup"):  # `helpers` is here already
            cell.source = ""
    total = len(code_cells(owner))
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch,
        tqdm(total=total, desc=notebook, unit="cell", leave=False) as bar,
        closing(executed(owner, scratch, environment=_environment(run, scratch))) as cells,
    ):
        number = 0  # the bar's own count stands still where bars are switched off
        while isinstance(saved := _saved(folder, code, run.profile), str):
            number += 1
            if not _next(cells, notebook, number):
                raise CheckpointError(f"notebook {notebook} ran to its end, but saved no up-to-date {name!r}")
            bar.update()
    return saved


def _next(cells: Iterator[Any], notebook: str, number: int) -> bool:
    """Run one more cell; False if there is none."""
    try:
        return next(cells, None) is not None
    except Exception as error:  # what the cell raised, or what became of its kernel
        name, text = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", error)
        raise CheckpointError(f"code cell {number} of notebook {notebook} failed: {name}: {text}") from None


def _environment(run: Run, scratch: str) -> dict[str, str]:
    """This process's variables, with folders that mean the same in another working folder."""
    paths = {key: str(Path(os.environ[key]).resolve()) for key in ("DATA_ROOT",) if os.environ.get(key)}
    python = os.pathsep.join(filter(None, [str(project_root()), os.environ.get("PYTHONPATH")]))
    return (
        dict(os.environ)
        | paths
        | {
            "PROFILE": run.profile,
            "CHECKPOINT_DIR": str(checkpoint_root().resolve()),
            "OUTPUT_DIR": scratch,
            "TQDM_DISABLE": "1",
            "PYTHONPATH": python,
        }
    )
