"""Views without a warp: crops at a gaze, the cortical pyramid, and the low-pass filters that are their controls."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def crops(images: Tensor, gazes: Tensor, size: int) -> Tensor:
    """Windows of `size` x `size` pixels around each gaze ("coarse fixations"), cut at whole pixels.

    Args:
        images: float `(N, C, n, n)`; beyond its edge an image goes on as its mirror image.
        gazes: `(N, G, 2)` or `(G, 2)`, x and y in pixels from the centre; rounded to whole ones.

    Returns:
        `(N, G, C, size, size)`.
    """
    n = images.shape[-1]
    gazes = gazes.expand(len(images), *gazes.shape[-2:])
    first = gazes.round().long() + (n - size) // 2  # (N, G, 2): where a window begins
    beyond = max(0, -int(first.min()), int(first.max()) + size - n)
    images = F.pad(images, [beyond] * 4, mode="reflect") if beyond else images
    steps = torch.arange(size, device=images.device)
    columns, rows = (first[..., axis, None] + beyond + steps for axis in (0, 1))  # (N, G, size)
    example = torch.arange(len(images), device=images.device)[:, None, None, None]
    found = images.permute(0, 2, 3, 1)[example, rows[..., None], columns[..., None, :]]  # (N, G, size, size, C)
    return found.permute(0, 1, 4, 2, 3)


def gaussian_kernel(sigma: float, half: int) -> Tensor:
    """Weights `(2 half + 1,)` of a Gaussian; they sum to 1."""
    weights = torch.exp(-0.5 * (torch.arange(-half, half + 1) / sigma) ** 2)
    return weights / weights.sum()


def gaussian_blur(images: Tensor, kernel: Tensor) -> Tensor:
    """`images` `(N, C, H, W)` smoothed by `kernel` `(K,)` along both axes; mirrored at the edge: flat stays flat."""
    channels, half = images.shape[1], len(kernel) // 2
    kernel = kernel.to(images).expand(channels, 1, 1, -1)
    padded = F.pad(images, [half] * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel, groups=channels), kernel.mT, groups=channels)


def pyramid(images: Tensor, gazes: Tensor, sizes: Sequence[int] = (12, 24), radii: Sequence[int] = (1, 2)) -> Tensor:
    """The cortical views: the wider a window around the gaze, the coarser its pixels.

    Each window is smoothed by a Gaussian with sigma `radius / 2` and then read at every `radius`-th pixel, from
    `radius // 2` on, so that all have the same number of pixels.

    Args:
        images: float `(N, C, n, n)`; `gazes`: `(N, G, 2)` or `(G, 2)`, pixels from the centre.
        sizes, radii: side of each window and the step in it, in pixels; each size is the same multiple of its radius.

    Returns:
        `(N, G, L C, k, k)`: the L windows after each other among the channels, the finest first.

    Raises:
        ValueError: the windows would not have the same number of pixels.
    """
    if len({size / radius for size, radius in zip(sizes, radii, strict=True)}) != 1:
        raise ValueError(f"windows of {tuple(sizes)} pixels read at steps of {tuple(radii)} have different sizes")
    levels = []
    for size, radius in zip(sizes, radii, strict=True):
        window = crops(images, gazes, size)
        smooth = gaussian_blur(window.flatten(0, 1), gaussian_kernel(radius / 2, 2 * radius))
        levels.append(smooth[..., radius // 2 :: radius, radius // 2 :: radius].unflatten(0, window.shape[:2]))
    return torch.cat(levels, 2)


def halved(images: Tensor) -> Tensor:
    """`images` at half their resolution and back to their size: what a plain low-pass filter leaves."""
    small = F.interpolate(images, scale_factor=0.5, mode="bilinear", antialias=True)
    return F.interpolate(small, size=images.shape[-2:], mode="bilinear")


def smoothed(images: Tensor) -> Tensor:
    """`images` behind a 3 x 3 binomial filter (1, 2, 1): the mildest blur."""
    return gaussian_blur(images, torch.tensor([0.25, 0.5, 0.25]))
