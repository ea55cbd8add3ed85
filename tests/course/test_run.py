"""Runs: profile, precision, and a results file that says what happened."""

import json
import math
import sys
from types import ModuleType

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import small_net, toy_set
from PIL import Image

from helpers.course import device
from helpers.course import run as runs
from helpers.course.code_hash import code_hash
from helpers.course.device import precision
from helpers.course.run import Run, choose_profile
from helpers.data import Batches
from helpers.models import load_model, normalized
from helpers.training import fit


def test_profile(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_profile() == "toy"  # also with a GPU: a click must not start hours
    monkeypatch.setenv("PROFILE", "lite")
    assert choose_profile() == "lite"
    assert choose_profile("toy") == "toy"


def test_unknown_profile(monkeypatch):
    monkeypatch.setenv("PROFILE", "light")
    with pytest.raises(ValueError, match="unknown profile 'light': set PROFILE to one of toy, lite, full"):
        Run("01_noisy_resnet")


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16"), ((6, 1), "fp16")]
)
def test_precision_of_a_gpu_trusts_the_capability_only(capability, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)  # what a T4 (7.5) says
    assert precision(torch.device("cuda"), capability) == expected


@pytest.fixture
def processor(tmp_path, monkeypatch):
    """`processor(flags)` is the one this machine says it has."""

    def describe(flags):
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: {flags}\n")
        monkeypatch.setattr(device, "CPU_INFO", tmp_path / "cpuinfo")

    return describe


def test_precision_of_a_cpu_is_what_it_computes_natively(processor, monkeypatch, tmp_path):
    cpu = torch.device("cpu")
    for flags, expected in {"avx2 avx512f": "no", "avx512_bf16": "bf16", "avx2 amx_bf16": "bf16"}.items():
        processor(flags)
        assert precision(cpu) == expected
    assert device.device_name(cpu).startswith("Some CPU, ")
    monkeypatch.setattr(device, "CPU_INFO", tmp_path / "nothing")
    assert precision(cpu) == "no"
    assert precision(torch.device("mps")) == "no"


def test_toy_runs_in_float32_everywhere(processor):
    processor("avx512_bf16")
    assert [Run("some", profile).precision for profile in ("toy", "lite", "full")] == ["no", "bf16", "bf16"]


def test_first_output_says_what_the_profiles_take(tmp_path, monkeypatch):
    (tmp_path / "reports/results").mkdir(parents=True)
    result = {"seconds": 6_180.0, "device": "AMD EPYC, 2 threads"}
    (tmp_path / "reports/results/01_noisy_resnet.lite.json").write_text(json.dumps(result))
    monkeypatch.setattr(runs, "project_root", lambda: tmp_path)
    first, second = repr(Run("01_noisy_resnet")).splitlines()
    assert first.startswith("01_noisy_resnet, profile toy, seed 0, on ")
    assert second == "Time that PROFILE takes: lite 103 minutes (AMD EPYC, 2 threads); full not measured"


def test_run_is_seeded():
    draws = []
    for _ in range(2):
        Run("some", "toy", seed=7)
        draws.append((torch.rand(1).item(), np.random.rand()))  # noqa: NPY002
    assert draws[0] == draws[1]


def test_pick():
    assert [Run("some", profile).pick(toy=1, lite=2, full=3) for profile in ("toy", "lite", "full")] == [1, 2, 3]


@pytest.mark.parametrize("name", ["rate / 100", "..", "", "a\\b", ".hidden"])
def test_a_training_has_a_folder_of_its_own(name):
    with pytest.raises(ValueError, match="leave out slashes and a leading dot"):
        Run("01_noisy_resnet", "toy").folder(name)


def test_results_file(tmp_path):
    run, data = Run("some", "toy", seed=3), toy_set(40)
    run.used(data)
    run.value("top1", np.float32(0.5))
    run.table(
        "scores",
        pd.DataFrame(
            {"a": [1 / 3, math.nan], "n": pd.array([1, None], "Int64")}, index=pd.Index(["x", "y"], name="model")
        ),
        "Scores",
    )
    figure = plt.figure(figsize=(1, 1))
    run.figure("empty", figure, "Nothing", dpi=50)
    assert run.finding("It is **half**.").data == "It is **half**."
    assert run.finish("half") == "results/some.toy.json"
    written = json.loads((tmp_path / "output_dir/results/some.toy.json").read_text())
    assert written["values"] == {"top1": 0.5}
    assert written["tables"]["scores"] == {
        "caption": "Scores",
        "columns": ["model", "a", "n"],
        "rows": [["x", 0.333333, 1], ["y", None, None]],
    }
    assert written["figures"]["empty"] == {"caption": "Nothing", "file": "figures/some.toy/empty.png"}
    assert written["order"] == [["table", "scores"], ["figure", "empty"], ["finding", "1"]]
    assert written["data"] == [data.describe()]
    assert (written["profile"], written["seed"], written["headline"], written["code_sha256"]) == (
        "toy",
        3,
        "half",
        None,
    )
    assert set(written["versions"]) == {"torch", "torchvision", "accelerate", "numpy", "scikit-learn"}
    with Image.open(tmp_path / "output_dir/figures/some.toy/empty.png") as image:
        assert image.format == "PNG"


def test_time_of_an_earlier_start_counts(tmp_path):
    folder = tmp_path / "checkpoint_dir" / "some.toy" / "clean" / "epoch_0002"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"history": [{"seconds": 1_000.0}, {"seconds": 500.0}]}))
    run = Run("some", "toy")
    for _ in range(2):
        assert run.folder("clean") == folder.parent
    run.folder("clean", notebook="other")
    run.finish("")
    written = json.loads((tmp_path / "output_dir/results/some.toy.json").read_text())
    assert written["seconds_resumed"] == 1_500
    assert 1_500 <= written["seconds"] < 1_600


def learn(run, lr=0.1, name="net", decay=False):
    """A training of two epochs that `run` asks for; its history."""
    model, folder = small_net(), run.folder(name)
    sgd = torch.optim.SGD(model.parameters(), lr)
    cycle = torch.optim.lr_scheduler.LinearLR(sgd, 1.0, 0.5, total_iters=2) if decay else None
    batches = Batches(toy_set(40), 20)
    return fit(model, batches, epochs=2, optimizer=sgd, scheduler=cycle, folder=folder, precision="bf16")


def finished(run, tmp_path):
    run.finish("")
    return json.loads((tmp_path / f"output_dir/results/{run.notebook}.toy.json").read_text())


@pytest.mark.trains
def test_results_say_how_each_training_really_ran(tmp_path):
    run = Run("some", "toy")
    history = learn(run)
    learn(run, name="decayed", decay=True)
    run.folder("holds no training")
    other = Run("other", "toy")
    other.folder("net", notebook="some")
    expected = {
        "folder": "net",
        "data": "toy-coarse",
        "images": 40,
        "batch_size": 20,
        "epochs": 2,
        "optimizer": "SGD",
        "learning_rate": 0.1,
        "precision": "bf16",
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "processes": 1,
        "seconds": pytest.approx(history.seconds.sum(), abs=0.051),
    }
    found = finished(run, tmp_path)["trainings"]
    assert found["net"] == expected
    assert found["decayed"]["learning_rate"] == pytest.approx([0.05, 0.1])
    assert list(found) == ["net", "decayed"]
    assert finished(other, tmp_path)["trainings"] == {"some/net": expected}


@pytest.mark.trains
def test_what_an_older_training_did_not_record_is_said(tmp_path):
    learn(Run("some", "toy"))
    (path,) = (tmp_path / "checkpoint_dir/some.toy/net").glob("epoch_*/run.json")
    written = json.loads(path.read_text())
    path.write_text(json.dumps({"settings": written["settings"], "history": written["history"]}))
    run = Run("some", "toy")
    learn(run)
    found = finished(run, tmp_path)["trainings"]["net"]
    assert {key for key, value in found.items() if value == "not recorded"} == {"device", "threads", "processes"}


@pytest.mark.trains
def test_only_the_training_that_was_used_counts(tmp_path):
    learn(Run("some", "toy"), lr=0.1)
    run = Run("some", "toy")
    learn(run, lr=0.2)
    found = finished(run, tmp_path)
    assert (found["trainings"]["net"]["folder"], found["trainings"]["net"]["learning_rate"]) == ("net-2", 0.2)
    assert found["seconds_resumed"] == 0
    again = Run("some", "toy")
    seconds = learn(again, lr=0.1).seconds.sum()
    found = finished(again, tmp_path)
    assert found["trainings"]["net"]["learning_rate"] == 0.1
    assert found["seconds_resumed"] == pytest.approx(seconds, abs=0.051)


def test_hash_of_the_helpers_reached(tmp_path, monkeypatch):
    def reach(source, name="helpers.reached"):
        (tmp_path / "reached.py").write_text(source)
        module = ModuleType(name)
        module.__file__ = str(tmp_path / "reached.py")
        monkeypatch.setitem(sys.modules, name, module)
        return finished(Run("some", "toy"), tmp_path)["helpers_sha256"]

    before = finished(Run("some", "toy"), tmp_path)["helpers_sha256"]
    first = reach("import torch\n\nBUDGET = 8\n")
    assert len({before, first, reach("import torch\n\nBUDGET = 9\n")}) == 3
    assert reach("from torch import nn\n\nBUDGET = 8\n") == first
    monkeypatch.delitem(sys.modules, "helpers.reached")
    assert reach("BUDGET = 8", name="helpers_of_somebody_else") == before


def test_a_saved_model_says_where_it_is_from(tmp_path, monkeypatch):
    model = normalized(small_net(), (0.5,) * 3, (0.25,) * 3)
    monkeypatch.setattr(runs, "executed_hash", lambda: "of what ran")
    Run("some", "toy").save_model("net", model, "small_cnn", {"classes": 20, "dropout": 0.1}, {"lr": 0.1})
    card = load_model(tmp_path / "checkpoint_dir/some.toy/net").card
    assert (card["notebook"], card["profile"], card["code"]) == ("some", "toy", "of what ran")
    assert card["settings"] == {"lr": 0.1}


def test_hash_ignores_what_does_not_run():
    code = ["import torch\n", "x = 1  \n\n"]
    assert code_hash(code) == code_hash(["import torch", "  \n", "# parameters\nPROFILE = 'lite'", "x = 1"])
    assert code_hash(code) != code_hash(["import torch", "x = 2"])
    assert code_hash(["a", "b"]) != code_hash(["b", "a"]) != code_hash(["a\nb"])


@pytest.mark.parametrize(
    "silent",
    [
        "import torch",
        "from helpers.attacks import (\n    FGSM,\n    PGD,  # two of them\n)",
        "if x:\n    import os",
        "run.save_model('clean', model, 'resnet18', dict(classes=len(x)), {'lr': lr})",
        "# setup: anything\n!pip install x\ny = 3",
    ],
)
def test_hash_leaves_out_what_changes_no_result(silent):
    if silent.startswith("if"):  # the condition counts, what it imports does not
        assert code_hash(["if x:\n    y = 1", silent]) == code_hash(
            ["if x:\n    y = 1", "if x:\n    from os import path"]
        )
    else:
        assert code_hash(["y = 1", silent]) == code_hash(["y = 1"])


@pytest.mark.parametrize(
    "telling",
    [
        "import torch; y = 2",
        "run.save_model('clean', train(), 'resnet18', {}, {})",  # what it saves is computed there
        "z = run.save_model('clean', model, 'resnet18', {}, {})",
        "other.save_model('clean', model, 'resnet18', {}, {})",
        "!pip install x",
        "text = 'import torch'",
    ],
)
def test_hash_counts_the_rest(telling):
    assert code_hash(["y = 1", telling]) != code_hash(["y = 1"])
