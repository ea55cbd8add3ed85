"""Regions from a vision transformer, from several networks side by side, and kept on disk in parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..data.captions import CaptionSet
from ..models.weights import find_weights, load_vit
from .encoder import GridEncoder, load_encoder
from .features import cached_features

VITS = {"vit_small_patch14": 196}  # pixels: 14 x 14 tokens


class TokenGrid(nn.Module):
    """A vision transformer's tokens as a feature map `(N, D, h, w)`, without its class token."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.network.forward_features(images)[:, self.network.num_prefix_tokens :].transpose(1, 2)
        return tokens.unflatten(2, [math.isqrt(tokens.shape[2])] * 2)


class SideBySide(nn.Module):
    """Encoders whose regions lie on the same grid: each region's vectors after one another, `(N, R, D1 + D2 ...)`.

    Frozen and always in evaluation mode, as each of them is.
    """

    def __init__(self, encoders: Sequence[GridEncoder]) -> None:
        super().__init__()
        self.encoders, self.grid = nn.ModuleList(encoders), encoders[0].grid
        self.size = tuple(encoder.size for encoder in encoders)
        self.train()

    def train(self, mode: bool = True) -> SideBySide:
        """Stays in evaluation mode."""
        return super().train(False)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.encoders[0].device

    def resized(self, images: Tensor) -> Tensor:
        """Images of any size as the largest of the networks wants them; the others make them smaller by themselves."""
        return max(self.encoders, key=lambda encoder: encoder.size).resized(images)

    def forward(self, images: Tensor) -> Tensor:
        """Pixels `(N, 3, H, W)` in [0, 1] to regions, row by row of the grid."""
        return torch.cat([encoder(images) for encoder in self.encoders], 2)


def load_regions(
    name: str, *, size: int | Sequence[int] | None = None, grid: int | None = None, network: nn.Sequential | None = None
) -> GridEncoder | SideBySide:
    """`load_encoder`, and besides its names `"vit_small_patch14"`, and names joined by `+` for regions side by side.

    Args:
        size: pixels; for joined names one number for each; None: those each was made for.
        grid: joined networks need one, so that their regions are the same.

    Raises:
        ValueError: another name, joined names without a grid, or not one size for each.
        CheckpointError: the weights cannot be had; the message says where to put them.
    """
    names = name.split("+")
    if len(names) > 1:
        sizes = [None] * len(names) if size is None else list(size)
        if grid is None or len(sizes) != len(names):
            raise ValueError(f"{name} needs a grid and {len(names)} sizes, got grid {grid} and size {size}")
        return SideBySide([load_regions(each, size=of, grid=grid) for each, of in zip(names, sizes, strict=True)])
    if name not in VITS:
        return load_encoder(name, size=size, grid=grid, network=network)
    weights, size = find_weights(name), size or VITS[name]
    return GridEncoder(TokenGrid(load_vit(name, size, 0, weights)), size, weights.mean, weights.std, grid)


class Shards:
    """Arrays one after the other, read as if they were one `(N, R, D)`, by a slice or by an array of places."""

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self.parts, self.first = list(parts), np.cumsum([0, *map(len, parts)])
        self.shape, self.nbytes = (int(self.first[-1]), *parts[0].shape[1:]), sum(part.nbytes for part in parts)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, places: slice | np.ndarray) -> np.ndarray:
        places = np.arange(len(self))[places]
        of = np.searchsorted(self.first, places, side="right") - 1
        return np.stack([self.parts[p][place - self.first[p]] for p, place in zip(of, places, strict=True)])


def sharded_features(
    encoder: GridEncoder | SideBySide,
    images: CaptionSet,
    folder: Path | str,
    shard: int = 1_000,
    device: torch.device | str = "cpu",
) -> Shards:
    """`cached_features`, a file for each `shard` images: what was stopped goes on with the next file."""
    starts = range(0, len(images), shard)
    parts = [images[range(first, min(first + shard, len(images)))] for first in starts]
    return Shards([cached_features(encoder, part, folder, device=device) for part in parts])
