"""`python -m helpers.captions IMAGE`: a Persian caption of any image file, by a captioner that was saved."""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import Tensor

from ..contract import tqdm
from ..data.folders import DataError
from ..training.checkpoints import CheckpointError, checkpoint_root, replacing
from .captioner import FILE, Captioner, read_image


def newest() -> Path:
    """The captioner that was saved last under `checkpoint_root()`, whichever run wrote it."""
    saved = checkpoint_root().glob(f"*/{FILE}")
    return max(saved, key=lambda path: path.stat().st_mtime, default=checkpoint_root() / FILE)


def main(arguments: list[str] | None = None) -> None:
    """Write a Persian caption of an image, and on request a picture of where each word was looked for."""
    parser = argparse.ArgumentParser(prog="python -m helpers.captions", description=main.__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("--captioner", type=Path, metavar="FILE", help="what Captioner.save wrote; else the newest one")
    parser.add_argument("--width", type=int, default=3, help="beams; 1 is greedy (default: 3)")
    parser.add_argument("--figure", type=Path, help="write the attention of each word to this PNG")
    options = parser.parse_args(arguments)
    try:
        image = read_image(options.image)
        ((words, looks),) = Captioner.load(options.captioner or newest())(image, options.width)
        if options.figure:
            _draw(image[0], words, looks, options.figure)
    except (DataError, CheckpointError, ValueError) as error:
        raise SystemExit(str(error)) from error
    tqdm.write(" ".join(words))


def _draw(image: Tensor, words: list[str], looks: Tensor, path: Path) -> None:
    from ..plotting.caption_diagrams import word_tiles  # a program stands above all rooms; this option alone draws

    with replacing(path) as temporary:
        word_tiles(image, words, looks).savefig(temporary, format="png", dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main()
