"""The retinal warp: an image as an eye sees it, dense samples where it looks and sparse ones around.

After Vuyyuru et al. 2020, "Biologically inspired mechanisms for adversarial robustness" (arXiv 2006.16427). The place
that is looked at stays where it is in the frame; around it the image is enlarged, towards the rim it is compressed. A
gaze is `(x, y)` in pixels from the centre of the image, x to the right and y down, as torch's grids have it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import brentq, nnls
from torch import Tensor

DENSITY = 10  # samples in a unit of area at the centre, for each one at the rim
Mode = Literal["bilinear", "nearest", "straight_through"]
Outside = Literal["zeros", "border", "reflection"]


class RetinaFit(NamedTuple):
    """`r(q) = a q^2 + b q`: how far from the gaze that lies which is shown `q` pixels from it; `rf`: the root found."""

    a: float
    b: float
    rf: float


def sampling_radii(n: int, rf: float) -> np.ndarray:
    """Distances from the gaze of the `n / 2` samples along a ray, in pixels: each step grows with the distance."""
    growth = np.log(DENSITY) / (n // 2)
    radii = [0.0]
    while len(radii) < n // 2:
        step = np.exp(min(growth * radii[-1] / 2, 100.0))  # the search for rf also tries values far off
        radii.append(radii[-1] + step / np.sqrt(np.pi * rf))
    return np.array(radii)


@lru_cache
def retina_fit(n: int) -> RetinaFit:
    """The warp for images of `n` x `n` pixels.

    `rf` is chosen so that the last sample lies at the rim, `n / 2` pixels away; a parabola without a constant, its two
    coefficients not below 0, is then fitted to the radii. `n` 32 gives a 0.0345, b 0.526: at the gaze, everything is
    enlarged 1 / b = 1.9 times.

    Raises:
        ValueError: fewer than 8 pixels, or an odd number.
    """
    if n < 8 or n % 2:
        raise ValueError(f"the retina needs an even side of 8 pixels or more, got {n}")
    rf = brentq(lambda value: sampling_radii(n, value)[-1] - n / 2, 0.01, 5, xtol=1e-14, rtol=1e-14)
    q = np.arange(n // 2)
    (a, b), _ = nnls(np.stack([q**2, q], 1), sampling_radii(n, rf))
    return RetinaFit(float(a), float(b), float(rf))


def retina_grid(gazes: Tensor, n: int) -> Tensor:
    """Where each pixel of the warped image is read, for `F.grid_sample(..., align_corners=False)`.

    Args:
        gazes: float `(M, 2)`, x and y in pixels from the centre; gradients flow back to them.
        n: side of the image in pixels.

    Returns:
        `(M, n, n, 2)`, x and y, from -1 to 1 inside the image; float32 at least, also under autocast: half precision
        would round a place by a tenth of a pixel.
    """
    if gazes.ndim != 2 or gazes.shape[1] != 2 or not gazes.is_floating_point():
        raise ValueError(f"gazes must be float (M, 2), got {gazes.dtype} {tuple(gazes.shape)}")
    a, b, _ = retina_fit(n)
    gazes = gazes.to(torch.promote_types(gazes.dtype, torch.float32))[:, None, None]  # (M, 1, 1, 2)
    line = torch.arange(n, device=gazes.device, dtype=gazes.dtype) - (n - 1) / 2
    pixels = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)  # (n, n, 2), from the centre
    away = pixels - gazes  # (M, n, n, 2), from the gaze
    distance = (away.square().sum(-1, keepdim=True) + 1e-12).sqrt()  # the constant: a gradient at the gaze itself
    return (away * (a * distance + b) + gazes) * (2 / n)


def look(images: Tensor, gazes: Tensor, mode: Mode = "bilinear", outside: Outside = "zeros") -> Tensor:
    """What is seen of each image at each of its gazes.

    All gazes of an image are read in one call, as the storeys of one tall grid, so that no image is copied.

    Args:
        images: float `(N, C, n, n)`.
        gazes: float `(N, G, 2)`, or `(G, 2)` for the same gazes in all images; pixels from the centre.
        mode: `"bilinear"` has gradients to images and gazes; `"nearest"` none to the gazes; `"straight_through"` shows
            the nearest pixel and takes the gradients of the bilinear one.
        outside: what lies beyond the image: black, its last pixel, or its mirror image.

    Returns:
        float `(N, G, C, n, n)`.

    Raises:
        ValueError: a shape does not fit, images are not square, or a gaze is NaN or infinite.
    """
    images, gazes = _checked(images, gazes)
    (count, views), (_, channels, n, _) = gazes.shape[:2], images.shape
    grid = retina_grid(gazes.flatten(0, 1), n).view(count, views * n, n, 2)
    images = images.to(grid.dtype)
    if mode == "straight_through":
        smooth, sharp = _sample(images, grid, "bilinear", outside), _sample(images, grid, "nearest", outside)
        seen = smooth + (sharp - smooth).detach()
    else:
        seen = _sample(images, grid, mode, outside)
    return seen.view(count, channels, views, n, n).transpose(1, 2)


def fixed_gazes(reach: float) -> Tensor:
    """The centre and the four places `reach` pixels away from it on both axes: float `(5, 2)`."""
    return reach * torch.tensor([[0.0, 0.0], [-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]])


def _sample(images: Tensor, grid: Tensor, mode: str, outside: str) -> Tensor:
    return F.grid_sample(images, grid, mode=mode, padding_mode=outside, align_corners=False)


def _checked(images: Tensor, gazes: Tensor) -> tuple[Tensor, Tensor]:
    if images.ndim != 4 or images.shape[2] != images.shape[3] or not images.is_floating_point():
        raise ValueError(f"images must be float (N, C, n, n), got {images.dtype} {tuple(images.shape)}")
    if gazes.ndim == 2:
        gazes = gazes.expand(len(images), *gazes.shape)
    if gazes.ndim != 3 or len(gazes) != len(images) or gazes.shape[2] != 2:
        raise ValueError(f"gazes must be (N, G, 2) or (G, 2) for {len(images)} images, got {tuple(gazes.shape)}")
    if not torch.isfinite(gazes).all():
        raise ValueError("a gaze is NaN or infinite: look at the head that made it")
    return images, gazes
