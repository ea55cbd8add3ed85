"""SimpleViT: a small vision transformer whose attention alternates between windows and the whole grid.

After Dosovitskiy et al. 2020 (arXiv 2010.11929); windows as in Li et al. 2022 (arXiv 2203.16527), drop path as in Huang
et al. 2016 (arXiv 1603.09382). Tokens keep their place in the image throughout: `(N, H, W, C)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

Norm = Literal["then pool", "after pool", "none"]  # where the last norm stands
INIT_STD = 0.02  # of weights and positions


class SimpleViT(nn.Module):
    """Patches, positions, blocks, norm, mean over the grid, linear; 1,959,076 parameters as it stands.

    Args:
        classes: number of logits.
        image_size, patch_size: sides in pixels; the grid has `image_size // patch_size` tokens on a side.
        dim, depth, heads: width of a token, number of blocks, of attention heads.
        mlp_ratio: hidden width of an MLP by `dim`.
        window: side in tokens of the windows in blocks 0, 2, ...; the others, and all with 0, attend to the whole grid.
        drop_path: chance that the last block is left out; it grows evenly from 0 at the first.
        norm: LayerNorm `"then pool"` (CS771), `"after pool"`, or `"none"`.

    Raises:
        ValueError: sizes that do not divide, or an unknown `norm`.
    """

    def __init__(
        self,
        classes: int = 100,
        *,
        image_size: int = 128,
        patch_size: int = 16,
        dim: int = 192,
        depth: int = 4,
        heads: int = 4,
        mlp_ratio: float = 4.0,
        window: int = 4,
        drop_path: float = 0.1,
        norm: Norm = "then pool",
    ) -> None:
        super().__init__()
        if image_size % patch_size or norm not in ("then pool", "after pool", "none"):
            raise ValueError(f"need patches that fill the image and a known norm, got {image_size, patch_size, norm!r}")
        side = image_size // patch_size
        self.patches = nn.Conv2d(3, dim, patch_size, stride=patch_size)
        self.positions = nn.Parameter(torch.zeros(1, side, side, dim))
        drops = torch.linspace(0, drop_path, depth).tolist()
        self.blocks = nn.Sequential(
            *(Block(dim, heads, mlp_ratio, 0 if i % 2 else window, drop) for i, drop in enumerate(drops))
        )
        self.norm_first = norm == "then pool"
        self.norm = nn.Identity() if norm == "none" else nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)
        nn.init.trunc_normal_(self.positions, std=INIT_STD)
        self.apply(_small_start)

    def forward(self, images: Tensor) -> Tensor:
        """Images `(N, 3, image_size, image_size)` to logits `(N, classes)`."""
        tokens = self.patches(images).permute(0, 2, 3, 1)  # (N, H, W, C)
        tokens = self.blocks(tokens + self.positions)
        if self.norm_first:
            return self.head(self.norm(tokens).mean((1, 2)))
        return self.head(self.norm(tokens.mean((1, 2))))


class Block(nn.Module):
    """`x + DropPath(attention(norm x))`, then `x + DropPath(MLP(norm x))`, attention in windows if there are any."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float = 4.0, window: int = 0, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        hidden = int(dim * mlp_ratio)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.window, self.drop_path = window, DropPath(drop_path)

    def forward(self, tokens: Tensor) -> Tensor:
        """`(N, H, W, C)` to `(N, H, W, C)`."""
        tokens = tokens + self.drop_path(in_windows(self.attention, self.norm1(tokens), self.window))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


class Attention(nn.Module):
    """Every token asks every other one: `softmax(Q K^T / sqrt d) V`, in `heads` groups of channels."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{dim} channels do not divide into {heads} heads")
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv, self.projection = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """`(N, H, W, C)` to `(N, H, W, C)`."""
        query_key, value = self._split(tokens)
        mixed = self._weights(*query_key) @ value  # (N, heads, H W, C / heads)
        return self.projection(mixed.transpose(1, 2).reshape(tokens.shape))

    def weights(self, tokens: Tensor) -> Tensor:
        """Who looks where: `(N, heads, H W, H W)`, rows (queries) sum to 1."""
        return self._weights(*self._split(tokens)[0])

    def _split(self, tokens: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        n, height, width, dim = tokens.shape
        split = self.qkv(tokens).view(n, height * width, 3, self.heads, dim // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)  # each (N, heads, H W, C / heads)
        return (query, key), value

    def _weights(self, query: Tensor, key: Tensor) -> Tensor:
        return (query @ key.mT * self.scale).softmax(-1)


class DropPath(nn.Module):
    """In training, sets each example to 0 with probability `p` and scales the others by `1 / (1 - p)`."""

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"a probability in [0, 1) is needed, got {p}")
        self.p = p

    def forward(self, values: Tensor) -> Tensor:
        """Any shape `(N, ...)`."""
        if not self.training or not self.p:
            return values
        kept = torch.rand(len(values), *[1] * (values.ndim - 1), device=values.device) >= self.p
        return values * kept / (1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p:.3g}"


def in_windows(function: Callable[[Tensor], Tensor], tokens: Tensor, window: int) -> Tensor:
    """Apply `function` to each window of `tokens` `(N, H, W, C)` alone; to the whole grid if `window` is 0."""
    if not window:
        return function(tokens)
    return unpartition(function(partition(tokens, window)), window, tokens.shape)


def partition(tokens: Tensor, window: int) -> Tensor:
    """`(N, H, W, C)` to `(N windows, window, window, C)`, zeros at right and bottom fill the last."""
    n, height, width, dim = tokens.shape
    tokens = nn.functional.pad(tokens, (0, 0, 0, -width % window, 0, -height % window))
    rows, columns = tokens.shape[1] // window, tokens.shape[2] // window
    tokens = tokens.view(n, rows, window, columns, window, dim).transpose(2, 3)  # (N, rows, columns, window, window, C)
    return tokens.reshape(-1, window, window, dim)


def unpartition(windows: Tensor, window: int, shape: torch.Size) -> Tensor:
    """The inverse of `partition` for tokens of `shape` `(N, H, W, C)`: what was filled up is cut off."""
    n, height, width, dim = shape
    rows, columns = -(-height // window), -(-width // window)
    tokens = windows.view(n, rows, columns, window, window, dim).transpose(2, 3)
    return tokens.reshape(n, rows * window, columns * window, dim)[:, :height, :width]


def _small_start(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=INIT_STD)
        nn.init.zeros_(module.bias)
