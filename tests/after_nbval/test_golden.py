"""The results files that the toy run has just written, against the committed ones in tests/golden.

What is drawn or counted must agree exactly; what was trained may differ from machine to machine, so it has room.
"""

import json
import math
from pathlib import Path

import pytest

from helpers.course.code_hash import notebook_hash

WRITTEN = Path(__file__).parents[2] / "build" / "nbval" / "results"  # by `make nbtest`, just before
GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("*.toy.json"))
NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
ROOM = 0.2  # for a trained quantity; the toy trainings are short and still move much from step to step


def written(path):
    return json.loads((WRITTEN / path.name).read_text())


def close(new, old):
    """Numbers within ROOM (absolute, or a factor for large ones), everything else equal."""
    if isinstance(old, float) and isinstance(new, int | float):
        return math.isclose(new, old, abs_tol=ROOM, rel_tol=0.9)
    return new == old


def shapes(results):
    """Caption, columns and rows of each table; a model that gets no image right has no row in the audit."""
    return {
        name: (table["caption"], table["columns"], None if name == "audit" else len(table["rows"]))
        for name, table in results["tables"].items()
    }


def is_compared(name):
    """Epochs, verdicts and differences in points jump when a short training moves a little."""
    return "epoch" not in name and not name.startswith(
        ("history", "per_class", "confused", "recipes", "audit", "noise_helps", "bad", "hang", "tecoa_lead")
    )


def test_every_notebook_has_a_golden_file():
    assert [path.name.split(".")[0] for path in GOLDEN] == [path.stem for path in NOTEBOOKS]


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_same_code_data_and_shape_of_results(path):
    old, new = json.loads(path.read_text()), written(path)
    notebook = next(file for file in NOTEBOOKS if file.stem == old["notebook"])
    assert old["code_sha256"] == notebook_hash(notebook), "made by other code: run `make golden`"
    for key in ("notebook", "profile", "seed", "data", "order"):
        assert new[key] == old[key], f"{key} differs: run `make golden` if the change is meant"
    assert shapes(new) == shapes(old)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_numbers_are_near_the_golden_ones(path):
    old, new = json.loads(path.read_text()), written(path)
    far = [name for name, value in old["values"].items() if is_compared(name) and not close(new["values"][name], value)]
    for name in filter(is_compared, old["tables"]):
        rows = zip(new["tables"][name]["rows"], old["tables"][name]["rows"], strict=True)
        rows = [(a, b) for a, b in rows if "paper's lr" not in str(b[0])]  # it diverges, and lands anywhere
        far += [f"{name}: {n} against {o}" for a, b in rows for n, o in zip(a, b, strict=True) if not close(n, o)]
    assert not far
