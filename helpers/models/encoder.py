"""Images to a grid of region vectors: a convolutional network without its pooling and classifier."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .normalize import Normalize


class GridEncoder(nn.Module):
    """Frozen and always in evaluation mode, `train()` or not: its BatchNorm must not drift while a decoder learns.

    Args:
        body: images to a feature map `(N, D, h, w)`.
        size: pixels that images are resized to (bicubic, squashed) before they go in.
        mean, std: of the channels that `body` was trained with.
        grid: the map is averaged to `grid x grid` cells; None leaves it as it is.
    """

    def __init__(
        self, body: nn.Module, size: int, mean: Sequence[float], std: Sequence[float], grid: int | None = None
    ) -> None:
        super().__init__()
        self.normalize, self.body, self.size, self.grid = Normalize(mean, std), body, size, grid
        self.requires_grad_(False).train()

    def train(self, mode: bool = True) -> GridEncoder:
        """Stays in evaluation mode."""
        return super().train(False)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.normalize.mean.device

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Pixels `(N, 3, H, W)` in [0, 1] to regions `(N, R, D)`, row by row of the grid."""
        features = self.body(self.normalize(self.resized(images)))  # (N, D, h, w)
        if self.grid is not None:
            features = F.adaptive_avg_pool2d(features, self.grid)
        return features.flatten(2).transpose(1, 2)

    def resized(self, images: Tensor) -> Tensor:
        """Images of any size as the network wants them, `(N, 3, size, size)`, still in [0, 1]."""
        if images.shape[2:] == (self.size, self.size):
            return images
        return F.interpolate(images, (self.size, self.size), mode="bicubic", antialias=True).clamp(0, 1)
