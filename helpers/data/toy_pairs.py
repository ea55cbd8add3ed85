"""Drawn scenes named by a colour and a ground, in two halves of pairs that share every word and no class."""

from __future__ import annotations

import torch

from . import toy
from .images import ImageSet

PAIRS = tuple(f"{colour} thing on {ground}" for colour in toy.COLOURS for ground in toy.GROUNDS)
# As the squares of a chessboard: each colour and each ground is found in both halves.
TEN = tuple(pair for pair in range(len(PAIRS)) if (pair // len(toy.GROUNDS) + pair) % 2 == 0)
OTHERS = tuple(pair for pair in range(len(PAIRS)) if pair not in TEN)
CONTRAST = 0.3  # at full contrast a small network stands a perturbation that would be plain to see


def draw_pairs(pairs: tuple[int, ...], split: str, count: int) -> ImageSet:
    """`count` pale scenes of 32 pixels of these pairs (numbers in `PAIRS`, ascending), with masks.

    The first images of a split are the same whatever the count; there are about 1,000 of each half.

    Raises:
        ValueError: the toy world has no such split, or too few scenes for the count.
    """
    if split not in toy.SPLITS:
        raise ValueError(f"the toy world has the splits {', '.join(toy.SPLITS)}, not {split!r}")
    scenes = toy.draw(2_000, 32, 20 + toy.SPLITS[split][1])
    named = scenes.attributes["colour"] * len(toy.GROUNDS) + scenes.attributes["ground"]
    kept = torch.isin(named, torch.tensor(pairs)).nonzero().squeeze(1)[:count]
    if len(kept) < count:
        raise ValueError(f"there are {len(kept)} drawn scenes of these pairs, not {count}")
    labels = torch.searchsorted(torch.tensor(pairs), named[kept])
    pale = (127.5 + CONTRAST * (scenes.images[kept] - 127.5)).round().to(torch.uint8)
    names = tuple(PAIRS[pair] for pair in pairs)
    return ImageSet(pale, labels, names, f"toy, {len(names)} pairs", split, "drawn", scenes.masks[kept])
