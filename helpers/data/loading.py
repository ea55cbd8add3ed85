"""`load`: a named set in, an `ImageSet` out, from `$DATA_ROOT` if it is there, else from its public source."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..contract import project_root
from . import flowers, public, toy
from .folders import DataError, read_folder, read_zip
from .images import ImageSet

Fetch = Callable[[Path, str], None]  # data root, set name: leaves files that `public.read_local` can read, or raises


@dataclass(frozen=True)
class Known:
    """What is known of a set beforehand, so that half a copy is not taken for a whole one."""

    counts: dict[str, int]
    classes: int
    fetch: tuple[tuple[str, Fetch], ...]


HUB, TORCHVISION = ("the Hugging Face hub", public.fetch_hub), ("torchvision's host", public.fetch_torchvision)
KNOWN = {
    "cifar10": Known({"train": 50_000, "test": 10_000}, 10, (HUB, TORCHVISION)),
    "cifar100": Known({"train": 50_000, "test": 10_000}, 100, (HUB, TORCHVISION)),
    "flowers-102": Known(flowers.ROWS, 102, (("torchvision's host", flowers.fetch),)),
}


def data_root() -> Path:
    """The folder that holds the sets: `$DATA_ROOT`, else `data/` of this repository (or of the current folder)."""
    return Path(os.environ.get("DATA_ROOT") or project_root() / "data").expanduser()


def load(name: str, split: str, *, size: int | None = None, download: bool = True) -> ImageSet:
    """Load one split of a set into memory.

    Looks under `$DATA_ROOT` (default `data/`) for `<name>/` (torchvision's files, a downloaded copy, or
    `{split}/<class>/<image>`), then for `<name>.zip`, then at the public source. The toy sets are drawn, not read.

    Args:
        name: `"cifar10"`, `"cifar100"`, `"flowers-102"`, one of `toy.SETS`, or any set that lies under `$DATA_ROOT`.
        split: `"train"`, `"val"` or `"test"`, as far as the set has it.
        size: side in pixels to resize and crop to; None keeps the images as they are (toy: 32).
        download: False never touches the network.

    Raises:
        DataError: the set is unknown, missing, damaged or incomplete, or `$DATA_ROOT` cannot be written.
    """
    if name in toy.SETS:
        return toy.load(name, split, size or 32)
    root = data_root()
    found = _read(root, name, split, size)
    if found is None and name in KNOWN and download:
        _fetch(root, name)
        found = _read(root, name, split, size)
    if found is None:
        raise DataError(_missing(root, name, split, download))
    return _complete(found)


def _read(root: Path, name: str, split: str, size: int | None) -> ImageSet | None:
    """The set from disk, or None where nothing of it is there."""
    for reader in (public.read_local, flowers.read_local):
        if (local := reader(root, name, split, size)) is not None:
            return local
    if (root / name / split).is_dir():
        return read_folder(root, name, split, size)
    if (root / f"{name}.zip").is_file():
        return read_zip(root / f"{name}.zip", name, split, size)
    return None


def _fetch(root: Path, name: str) -> None:
    """Try the public sources in turn; what each said goes into the one error if all fail."""
    said = []
    try:
        (root / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot write to the data folder {root} ({error.strerror}): set DATA_ROOT to a folder you may write to"
        ) from error
    for source, fetch in KNOWN[name].fetch:
        try:
            return fetch(root, name)
        except Exception as error:  # whatever the network or a host does, the next source may still work
            said.append(f"{source}: {type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}")
    raise DataError(f"{_missing(root, name, 'train', True)}\nTried to download it, and failed:\n  " + "\n  ".join(said))


def _missing(root: Path, name: str, split: str, download: bool) -> str:
    if name not in KNOWN and not (root / name).exists() and not (root / f"{name}.zip").exists():
        names = ", ".join(sorted([*KNOWN, *toy.SETS]))
        return f"unknown set {name!r}: it is none of {names}, and neither {name}/ nor {name}.zip lies in {root}"
    hint = "" if download else " (download=False)"
    return (
        f"{name}/{split} is not in {root}{hint}. Put there {name}.zip or {name}/{split}/<class>/ "
        f"(see data/README.md), or set DATA_ROOT to the folder that has it, or PROFILE=toy to run without it."
    )


def _complete(found: ImageSet) -> ImageSet:
    known, where = KNOWN.get(found.name), f"{found.name}/{found.split}"
    if known and len(found.classes) != known.classes:
        raise DataError(f"{where} has {len(found.classes)} classes, not {known.classes} ({found.source}): get it again")
    if known and len(found) > known.counts[found.split]:
        raise DataError(f"{where} has {len(found)} images, more than the {known.counts[found.split]} it should have")
    return found
