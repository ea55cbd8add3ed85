"""`load`: a named set in, an `ImageSet` out, from `$DATA_ROOT` if it is there, else from its public source."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..contract import project_root
from . import flowers, hub, imagenette, miniplaces, public, toy, toy_leaves
from .folders import DataError, read_folder, read_zip
from .images import ImageSet

Fetch = Callable[[Path, str], None]  # data root, set name: leaves files there that can be read, or raises
READERS = tuple(source.read_local for source in (hub, public, flowers, miniplaces, imagenette))


@dataclass(frozen=True)
class Known:
    """What is known of a set beforehand, so that half a copy is not taken for a whole one."""

    counts: dict[str, int]
    classes: int
    fetch: tuple[tuple[str, Fetch], ...]


HUB, TORCHVISION = ("the Hugging Face hub", hub.fetch), ("torchvision's host", public.fetch)
KNOWN = {
    "cifar10": Known(hub.SETS["cifar10"].rows, 10, (HUB, TORCHVISION)),
    "cifar100": Known(hub.SETS["cifar100"].rows, 100, (HUB, TORCHVISION)),
    "flowers-102": Known(flowers.ROWS, 102, (("torchvision's host", flowers.fetch),)),
    "imagenette": Known(imagenette.COUNTS, 10, (("its authors' host", imagenette.fetch),)),
    "miniplaces": Known(miniplaces.COUNTS, 100, (("its course's host", miniplaces.fetch),)),
    "tomato-leaf-hub": Known(hub.SETS["tomato-leaf-hub"].rows, 10, (HUB,)),
}


def data_root() -> Path:
    """The folder that holds the sets: `$DATA_ROOT`, else `data/` of this repository (or of the current folder)."""
    return Path(os.environ.get("DATA_ROOT") or project_root() / "data").expanduser()


def load(name: str, split: str, *, size: int | None = None, download: bool = True) -> ImageSet:
    """Load one split of a set into memory.

    Looks under `$DATA_ROOT` (default `data/`) for `<name>/` (the public source's own files, or
    `{split}/<class>/<image>`), then for `<name>.zip`, then at the public source. The toy sets are drawn, not read.

    Args:
        name: one of `KNOWN`, one of `toy.SETS` or `toy_leaves.CONFOUNDED`, or any set that lies under `$DATA_ROOT`.
        split: `"train"`, `"val"` or `"test"`, as far as the set has it.
        size: side in pixels to resize and crop to; None keeps the images as they are (toy: 32, toy leaves: 64).
        download: False never touches the network.

    Raises:
        DataError: the set is unknown, missing, damaged or incomplete, or `$DATA_ROOT` cannot be written.
    """
    if name in toy.SETS:
        return toy.load(name, split, size or 32)
    if name in toy_leaves.CONFOUNDED:
        return toy_leaves.load(name, split, size or 64)
    root = data_root()
    found = _read(root, name, split, size)
    if found is None and download and name in KNOWN and split in KNOWN[name].counts:
        fetch(root, name, KNOWN[name].fetch, _missing(root, name, split, download))
        found = _read(root, name, split, size)
    if found is None:
        raise DataError(_missing(root, name, split, download))
    return _complete(found)


def _read(root: Path, name: str, split: str, size: int | None) -> ImageSet | None:
    """The set from disk, or None where nothing of it is there."""
    for reader in READERS:
        if (local := reader(root, name, split, size)) is not None:
            return local
    if (root / name / split).is_dir():
        return read_folder(root, name, split, size)
    if (root / f"{name}.zip").is_file():
        return read_zip(root / f"{name}.zip", name, split, size)
    return None


def fetch(root: Path, name: str, sources: Sequence[tuple[str, Fetch]], missing: str) -> None:
    """Try the public sources in turn; what each said follows `missing` in the one error if all fail."""
    said = []
    try:
        (root / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot write to the data folder {root} ({error.strerror}): set DATA_ROOT to a folder you may write to"
        ) from error
    for source, fetched in sources:
        try:
            return fetched(root, name)
        except Exception as error:  # whatever the network or a host does, the next source may still work
            said.append(f"{source}: {type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}")
    raise DataError(f"{missing}\nTried to download it, and failed:\n  " + "\n  ".join(said))


def _missing(root: Path, name: str, split: str, download: bool) -> str:
    if name not in KNOWN and not (root / name).exists() and not (root / f"{name}.zip").exists():
        names = ", ".join(sorted([*KNOWN, *toy.SETS, *toy_leaves.CONFOUNDED]))
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
    if known and len(found) > known.counts.get(found.split, len(found)):
        raise DataError(f"{where} has {len(found)} images, more than the {known.counts[found.split]} it should have")
    return found
