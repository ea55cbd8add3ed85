"""Runs: profile, precision, and a results file that says what happened."""

import json
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import toy_set
from PIL import Image

from helpers.course.code_hash import code_hash
from helpers.course.run import Run, choose_profile, precision


def test_profile(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_profile() == "toy"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_profile() == "full"
    monkeypatch.setenv("PROFILE", "lite")
    assert choose_profile() == "lite"
    assert choose_profile("toy") == "toy"


def test_unknown_profile(monkeypatch):
    monkeypatch.setenv("PROFILE", "light")
    with pytest.raises(ValueError, match="unknown profile 'light': set PROFILE to one of toy, lite, full"):
        Run("01_noisy_resnet")


@pytest.mark.parametrize(
    ("device", "capability", "expected"),
    [
        ("cpu", None, "no"),
        ("cuda", (7, 5), "fp16"),
        ("cuda", (8, 0), "bf16"),
        ("cuda", (9, 0), "bf16"),
        ("cuda", (6, 1), "fp16"),
    ],
)
def test_precision_trusts_the_capability_only(device, capability, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)  # what a T4 (7.5) says
    assert precision(torch.device(device), capability) == expected


def test_run_is_seeded():
    draws = []
    for _ in range(2):
        Run("some", "toy", seed=7)
        draws.append((torch.rand(1).item(), np.random.rand()))  # noqa: NPY002
    assert draws[0] == draws[1]


def test_pick():
    assert [Run("some", profile).pick(toy=1, lite=2, full=3) for profile in ("toy", "lite", "full")] == [1, 2, 3]


def test_results_file(tmp_path):
    run, data = Run("some", "toy", seed=3), toy_set(40)
    run.used(data)
    run.value("top1", np.float32(0.5))
    run.table(
        "scores",
        pd.DataFrame({"a": [1 / 3, math.nan], "n": [1, 2]}, index=pd.Index(["x", "y"], name="model")),
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
        "rows": [["x", 0.333333, 1], ["y", None, 2]],
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


def test_hash_ignores_what_does_not_run():
    code = ["import torch\n", "x = 1  \n\n"]
    assert code_hash(code) == code_hash(["import torch", "  \n", "# parameters\nPROFILE = 'lite'", "x = 1"])
    assert code_hash(code) != code_hash(["import torch", "x = 2"])
    assert code_hash(["a", "b"]) != code_hash(["b", "a"]) != code_hash(["a\nb"])
