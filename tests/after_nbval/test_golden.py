"""The results files that the toy run has just written, against the committed ones in tests/golden."""

import json
from pathlib import Path

import pytest
from golden_claims import CLAIMS, GOLDEN, broken

from helpers.course.code_hash import notebook_hash

ROOT = Path(__file__).parents[2]
WRITTEN = ROOT / "build" / "nbval" / "results"  # by `make nbtest`, just before


@pytest.mark.parametrize("name", CLAIMS)
def test_the_claims_hold(name):
    old = json.loads((GOLDEN / f"{name}.toy.json").read_text())
    assert old["code_sha256"] == notebook_hash(ROOT / "notebooks" / f"{name}.ipynb"), (
        "the golden file was made by other code: run `make golden`"
    )
    new = json.loads((WRITTEN / f"{name}.toy.json").read_text())
    assert broken(new, old, CLAIMS[name]) == [], "run `make golden` if the change is meant"
