"""Batches from a set in memory: indexed, scaled and augmented on the device, the same for the same seed and epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from .images import ImageSet

Transform = Callable[[Tensor, Generator], Tensor]  # images in [0, 1], (N, C, H, W), and where the randomness comes from


@dataclass(frozen=True)
class GaussianNoise:
    """Adds noise of mean 0 and the given variance (pixels are in [0, 1]) to every value, then clips to [0, 1]."""

    variance: float

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        noise = torch.empty_like(images).normal_(0.0, self.variance**0.5, generator=generator)
        return noise.add_(images).clamp_(0, 1)


@dataclass(frozen=True)
class RandomFlip:
    """Mirrors each image left to right with probability `p`."""

    p: float = 0.5

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        flip = torch.rand(len(images), 1, 1, 1, device=images.device, generator=generator) < self.p
        return torch.where(flip, images.flip(3), images)


@dataclass(frozen=True)
class RandomCrop:
    """Shifts each image by up to `padding` pixels on each axis; the border is filled by reflection."""

    padding: int = 4

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        n, c, height, width = images.shape
        padded = F.pad(images, [self.padding] * 4, mode="reflect")  # (N, C, H + 2P, W + 2P)
        shift = torch.randint(0, 2 * self.padding + 1, (2, n, 1), device=images.device, generator=generator)
        rows = (shift[0] + torch.arange(height, device=images.device))[:, None, :, None]  # (N, 1, H, 1)
        columns = (shift[1] + torch.arange(width, device=images.device))[:, None, None, :]  # (N, 1, 1, W)
        example = torch.arange(n, device=images.device)[:, None, None, None]
        return padded[example, torch.arange(c, device=images.device)[:, None, None], rows, columns]  # (N, C, H, W)


@dataclass(frozen=True)
class Resize:
    """Bilinear resize to `size` x `size` pixels, smoothed (antialiased) when it shrinks."""

    size: int

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        return F.interpolate(images, size=(self.size, self.size), mode="bilinear", antialias=True)


class Batches:
    """The batches of an `ImageSet`, epoch by epoch.

    Order, augmentation and noise of epoch `e` depend on `(seed, e)` alone, so a run that is killed and resumed sees
    what it would have seen.

    Args:
        data: the set; it is moved to `device` whole.
        batch_size: examples a batch, over all processes; the last batch may be smaller.
        shuffle: a new order each epoch.
        transforms: called in this order on float images `(N, C, H, W)` in [0, 1], each with the epoch's generator.
        seed: of order and transforms.
    """

    def __init__(
        self,
        data: ImageSet,
        batch_size: int,
        *,
        shuffle: bool = False,
        transforms: Sequence[Transform] = (),
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        if batch_size < 1 or not len(data):
            raise ValueError(
                f"need a batch size of 1 or more and a set that is not empty, got {batch_size} and {len(data)} examples"
            )
        self.data, self.batch_size, self.shuffle, self.seed = data.to(device), batch_size, shuffle, seed
        self.transforms, self.device = tuple(transforms), torch.device(device)

    def __len__(self) -> int:
        return -(-len(self.data) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.epoch(0)

    def epoch(self, epoch: int, rank: int = 0, world: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield `(images, labels)`: float32 `(N, C, H, W)` in [0, 1] and int64 `(N,)`.

        Of `world` processes, number `rank` gets its share of each batch.
        """
        order = torch.arange(len(self.data), device=self.device)
        if self.shuffle:
            order = torch.randperm(len(self.data), device=self.device, generator=self._generator(epoch, 0))
        generator = self._generator(epoch, 1 + rank)
        for index in order.split(self.batch_size):
            if len(index) >= world:  # else some process would have no example, and the others would wait for it
                yield self._batch(index.tensor_split(world)[rank], generator)

    def _generator(self, epoch: int, stream: int) -> Generator:
        # Seeds next to each other give unrelated streams; the factors keep (seed, epoch, stream) apart.
        return torch.Generator(self.device).manual_seed((self.seed * 1_000_003 + epoch) * 1_009 + stream)

    def _batch(self, index: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        images = self.data.images[index].float().div_(255)
        for transform in self.transforms:
            images = transform(images, generator)
        return images, self.data.labels[index]

    def describe(self) -> dict[str, object]:
        """What decides the batches: compared before a run is resumed."""
        return {
            "data": self.data.describe(),
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "seed": self.seed,
            "transforms": [repr(t) for t in self.transforms],
        }
