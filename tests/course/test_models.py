"""Models between notebooks: loaded while the owner's code is what trained them, else trained by its own cells."""

import os
import shutil

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from helpers.course import notebooks
from helpers.course import run as runs
from helpers.course.code_hash import hash_until_saved
from helpers.course.models import trained
from helpers.course.run import Run
from helpers.models.saved import load_model
from helpers.training.checkpoints import CheckpointError, weights_checksum

CELLS = [
    "# parameters\nPROFILE = 'full'",
    "# setup\nraise RuntimeError('nothing is to be installed again')",
    "import torch\nfrom helpers.course.run import Run, checkpoint_root, output_root",
    "run = Run('01_owner', PROFILE)\nnotes = checkpoint_root() / 'notes'\nnotes.parent.mkdir(exist_ok=True)",
    "from helpers.models import normalized, small_cnn\nlr = 0.1",
    "torch.manual_seed(0)\nmodel = normalized(small_cnn(4), (0.5,) * 3, (0.25,) * 3)",
    "model.network[-1].bias.data.fill_(lr)",
    "with notes.open('a') as file:\n    file.write('trained ')",
    "run.finish('written too early')",
    "run.save_model('clean', model, 'small_cnn', {'classes': 4}, {'lr': lr})",
    "with notes.open('a') as file:\n    file.write('further ')",
    "run.save_model('noisy', model, 'small_cnn', {'classes': 4}, {'lr': lr})",
]
SO = "so the cells of notebook 01_owner are executed (toy) until 'clean' is saved\n"


def write(path, *sources):
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in sources], metadata=kernel), path)
    return path


@pytest.fixture
def owner(tmp_path, monkeypatch):
    """A function that replaces some text in the cells of the owner's notebook."""
    root, sources = tmp_path / "a project", list(CELLS)
    (root / "notebooks").mkdir(parents=True)
    monkeypatch.setattr(runs, "project_root", lambda: root)

    def edit(old="", new=""):
        sources[:] = (cell.replace(old, new) if old else cell for cell in sources)
        return write(root / "notebooks/01_owner.ipynb", *sources)

    edit()
    return edit


@pytest.fixture
def here(monkeypatch):
    """The owner's cells run in this process, which spares a kernel."""

    def executed(notebook, folder, environment):
        with monkeypatch.context() as patch:
            for name in ("PROFILE", "CHECKPOINT_DIR", "OUTPUT_DIR"):
                patch.setenv(name, environment[name])
            scope = {}
            for cell in notebooks.code_cells(notebook):
                exec(cell.source, scope)
                yield cell

    monkeypatch.setattr(notebooks, "executed", executed)


def notes(tmp_path):
    return (tmp_path / "checkpoint_dir/notes").read_text().split()


def bias(model):
    return model.network[-1].bias[0].item()


def test_in_a_kernel_the_owners_cells_run_in_another_one(owner, tmp_path):
    user = write(
        tmp_path / "03_user.ipynb",
        f"from pathlib import Path\nfrom helpers.course import run as runs\nroot = Path({str(owner().parents[1])!r})",
        "runs.project_root = lambda: root",
        "from helpers.course.models import trained\nrun = runs.Run('03_user', 'toy')",
        "model = trained(run, '01_owner', 'clean')",
        "again = trained(run, '01_owner', 'clean')",
        "print(model.network[-1].bias[0].item(), model.training)",
    )
    notebook, error = notebooks.execute(user, tmp_path)
    assert error is None
    said = ["".join(output.get("text", "") for output in cell.outputs) for cell in notebook.cells]
    line = f"no model was saved in 01_owner.toy/clean, {SO}"
    assert said == ["", "", "", line, "", "0.10000000149011612 False\n"]
    assert notes(tmp_path) == ["trained"]
    card = load_model(tmp_path / "checkpoint_dir/01_owner.toy/clean").card
    assert (card["notebook"], card["profile"], card["settings"]) == ("01_owner", "toy", {"lr": 0.1})
    assert card["code"] == hash_until_saved(owner(), "clean")
    assert not (tmp_path / "output_dir/results").exists()


def test_a_cell_that_fails_in_the_kernel_gives_one_line(owner, tmp_path):
    path = owner()
    write(path, "import os", "class Bad(ValueError):\n    pass", "raise Bad('no such thing')", *CELLS)
    with pytest.raises(CheckpointError) as caught:
        trained(Run("03_user", "toy"), "01_owner", "clean")
    assert str(caught.value) == "code cell 3 of notebook 01_owner failed: Bad: no such thing"


@pytest.mark.usefixtures("here")
def test_only_what_is_missing_runs_and_only_once(owner, tmp_path, capsys):
    run = Run("03_user", "toy")
    first = trained(run, "01_owner", "clean")
    assert notes(tmp_path) == ["trained"]
    assert weights_checksum(trained(run, "01_owner", "clean")) == weights_checksum(first)
    assert notes(tmp_path) == ["trained"]
    assert len(capsys.readouterr().out.splitlines()) == 1
    trained(run, "01_owner", "noisy")
    assert notes(tmp_path) == ["trained", "trained", "further"]
    assert not (tmp_path / "output_dir").exists()
    assert os.environ["OUTPUT_DIR"] == str(tmp_path / "output_dir")


@pytest.mark.usefixtures("here")
def test_a_changed_learning_rate_in_the_owner_is_noticed(owner, tmp_path, capsys):
    run = Run("03_user", "toy")
    assert bias(trained(run, "01_owner", "clean")) == pytest.approx(0.1)
    owner("lr = 0.1", "lr = 0.2")
    capsys.readouterr()
    assert bias(trained(run, "01_owner", "clean")) == pytest.approx(0.2)
    said = f"01_owner.toy/clean was not trained by the code that its notebook has now, {SO}"
    assert capsys.readouterr().out == said
    owner("'further '", "'changed below'")  # what comes after the model was saved did not make it
    trained(run, "01_owner", "clean")
    assert notes(tmp_path) == ["trained", "trained"]


@pytest.mark.usefixtures("here")
def test_a_damaged_model_is_made_anew(owner, tmp_path, capsys):
    run = Run("03_user", "toy")
    trained(run, "01_owner", "clean")
    weights = tmp_path / "checkpoint_dir/01_owner.toy/clean/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    capsys.readouterr()
    assert bias(trained(run, "01_owner", "clean")) == pytest.approx(0.1)
    assert "model.safetensors does not fit this model or is damaged" in capsys.readouterr().out
    assert notes(tmp_path) == ["trained", "trained"]


@pytest.mark.usefixtures("here", "owner")
def test_the_model_of_another_profile_is_not_taken(tmp_path, capsys):
    checkpoints = tmp_path / "checkpoint_dir"
    trained(Run("03_user", "lite"), "01_owner", "clean")
    trained(Run("03_user", "toy"), "01_owner", "clean")
    assert notes(tmp_path) == ["trained", "trained"]
    shutil.copytree(checkpoints / "01_owner.lite", checkpoints / "01_owner.toy", dirs_exist_ok=True)
    capsys.readouterr()
    trained(Run("03_user", "toy"), "01_owner", "clean")
    assert capsys.readouterr().out == f"01_owner.toy/clean was trained in profile lite, {SO}"


@pytest.mark.usefixtures("here")
def test_what_no_cell_saves_is_said_before_anything_runs(owner, tmp_path):
    with pytest.raises(CheckpointError, match="no cell of notebooks/01_owner.ipynb calls save_model\\('best', ...\\)"):
        trained(Run("03_user", "toy"), "01_owner", "best")
    with pytest.raises(CheckpointError, match="no cell of notebooks/02_none.ipynb calls"):
        trained(Run("03_user", "toy"), "02_none", "clean")
    owner("run.save_model('clean'", "if False: run.save_model('clean'")
    with pytest.raises(CheckpointError, match="notebook 01_owner ran to its end, but saved no up-to-date 'clean'"):
        trained(Run("03_user", "toy"), "01_owner", "clean")


def test_the_hash_ends_with_the_last_cell_that_saves_the_model(tmp_path):
    saving = "runs[0].save_model('clean', 1)"
    sources = ["!pip list\na = 1", saving, "b = 2", f"if b:\n    {saving}", "c = 3", "other.save_model('noisy')"]
    whole = hash_until_saved(write(tmp_path / "a.ipynb", *sources), "clean")
    assert whole == hash_until_saved(write(tmp_path / "a.ipynb", *sources[:4]), "clean")
    assert whole != hash_until_saved(write(tmp_path / "a.ipynb", *sources[:2]), "clean")
    assert whole != hash_until_saved(write(tmp_path / "a.ipynb", "a = 2", *sources[1:]), "clean")
    quoted = ["# run.save_model('clean', 1)", "text = \"run.save_model('clean', 1)\"", "save_model('clean')", "a ="]
    assert hash_until_saved(write(tmp_path / "a.ipynb", *quoted), "clean") is None
