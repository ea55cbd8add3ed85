"""Models between notebooks: loaded while the owner's code is what trained them, else trained by its own cells."""

import json

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook

from helpers.course import run as runs
from helpers.course.code_hash import hash_until_saved
from helpers.course.models import trained
from helpers.course.run import Run
from helpers.training.checkpoints import CheckpointError, weights_checksum

CELLS = [
    "# parameters\nPROFILE = 'full'",
    "# setup\nraise RuntimeError('nothing is to be installed again')",
    "import torch\nfrom pathlib import Path\nfrom helpers.course.run import Run, checkpoint_root, output_root",
    "run = Run('01_owner', PROFILE)\nnotes = checkpoint_root() / 'notes'\nnotes.parent.mkdir(exist_ok=True)",
    "from helpers.models import normalized, small_cnn\nlr = 0.1",
    "torch.manual_seed(0)\nmodel = normalized(small_cnn(4), (0.5,) * 3, (0.25,) * 3)\nmodel.network[-1].bias.data.fill_(lr)",
    "with notes.open('a') as file:\n    file.write('trained ')",
    "run.save_model('clean', model, 'small_cnn', {'classes': 4}, {'lr': lr})",
    "with notes.open('a') as file:\n    file.write('too far ')",
    "run.save_model('noisy', model, 'small_cnn', {'classes': 4}, {'lr': lr})\nrun.finish('')",
]  # fmt: skip


@pytest.fixture
def owner(tmp_path, monkeypatch):
    """A function that writes the owner's notebook, with some text of its cells replaced."""
    root = tmp_path / "a project"
    (root / "notebooks").mkdir(parents=True)
    monkeypatch.setattr(runs, "project_root", lambda: root)

    def write(old="", new=""):
        notebook = new_notebook(cells=[new_code_cell(cell.replace(old, new) if old else cell) for cell in CELLS])
        nbformat.write(notebook, root / "notebooks/01_owner.ipynb")
        return root / "notebooks/01_owner.ipynb"

    write()
    return write


def notes(tmp_path):
    return (tmp_path / "checkpoint_dir/notes").read_text().split()


def bias(model):
    return model.network[-1].bias[0].item()


def test_a_missing_model_executes_the_owners_cells_until_it_is_saved(owner, tmp_path, capsys):
    run = Run("03_user", "toy")
    model = trained(run, "01_owner", "clean")
    assert notes(tmp_path) == ["trained"]
    assert not model.training
    assert bias(model) == pytest.approx(0.1)
    said = capsys.readouterr().out
    assert said == (
        "no model was saved in 01_owner.toy/clean: executing the cells of notebook 01_owner (toy) until 'clean' is saved\n"
    )
    card = json.loads((tmp_path / "checkpoint_dir/01_owner.toy/clean/model.json").read_text())
    assert (card["notebook"], card["profile"], card["settings"]) == ("01_owner", "toy", {"lr": 0.1})
    assert card["code"] == hash_until_saved(owner(), "clean")

    assert weights_checksum(trained(run, "01_owner", "clean")) == weights_checksum(model)  # now it is only loaded
    assert notes(tmp_path) == ["trained"]
    assert capsys.readouterr().out == ""
