"""Augmentation for photographs of scenes: another part of the image, turned a little, in other colours."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


@dataclass(frozen=True)
class RandomView:
    """A random part of each image, turned by a random angle, enlarged to the image's size; bilinear.

    The turned rectangle always lies inside the image (it shrinks where it must), so nothing has to be made up.

    Args:
        area: smallest and largest share of the image's area, before shrinking.
        ratio: smallest and largest width by height.
        degrees: largest angle, to either side.
    """

    area: tuple[float, float] = (0.25, 1.0)
    ratio: tuple[float, float] = (0.8, 1.2)
    degrees: float = 15.0

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        placed = self.placed(len(images), images.device, generator)
        grid = F.affine_grid(placed, list(images.shape), align_corners=False)  # (N, H, W, 2)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False).clamp_(0, 1)

    def placed(self, count: int, device: torch.device, generator: Generator) -> Tensor:
        """The map from a view to its image, `(N, 2, 3)`, for square images whose pixels lie in -1 .. 1."""
        draw = torch.rand(5, count, device=device, generator=generator)
        area, ratio = _between(draw[0], *self.area), _between(draw[1], *self.ratio)
        half = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1)  # (N, 2): width and height, image: 1
        angle = _between(draw[2], -self.degrees, self.degrees) * math.pi / 180
        sin, cos = angle.sin(), angle.cos()
        turn = torch.stack([cos, -sin, sin, cos], 1).view(-1, 2, 2)
        reach = (turn.abs() @ half[:, :, None])[..., 0]  # (N, 2): of the turned rectangle, to the side and up
        shrink = 1 / reach.amax(1, keepdim=True).clamp_min(1)
        room = 1 - reach * shrink  # (N, 2): how far its centre may lie from the image's
        centre = room * (2 * draw[3:].T - 1)
        return torch.cat([turn * (half * shrink)[:, None, :], centre[:, :, None]], 2)


@dataclass(frozen=True)
class RandomGain:
    """Multiplies each channel of each image by its own factor between `1 - size` and `1 + size`, clipped to [0, 1]."""

    size: float = 0.15

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        draw = torch.rand(*images.shape[:2], 1, 1, device=images.device, generator=generator)
        return (images * _between(draw, 1 - self.size, 1 + self.size)).clamp_(0, 1)


def _between(uniform: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * uniform
