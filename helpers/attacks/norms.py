"""The balls in which attacks search: where to start, which way to step, and how to come back inside.

All work on one image at a time, for a batch `(N, C, H, W)`; sizes are in pixels of [0, 1].
"""

from __future__ import annotations

import math
from typing import ClassVar, Protocol

import torch
from torch import Generator, Tensor


class Norm(Protocol):
    """What an attack asks of a norm."""

    name: ClassVar[str]
    largest: ClassVar[float]  # a larger eps cannot be meant

    def start(self, images: Tensor, eps: float, generator: Generator | None) -> Tensor:
        """A random perturbation of size `eps` or less."""

    def direction(self, gradient: Tensor) -> Tensor:
        """The step of size 1 that raises a linear function with this gradient most."""

    def project(self, delta: Tensor, eps: float) -> Tensor:
        """The point of the ball of radius `eps` that is nearest to `delta`."""

    def size(self, delta: Tensor) -> Tensor:
        """The norm of each image's perturbation, `(N,)`."""


class LInf:
    """The largest change of any value. Budgets are written `8 / 255`."""

    name, largest = "Linf", 1.0

    def start(self, images: Tensor, eps: float, generator: Generator | None) -> Tensor:
        """Uniform in the ball."""
        return blank(images, generator).uniform_(-eps, eps, generator=generator).to(images.device)

    def direction(self, gradient: Tensor) -> Tensor:
        """The gradient's sign; 0 where the gradient is 0."""
        return gradient.sign()

    def project(self, delta: Tensor, eps: float) -> Tensor:
        """Each value clipped to `[-eps, eps]`."""
        return delta.clamp(-eps, eps)

    def size(self, delta: Tensor) -> Tensor:
        """`(N,)`"""
        return delta.flatten(1).abs().amax(1)


class L2:
    """The Euclidean length of the change. A change of 8/255 in each value of a 3x32x32 image has length 1.74."""

    name, largest = "L2", math.inf

    def start(self, images: Tensor, eps: float, generator: Generator | None) -> Tensor:
        """Uniform direction, uniform length up to `eps`."""
        delta = blank(images, generator).normal_(generator=generator)
        length = _per_image(delta).clamp_min(torch.finfo(delta.dtype).tiny)
        return (delta * (torch.empty_like(length).uniform_(generator=generator) / length * eps)).to(images.device)

    def direction(self, gradient: Tensor) -> Tensor:
        """The gradient at length 1; 0 where all of it is 0. Exact also for gradients whose squares are 0 in float32."""
        tiny = torch.finfo(gradient.dtype).tiny
        scaled = gradient / gradient.abs().amax((1, 2, 3), keepdim=True).clamp_min(tiny)  # largest value 1, or all 0
        return scaled / _per_image(scaled).clamp_min(1)

    def project(self, delta: Tensor, eps: float) -> Tensor:
        """Shortened to `eps` where it is longer."""
        return delta * (eps / _per_image(delta).clamp_min(torch.finfo(delta.dtype).tiny)).clamp_max(1)

    def size(self, delta: Tensor) -> Tensor:
        """`(N,)`"""
        return torch.linalg.vector_norm(delta.flatten(1), dim=1)


def blank(images: Tensor, generator: Generator | None) -> Tensor:
    """An unset tensor like `images` where `generator` can fill it: the same seed draws the same on CPU and GPU."""
    return torch.empty_like(images, device=images.device if generator is None else generator.device)


def _per_image(values: Tensor) -> Tensor:
    """L2 norm of each image, `(N, 1, 1, 1)`."""
    return torch.linalg.vector_norm(values, dim=(1, 2, 3), keepdim=True)
