"""Weights and training state on disk, written so that a kill or a full disk loses nothing."""

from __future__ import annotations

import json
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

from ..contract import project_root


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
    """Read `path` into `model` (every name and shape must fit) and return it."""
    path = Path(path)
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


def saved_history(path: Path) -> list[dict[str, float]]:
    """The history of the newest state in a training's folder, one dict an epoch; empty if there is none."""
    saved = sorted(path.glob("epoch_[0-9]*"))
    return json.loads((saved[-1] / "run.json").read_text())["history"] if saved else []


class TrainingFolder:
    """The checkpoints of one training: `epoch_0007/` (weights, optimiser state, history) and `best.safetensors`.

    Args:
        path: the folder; it is made when first written to.
        settings: JSON-like description of the run. A folder written under other settings is refused, never mixed in.
    """

    def __init__(self, path: Path | str, settings: dict[str, Any]) -> None:
        self.path, self.settings = Path(path), json.loads(json.dumps(settings))

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

        `ran` says on what it ran (device, threads); unlike the settings it may change from one start to the next.
        """
        weights = _weights(model)
        if best:
            _write(weights, self.path / "best.safetensors")
        with replacing(self._folder(epoch)) as temporary:
            temporary.mkdir(parents=True)
            _write(weights, temporary / "model.safetensors")
            torch.save(state, temporary / "state.pt")
            run = {"settings": self.settings, "history": history, "ran": ran or {}}
            (temporary / "run.json").write_text(json.dumps(run, indent=1))
        for old in self._saved()[:-1]:
            shutil.rmtree(old, ignore_errors=True)

    def resume(self, model: nn.Module, load_state: Callable[[dict[str, Any]], None]) -> list[dict[str, float]]:
        """Load the newest state into `model` and through `load_state`; return its history, empty if there is none."""
        saved = self._saved()
        if not saved:
            return []
        run = json.loads((saved[-1] / "run.json").read_text())
        self._compare(run["settings"])
        load_weights(model, saved[-1] / "model.safetensors")
        load_state(torch.load(saved[-1] / "state.pt", map_location="cpu", weights_only=True))
        return run["history"]

    def _folder(self, epoch: int) -> Path:
        return self.path / f"epoch_{epoch:04d}"

    def _saved(self) -> list[Path]:
        return sorted(self.path.glob("epoch_[0-9]*"))

    def _compare(self, before: dict[str, Any]) -> None:
        changed = [
            f"{key}: {before.get(key)} there, {self.settings.get(key)} now"
            for key in sorted({*before, *self.settings})
            if before.get(key) != self.settings.get(key)
        ]
        if changed:
            raise CheckpointError(
                f"checkpoints/{self.path.name} was written by another run: delete it or use another name.\n  "
                + "\n  ".join(changed)
            )
