"""Rebuild a `lite` subset from a copy of its public set, by the list in `data/subsets/`.

    python data/rebuild_subset.py cifar10 FOLDER       FOLDER has cifar-10-batches-py/
    python data/rebuild_subset.py miniplaces FOLDER    FOLDER has images/train/ and images/val/
    python data/rebuild_subset.py tomato-leaf FOLDER   FOLDER has PlantVillage's colour photographs, in any folders
    python data/rebuild_subset.py flickr8k-fa FOLDER   FOLDER has Flickr8k's photographs, and data.csv with the captions

It writes `$DATA_ROOT/<set>/`, which the loaders read. Photographs are copied as they are: data/README.md says how they
differ from the smaller files on which the committed figures were computed.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.data import DataError, data_root
from helpers.data.folders import SUFFIXES
from helpers.data.public import temporary_folder

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
LISTS = Path(__file__).parent / "subsets"
Source = tuple[str, Path | bytes]  # a name as the list has it, and the image: a file, or its bytes


def photographs(public: Path, key: Callable[[Path], str]) -> Iterator[Source]:
    """Every image below `public`, named by `key` of its path in there."""
    for path in sorted(public.rglob("*")):
        if path.suffix.lower() in SUFFIXES:
            yield key(path.relative_to(public)), path


def cifar10(public: Path) -> Iterator[Source]:
    """Training and test images by their names in torchvision's files, as PNG (lossless)."""
    from torchvision.datasets import CIFAR10

    from helpers.data.public import checked, unpickled

    for file, md5 in [*CIFAR10.train_list, *CIFAR10.test_list]:
        pixels = np.empty((10_000, 3, 32, 32), np.uint8)
        batch = unpickled(checked(public / CIFAR10.base_folder, file, md5, "cifar10"), pixels)
        split = "test" if file == "test_batch" else "train"
        for name, label, image in zip(batch[b"filenames"], batch[b"labels"], pixels, strict=False):
            png = io.BytesIO()
            Image.fromarray(image.transpose(1, 2, 0)).save(png, "PNG")
            yield f"{split}/{CLASSES[label]}/{Path(name.decode()).stem}", png.getvalue()


def miniplaces_key(path: Path) -> str:
    """`images/train/b/bakery/shop/00000001.jpg`: train/bakery_shop/00000001; validation images: val/00000001."""
    split, *folders = path.parts[path.parts.index("images") + 1 : -1]
    return "/".join([split, *(["_".join(folders[1:])] if folders else []), path.stem])


SOURCES: dict[str, Callable[[Path], Iterator[Source]]] = {
    "cifar10": cifar10,
    "miniplaces": lambda public: photographs(public, miniplaces_key),
    "tomato-leaf": lambda public: photographs(public, lambda path: path.stem.split("___")[0]),
    "flickr8k-fa": lambda public: photographs(public, lambda path: path.stem),
}


def asked(name: str, line: str) -> str:
    """The name by which the public set knows an image of the list."""
    parts = line.split("/")
    if name == "miniplaces" and parts[0] == "val":
        return f"val/{parts[-1]}"
    return parts[-1] if name == "tomato-leaf" else line


def rebuild(name: str, public: Path) -> Path:
    """Write the subset to `$DATA_ROOT/<name>/` and return that folder; all or nothing.

    Raises:
        DataError: the folder is there already, or the public copy lacks some of the listed images.
    """
    target = data_root() / name
    if target.exists():
        raise DataError(f"{target} is there already: move it away first")
    lines = [line for line in (LISTS / f"{name}.txt").read_text().splitlines() if not line.startswith("#")]
    wanted = {asked(name, line): line for line in lines}
    data_root().mkdir(parents=True, exist_ok=True)
    with temporary_folder(data_root()) as scratch:
        for key, image in SOURCES[name](public):
            line = wanted.pop(key, key if name == "cifar10" and key.startswith("test/") else None)
            if line:
                place(image, scratch / name / ("images" if name == "flickr8k-fa" else ".") / line)
        if wanted:
            raise DataError(f"{public} lacks {len(wanted):,} of {len(lines):,} images, such as {next(iter(wanted))}")
        if name == "flickr8k-fa":
            captions(public / "data.csv", scratch / name)
        os.replace(scratch / name, target)
    return target


def place(image: Path | bytes, path: Path) -> None:
    """The image as `path`, with the suffix of its kind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image, bytes):
        path.with_name(path.name + ".png").write_bytes(image)
    else:
        shutil.copyfile(image, path.with_name(path.name + image.suffix.lower()))


def captions(table: Path, folder: Path) -> None:
    """The table's lines about the images in `folder/images/`, with the suffixes that those have."""
    if not table.is_file():
        raise DataError(f"{table} is missing: put the captions there, a line `image,caption` for each")
    files = {path.stem: path.name for path in (folder / "images").iterdir()}
    lines = (line.partition(",") for line in table.read_text("utf-8-sig").splitlines())
    kept = [f"{files[Path(image).stem]},{caption}\n" for image, _, caption in lines if Path(image).stem in files]
    (folder / "data.csv").write_text("image,caption\n" + "".join(kept), "utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in SOURCES:
        sys.exit(__doc__)
    try:
        print("wrote", rebuild(sys.argv[1], Path(sys.argv[2])))
    except DataError as error:
        sys.exit(str(error))
