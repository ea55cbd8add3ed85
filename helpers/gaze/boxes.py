"""Spatial transformers: a box of the image, enlarged to the whole frame (Jaderberg et al. 2015, arXiv 1506.02025)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def box_theta(boxes: Tensor) -> Tensor:
    """The affine map of boxes without rotation.

    Args:
        boxes: `(..., 4)`: scale x, shift x, scale y, shift y, in halves of the frame; (1, 0, 1, 0) is the whole image.

    Returns:
        `(..., 2, 3)`, what `F.affine_grid` takes.
    """
    scale_x, shift_x, scale_y, shift_y = boxes.unbind(-1)
    zero = torch.zeros_like(scale_x)
    return torch.stack([scale_x, zero, shift_x, zero, scale_y, shift_y], -1).unflatten(-1, (2, 3))


def transformed(images: Tensor, theta: Tensor, outside: str = "zeros") -> Tensor:
    """What each affine map shows of its image, all maps of an image in one call.

    Args:
        images: float `(N, C, H, W)`.
        theta: `(N, K, 2, 3)`, from the new frame's coordinates (-1 to 1) to the image's.
        outside: `"zeros"` (black, and no gradient that would call a box back), `"border"` or `"reflection"`.

    Returns:
        `(N, K, C, H, W)`.
    """
    if theta.ndim != 4 or theta.shape[2:] != (2, 3) or len(theta) != len(images):
        raise ValueError(f"theta must be (N, K, 2, 3) for {len(images)} images, got {tuple(theta.shape)}")
    (count, boxes), (channels, height, width) = theta.shape[:2], images.shape[1:]
    with torch.autocast(images.device.type, enabled=False):
        theta = theta.to(torch.promote_types(theta.dtype, torch.float32))
        size = [count * boxes, channels, height, width]
        grid = F.affine_grid(theta.flatten(0, 1), size, align_corners=False)  # (N K, H, W, 2)
        tall = grid.view(count, boxes * height, width, 2)
        seen = F.grid_sample(images.to(grid.dtype), tall, padding_mode=outside, align_corners=False)
    return seen.view(count, channels, boxes, height, width).transpose(1, 2)


def box_corners(theta: Tensor) -> Tensor:
    """Corners of what is shown, clockwise from the upper left: `(..., 4, 2)`, x and y, the image from -1 to 1."""
    frame = torch.tensor([[-1.0, -1.0, 1.0], [1.0, -1.0, 1.0], [1.0, 1.0, 1.0], [-1.0, 1.0, 1.0]]).to(theta)
    return torch.einsum("...ij,kj->...ki", theta, frame)
