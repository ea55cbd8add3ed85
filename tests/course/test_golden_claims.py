"""The golden comparison can fail: every number it compares, doubled, halved or set to 0, breaks a claim."""

import json
from copy import deepcopy

import pytest
from conftest import ROOT
from golden_claims import CLAIMS, GOLDEN, broken, counted, number, place

RESULTS = {name: json.loads((GOLDEN / f"{name}.toy.json").read_text()) for name in CLAIMS}
WITHIN = [(name, key) for name, claims in CLAIMS.items() for key in claims["within"]]
ORDERS = [(name, *order) for name, claims in CLAIMS.items() for order in claims["order"]]
EXACT = [(name, key) for name, claims in CLAIMS.items() for key in claims["exact"]]


def complaints(name, new):
    return broken(new, RESULTS[name], CLAIMS[name])


def changed(name, key, value):
    """The golden results with one number replaced."""
    new = deepcopy(RESULTS[name])
    holder, index = place(new, key)
    holder[index] = value
    return new


def test_every_notebook_has_claims_and_a_golden_file():
    names = [path.stem for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))]
    assert names == list(CLAIMS)
    assert [f"{name}.toy.json" for name in names] == sorted(path.name for path in GOLDEN.glob("*.json"))


@pytest.mark.parametrize("name", CLAIMS)
def test_the_golden_file_keeps_its_own_claims(name):
    assert complaints(name, RESULTS[name]) == []
    assert len(CLAIMS[name]["within"]) + len(CLAIMS[name]["order"]) >= 5
    assert CLAIMS[name]["exact"]


@pytest.mark.parametrize("factor", [2, 0.5, 0])
@pytest.mark.parametrize(("name", "key"), WITHIN)
def test_a_number_doubled_halved_or_0_breaks_its_claim(name, key, factor):
    found = complaints(name, changed(name, key, factor * number(RESULTS[name], key)))
    assert any(line.startswith(f"{key}: ") for line in found)


@pytest.mark.parametrize(("name", "larger", "smaller", "margin"), ORDERS)
def test_an_order_lost_breaks_its_claim(name, larger, smaller, margin):
    """Two equal numbers, and the two exchanged, though both lie within their own bounds."""
    high, low = number(RESULTS[name], larger), number(RESULTS[name], smaller)
    bounded = CLAIMS[name]["within"]
    assert larger in bounded
    assert smaller in bounded or 0 <= low < margin
    for new in (changed(name, larger, low), changed(name, smaller, high)):
        assert any(line.startswith(f"{larger} (") for line in complaints(name, new))


@pytest.mark.parametrize(("name", "key"), EXACT)
def test_what_is_counted_may_not_change_at_all(name, key):
    new = deepcopy(RESULTS[name])
    held = deepcopy(counted(new, key))
    if key in new["values"]:
        new["values"][key] += 1
    else:
        name_of_table, *column = key.split(" | ")
        table = new["tables"][name_of_table]
        table["rows"][-1][table["columns"].index(column[0]) if column else -1] = "other"
    assert counted(new, key) != held
    assert any(line.startswith(f"{key}: ") for line in complaints(name, new))


@pytest.mark.parametrize("name", CLAIMS)
def test_other_data_columns_or_rows_are_seen(name):
    for change in (
        lambda new: new["data"][0].update(source="another"),
        lambda new: new["order"].pop(),
        lambda new: next(iter(new["tables"].values()))["columns"].append("another"),
        lambda new: next(iter(new["tables"].values()))["rows"].pop(),
    ):
        new = deepcopy(RESULTS[name])
        change(new)
        assert complaints(name, new)


def test_a_name_that_is_nowhere_is_an_error():
    (name, results), *_ = RESULTS.items()
    table, first = next(iter(results["tables"].items()))
    keys = ("no such value", f"{table} | no such row | {first['columns'][0]}", f"{table} | #1 | no such column")
    for key in keys:
        with pytest.raises(KeyError, match="no one place"):
            place(results, key)
        assert broken(results, results, CLAIMS[name] | {"within": {key: [0, 1]}}) == [
            f"{key}: nan is not within 0 .. 1"
        ]


def test_a_table_of_some_models_may_have_fewer_and_still_has_to_be_there():
    name = "03_attacks_and_defense"
    new = deepcopy(RESULTS[name])
    new["tables"]["audit_curves"]["columns"].pop()
    assert complaints(name, new) == []
    del new["tables"]["audit_curves"]
    assert complaints(name, new)
