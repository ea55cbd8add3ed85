"""Models to share: what is copied, what is left out and why, and that they are found where others put them."""

import json
import shutil

import pytest
import torch
from course.test_models import bias, here, owner  # noqa: F401
from safetensors.torch import load_file, save_file

from helpers.course import publish as module
from helpers.course.__main__ import COMMANDS
from helpers.course.__main__ import main as course
from helpers.course.models import trained
from helpers.course.publish import main, publish
from helpers.course.run import Run, checkpoint_root

FILES = ("model.json", "model.safetensors")


@pytest.fixture
def saved(owner, here):  # noqa: F811
    """Both models of the owner's notebook, trained."""
    for name in ("clean", "noisy"):
        trained(Run("03_other", "toy"), "01_owner", name)
    return checkpoint_root() / "01_owner.toy"


def test_a_model_that_was_shared_is_loaded_without_training(saved, owner, tmp_path, monkeypatch):  # noqa: F811
    target = tmp_path / "to share"
    shared, left = publish(target)
    assert [one.place for one in shared] == ["01_owner.toy/clean", "01_owner.toy/noisy"]
    assert left == []
    assert {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()} == {
        "README.md", *(f"01_owner.toy/{name}/{file}" for name in ("clean", "noisy") for file in FILES)
    }  # fmt: skip
    assert "| 01_owner.toy/clean | `small_cnn` |" in (target / "README.md").read_text()
    assert "lr 0.1" in (target / "README.md").read_text()
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "data"))
    shutil.copytree(target, tmp_path / "data/models")
    before = (checkpoint_root() / "notes").read_text()
    shutil.rmtree(saved)
    assert bias(trained(Run("03_other", "toy"), "01_owner", "clean")) == pytest.approx(0.1)
    assert (checkpoint_root() / "notes").read_text() == before  # no cell ran
    owner("lr = 0.1", "lr = 0.2")
    assert bias(trained(Run("03_other", "toy"), "01_owner", "clean")) == pytest.approx(0.2)
    assert (checkpoint_root() / "notes").read_text() != before  # the shared one is of another code


def test_what_is_too_large_stale_or_damaged_is_left_out(saved, owner, tmp_path, capsys):  # noqa: F811
    with pytest.raises(ValueError, match="01_owner.toy/clean was left out: .* MB are more than 0.001"):
        publish(tmp_path / "out", most=0.001)
    weights = load_file(saved / "noisy/model.safetensors")
    save_file({name: torch.zeros_like(value) for name, value in weights.items()}, saved / "noisy/model.safetensors")
    main([str(tmp_path / "out")])
    said = capsys.readouterr()
    text = said.out + said.err
    assert "01_owner.toy/clean: " in text
    assert "01_owner.toy/noisy was left out: " in text
    assert not (tmp_path / "out/01_owner.toy/noisy").exists()
    owner("lr = 0.1", "lr = 0.3")
    with pytest.raises(ValueError, match="clean was left out: its notebook has changed since: make notebook N=01"):
        publish(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_nothing_to_share_is_said(tmp_path):
    with pytest.raises(SystemExit, match="Nothing was published: no model was saved"):
        main([str(tmp_path / "out")])


def test_the_copy_is_the_model(saved, tmp_path):
    publish(tmp_path / "out")
    for file in FILES:
        assert (tmp_path / "out/01_owner.toy/clean" / file).read_bytes() == (saved / "clean" / file).read_bytes()
    assert json.loads((tmp_path / "out/01_owner.toy/clean/model.json").read_text())["notebook"] == "01_owner"


class Hub:
    """A hub that notes what it is given, or refuses it."""

    given, refuses = [], False

    def create_repo(self, name, exist_ok):
        if self.refuses:
            raise ConnectionError("no route to it\nsecond line")
        return f"https://hub/{name}"

    def upload_folder(self, repo_id, folder_path):
        self.given.append((repo_id, sorted(path.name for path in folder_path.iterdir())))


def test_the_folder_goes_to_a_hub_if_asked(saved, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "HfApi", Hub)
    monkeypatch.setattr(Hub, "given", [])
    course(["publish-models", str(tmp_path / "out")])
    assert Hub.given == []
    course(["publish-models", str(tmp_path / "out"), "--hub", "me/mine"])
    assert Hub.given == [("me/mine", ["01_owner.toy", "README.md"])]
    said = capsys.readouterr()
    assert "https://hub/me/mine" in said.out + said.err


def test_a_hub_that_refuses_is_said_in_one_line_and_the_folder_stays(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "HfApi", Hub)
    monkeypatch.setattr(Hub, "refuses", True)
    with pytest.raises(SystemExit) as stopped:
        course(["publish-models", str(tmp_path / "out"), "--hub", "me/mine"])
    assert str(stopped.value).startswith("me/mine was not written (no route to it): `hf auth login`, or put ")
    assert (tmp_path / "out/README.md").is_file()


def test_commands_by_name(monkeypatch, capsys):
    given = []
    monkeypatch.setitem(COMMANDS, "site", given.extend)
    course(["site", "--help"])
    assert given == ["--help"]
    with pytest.raises(SystemExit):
        course(["publish"])
    assert "invalid choice: 'publish'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        course([])
