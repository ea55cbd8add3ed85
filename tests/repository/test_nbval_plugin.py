"""`make nbtest` in several processes: a notebook stays whole, and so do those that need each other's models."""

import json
import re

import pytest
from conftest import ROOT
from nbval_plugin import TOGETHER, Notebooks

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NEEDED = re.compile(r"""\btrained\(\s*run,\s*["'](\d\d_)""")


def needed_by(path):
    """The numbers of the notebooks whose models this one loads."""
    cells = json.loads(path.read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return set(NEEDED.findall(code))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_who_needs_a_model_runs_beside_its_owner(path):
    if needed := needed_by(path):
        assert {path.name[:3], *needed} <= set(TOGETHER), "add it to TOGETHER in tests/nbval_plugin.py"


def test_some_notebook_needs_another():
    assert {name for path in NOTEBOOKS for name in needed_by(path)} >= {"01_"}


def test_cells_of_a_notebook_are_one_group():
    group = lambda nodeid: Notebooks._split_scope(None, nodeid)  # noqa: E731
    assert group("notebooks/09_gaze::ipynb::Cell 1") == group("notebooks/09_gaze::ipynb::Cell 2")
    assert group("notebooks/09_gaze::ipynb::Cell 1") != group("notebooks/08_leaf::ipynb::Cell 1")
    assert group("notebooks/01_noisy::ipynb::Cell 1") == group("notebooks/04_cam::ipynb::Cell 2")
