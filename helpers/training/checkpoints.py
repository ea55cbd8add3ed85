"""Weights and training state on disk, written so that a kill or a full disk loses nothing."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from ..contract import project_root, tqdm

BEST = "best.safetensors"  # in a training's folder: the weights of its best epoch


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, read, or belongs to another run; the message says what to do."""


def checkpoint_root() -> Path:
    """Where weights and training states go: `$CHECKPOINT_DIR`, else `checkpoints/`."""
    return Path(os.environ.get("CHECKPOINT_DIR") or project_root() / "checkpoints")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name; what is written there takes the place of `path` when the block ends well."""
    temporary = path.with_name(f".{path.name}.part")
    _remove(temporary)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise CheckpointError(
            f"cannot write {path.name} ({error.strerror or error}): free some space or choose another folder. "
            "What was there before is untouched."
        ) from error
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def save_weights(model: nn.Module, path: Path | str) -> None:
    """Write the model's parameters and buffers as safetensors."""
    _write(_weights(model), Path(path))


def _weights(model: nn.Module) -> bytes:
    return save({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()})


def _write(data: bytes, path: Path) -> None:
    """A plain write: a full disk is an OSError here, a panic in safetensors' own writer."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def load_weights(model: nn.Module, path: Path | str) -> nn.Module:
    """Read `path` into `model` (every name and shape must fit) and return it; for `BEST` see `in_use`."""
    path = Path(path)
    if path.name == BEST:
        path = in_use(path.parent) / BEST
    if not path.is_file():
        raise CheckpointError(f"no weights at {path.parent.name}/{path.name}: run the notebook that trains them first")
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{path.name} does not fit this model or is damaged: {error}") from error
    return model


def weights_checksum(model: nn.Module) -> str:
    """CRC-32 over all parameters and buffers: the same weights, the same text."""
    crc = 0
    for value in model.state_dict().values():
        crc = zlib.crc32(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data, crc)
    return f"{crc:08x}"


def saved_run(folder: Path) -> dict[str, Any]:
    """Settings, history and machine (`ran`) of the newest state in a training's folder; empty if there is none."""
    saved = sorted(folder.glob("epoch_[0-9]*"))
    return json.loads((saved[-1] / "run.json").read_text()) if saved else {}


def places(folder: Path) -> Iterator[Path]:
    """`folder`, `folder-2`, `folder-3` ...: where trainings of one name lie that were asked for with other settings."""
    return (folder if number == 1 else folder.with_name(f"{folder.name}-{number}") for number in itertools.count(1))


def in_use(folder: Path) -> Path:
    """The one of `places(folder)` that the training was last asked to use."""
    note = _note(folder)
    used = note.read_text() if note.is_file() else ""
    return folder.with_name(used or folder.name)


def _note(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.in_use")


def improved(history: list[dict[str, Any]], monitor: str) -> bool:
    """Whether the last epoch has the largest `monitor` so far; where nothing has that column it always has."""
    best = max((row.get(monitor, -math.inf) for row in history[:-1]), default=-math.inf)
    return history[-1].get(monitor, math.inf) > best


class TrainingFolder:
    """The checkpoints of one training: `epoch_0007/` (weights, optimiser state, history) and `best.safetensors`.

    Args:
        path: the folder; it is made when first written to.
        settings: JSON-like description of the run. A folder written under other settings is left as it is: the first
            of `places` that was written under these, or that is empty, is taken instead, and a line says what differs.
    """

    def __init__(self, path: Path | str, settings: dict[str, Any]) -> None:
        self.asked, self.settings = Path(path), json.loads(json.dumps(settings))
        self.path = next(place for place in places(self.asked) if not self._changed(place))
        if self.path != self.asked:
            changed = "; ".join(self._changed(self.asked))
            tqdm.write(f"{self.asked.name} was trained with other settings, so {self.path.name} is used: {changed}")
        self._take_note()

    def save(
        self,
        epoch: int,
        model: nn.Module,
        state: dict[str, Any],
        history: list[dict[str, float]],
        best: bool,
        ran: dict[str, Any] | None = None,
    ) -> None:
        """Write the state after `epoch` finished epochs, then remove the one before.

        `ran` says on what it ran (device, threads, processes; None: read off the model, one process); unlike the
        settings it may change from one start to the next.
        """
        self._take_note()  # again: the same name may be in training with other settings elsewhere
        weights = _weights(model)
        if best:
            _write(weights, self.path / BEST)
        with replacing(self._folder(epoch)) as temporary:
            temporary.mkdir(parents=True)
            _write(weights, temporary / "model.safetensors")
            torch.save(state, temporary / "state.pt")
            run = {"settings": self.settings, "history": history, "ran": ran or ran_on(next(model.parameters()).device)}
            (temporary / "run.json").write_text(json.dumps(run, indent=1))
        for old in self._saved()[:-1]:
            shutil.rmtree(old, ignore_errors=True)

    def resume(self, model: nn.Module, load_state: Callable[[dict[str, Any]], None]) -> list[dict[str, float]]:
        """Load the newest state into `model` and through `load_state`; return its history, empty if there is none."""
        saved = self._saved()
        if not saved:
            return []
        load_weights(model, saved[-1] / "model.safetensors")
        load_state(torch.load(saved[-1] / "state.pt", map_location="cpu", weights_only=True))
        return saved_run(self.path)["history"]

    def _folder(self, epoch: int) -> Path:
        return self.path / f"epoch_{epoch:04d}"

    def _saved(self) -> list[Path]:
        return sorted(self.path.glob("epoch_[0-9]*"))

    def _changed(self, place: Path) -> list[str]:
        """What differs between the settings a folder was written under and these; nothing if it is empty."""
        run = saved_run(place)
        before, now = _flat(run.get("settings", {})), _flat(self.settings)
        changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
        return [f"{key} {before.get(key)} there, {now.get(key)} now" for key in changed if run]

    def _take_note(self) -> None:
        """For `in_use`. Written in place: of several processes each writes the same."""
        if in_use(self.asked) != self.path:
            _note(self.asked).write_text(self.path.name)


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level: `optimizer.Adam.lr`."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if value and isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def ran_on(device: torch.device, processes: int = 1) -> dict[str, Any]:
    """On what a training runs: a fact about the run, not a setting of it."""
    threads = torch.get_num_threads() if device.type == "cpu" else None
    return {"device": device.type, "threads": threads, "processes": processes}
