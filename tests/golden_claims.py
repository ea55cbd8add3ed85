"""A toy run's results against the golden ones, by the claims in golden/claims.toml, which says how to read them."""

from __future__ import annotations

import math
import tomllib
from itertools import takewhile
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent / "golden"
CLAIMS = tomllib.loads((GOLDEN / "claims.toml").read_text())
SOME_COLUMNS = {"audit_curves"}  # of 03: a model that is too weak to be judged has none
SOME_ROWS = {"runner_up", "by_answer"}  # of 04: a network that is at chance has none


def row_name(row: list[Any]) -> str:
    """The texts that a row begins with, else its first number."""
    return ", ".join(takewhile(lambda cell: isinstance(cell, str), row)) or str(row[0])


def place(results: dict[str, Any], key: str) -> tuple[Any, Any]:
    """Where the number `key` stands: a dict or a row, and the index into it. KeyError: nowhere, or not one place."""
    name, *cell = key.split(" | ")
    if not cell and name in results["values"]:
        return results["values"], name
    if len(cell) == 2 and name in results["tables"]:
        (row, column), table = cell, results["tables"][name]
        rows = [r for n, r in enumerate(table["rows"], 1) if row in (row_name(r), f"#{n}")]
        if len(rows) == 1 and column in table["columns"]:
            return rows[0], table["columns"].index(column)
    raise KeyError(f"{key!r} is no one place in the results file")


def number(results: dict[str, Any], key: str) -> float:
    """The number named `key`; NaN, which keeps no claim, where there is none."""
    try:
        holder, index = place(results, key)
    except KeyError:
        return math.nan
    return holder[index]


def frame(results: dict[str, Any]) -> dict[str, Any]:
    """What every machine shares; not the checksum of a drawing, since a few pixels are rounded to the next level."""
    data = [{name: value for name, value in part.items() if name != "crc32"} for part in results["data"]]
    return {name: results[name] for name in ("notebook", "profile", "seed", "order")} | {"data": data}


def counted(results: dict[str, Any], key: str) -> Any:
    """A value, a table's rows, or one of its columns."""
    name, *column = key.split(" | ")
    if name in results["values"]:
        return results["values"][name]
    table = results["tables"][name]
    return [row[table["columns"].index(column[0])] for row in table["rows"]] if column else table["rows"]


def shapes(results: dict[str, Any]) -> dict[str, tuple[list[str] | None, int | None]]:
    """Columns and number of rows of each table, but for those that only some of the trained models have."""
    return {
        name: (None if name in SOME_COLUMNS else table["columns"], None if name in SOME_ROWS else len(table["rows"]))
        for name, table in results["tables"].items()
    }


def broken(new: dict[str, Any], old: dict[str, Any], claims: dict[str, Any]) -> list[str]:
    """One line for each claim that the results `new` break; `old` are the golden ones."""
    found = [
        f"{key}: {frame(new)[key]} is not {value}" for key, value in frame(old).items() if frame(new)[key] != value
    ]
    if shapes(new) != shapes(old):
        found.append("tables have other columns or another number of rows than the golden ones")
    for key in claims["exact"]:
        if counted(new, key) != counted(old, key):
            found.append(f"{key}: {counted(new, key)} is not {counted(old, key)}")
    for key, (low, high) in claims["within"].items():
        if not low <= number(new, key) <= high:
            found.append(f"{key}: {number(new, key)} is not within {low} .. {high}")
    for larger, smaller, margin in claims["order"]:
        if not number(new, larger) > number(new, smaller) + margin:
            found.append(f"{larger} ({number(new, larger)}) > {smaller} ({number(new, smaller)}) + {margin} is not so")
    return found
