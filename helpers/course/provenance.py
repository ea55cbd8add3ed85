"""What really ran: the trainings that a notebook asked for, and the modules of `helpers` that it reached."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from ..training.checkpoints import in_use, places, saved_run
from .code_hash import code_hash

NOT_RECORDED = "not recorded"


def seconds_kept(folder: Path) -> dict[Path, float]:
    """For each of the folders where a training of this name lies, the seconds that its saved epochs took."""
    found = takewhile(lambda place: place[1], ((place, saved_run(place)) for place in places(folder)))
    return {place: sum(row["seconds"] for row in run["history"]) for place, run in found}


def training_records(folders: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """What each of these trainings left in its `run.json`; a folder that holds none is left out."""
    found = {name: (in_use(folder), saved_run(in_use(folder))) for name, folder in folders.items()}
    return {name: {"folder": folder.name} | _record(run) for name, (folder, run) in found.items() if run}


def _record(run: dict[str, Any]) -> dict[str, Any]:
    settings, history, ran = run.get("settings", {}), run["history"], run.get("ran", {})
    batches = settings.get("train", {})  # `fit` has it; a captioner says the same in other words
    optimizer = settings.get("optimizer", {})
    data = batches.get("data", {})
    return {
        "data": data.get("name", NOT_RECORDED),
        "images": data.get("examples", settings.get("examples", NOT_RECORDED)),
        "batch_size": batches.get("batch_size", settings.get("images", NOT_RECORDED)),
        "epochs": len(history),
        "optimizer": next(iter(optimizer), NOT_RECORDED),
        "learning_rate": _learning_rate(history, settings),
        "precision": settings.get("precision", NOT_RECORDED),
        "device": ran.get("device", NOT_RECORDED),
        "threads": ran.get("threads", NOT_RECORDED),  # None on a GPU
        "processes": ran.get("processes", NOT_RECORDED),
        "seconds": round(sum(row["seconds"] for row in history), 1),
    }


def _learning_rate(history: list[dict[str, Any]], settings: dict[str, Any]) -> Any:
    """Of the first group of parameters at the start of each epoch: one number, or the smallest and the largest."""
    rates = [row["lr"] for row in history if "lr" in row]
    if not rates:
        return settings.get("lr", NOT_RECORDED)
    low, high = min(rates), max(rates)
    return low if low == high else [low, high]


def helpers_hash() -> str:
    """`code_hash` of the modules of `helpers` that this process has imported: their sources without import lines."""
    package = __name__.split(".")[0]
    reached = [name for name in sorted(sys.modules) if name.split(".")[0] == package]
    files = (getattr(sys.modules[name], "__file__", None) for name in reached)
    return code_hash(Path(file).read_text() for file in files if file)
