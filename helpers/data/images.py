"""A labelled set of images held in memory."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from ..contract import check_labels


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images and labels in memory, with where they came from.

    Args:
        images: uint8 `(N, C, H, W)`, 0 to 255 (bytes: four times as many fit into memory as floats).
        labels: int64 `(N,)`, each in `0 .. len(classes) - 1`.
        classes: name of each class, in the order of the labels.
        name: the set, such as `"cifar100"`.
        split: which part of it.
        source: where this copy was read from, without folders.
        masks: bool `(N, H, W)`, true on the object, or None where nobody knows.

    Raises:
        ValueError: a shape, a type or a label does not fit.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str = "unnamed"
    split: str = "all"
    source: str = "memory"
    masks: Tensor | None = None

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            found = f"{self.images.dtype} {tuple(self.images.shape)}"
            raise ValueError(
                f"images must be uint8 (N, C, H, W), got {found}; use `to_uint8` for float images in [0, 1]"
            )
        check_labels(self.labels, len(self.classes), self.images)
        if self.masks is not None and self.masks.shape != self.images[:, 0].shape:
            raise ValueError(f"masks must be (N, H, W) like the images, got {tuple(self.masks.shape)}")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> ImageSet:
        """The examples at `index` (positions, a boolean mask or a slice), as a set of their own."""
        masks = None if self.masks is None else self.masks[index]
        return replace(self, images=self.images[index], labels=self.labels[index], masks=masks)

    def to(self, device: torch.device | str) -> ImageSet:
        """The same set with its tensors on `device`."""
        masks = None if self.masks is None else self.masks.to(device)
        return replace(self, images=self.images.to(device), labels=self.labels.to(device), masks=masks)

    def take(self, count: int, seed: int = 0) -> ImageSet:
        """`count` examples drawn without replacement, the same share of every class."""
        return self if count >= len(self) else self.divide(count, seed)[0]

    def divide(self, count: int, seed: int = 0) -> tuple[ImageSet, ImageSet]:
        """Two disjoint sets, the first with `count` examples, both with the class shares of the whole."""
        if not len(self.classes) <= count <= len(self) - len(self.classes):
            raise ValueError(
                f"cannot take {count} of {len(self)} examples: each part needs one of all {len(self.classes)} classes"
            )
        kept, rest = train_test_split(
            torch.arange(len(self)).numpy(), train_size=count, random_state=seed, stratify=self.labels.cpu().numpy()
        )
        return self[torch.from_numpy(kept).sort().values], self[torch.from_numpy(rest).sort().values]

    def balanced(self, seed: int = 0) -> ImageSet:
        """Every class as often as the largest: all images of a class, then some of them again, drawn anew each round.

        For training images only, after the division and with transforms that draw afresh: a copy made before the
        division would lie on both sides, and one that always looks the same teaches nothing.

        Raises:
            ValueError: a class without an image.
        """
        counts = self.labels.bincount(minlength=len(self.classes))
        if counts.min() == 0:
            raise ValueError(f"class {self.classes[int(counts.argmin())]!r} has no image: there is nothing to repeat")
        most, generator, rows = int(counts.max()), torch.Generator().manual_seed(seed), []
        for label, count in enumerate(counts.tolist()):
            own = (self.labels == label).nonzero().flatten()
            rounds = [own[torch.randperm(count, generator=generator)] for _ in range(-(-most // count))]
            rows.append(torch.cat(rounds)[:most])
        return self[torch.cat(rows).sort().values]

    def checksum(self) -> str:
        """CRC-32 of pixels and labels: two runs with the same one saw the same data."""
        pixels = zlib.crc32(self.images.cpu().contiguous().numpy().data)
        return f"{zlib.crc32(self.labels.cpu().contiguous().numpy().data, pixels):08x}"

    def describe(self) -> dict[str, object]:
        """What a results file says of this set."""
        return {
            "name": self.name,
            "split": self.split,
            "source": self.source,
            "examples": len(self),
            "classes": len(self.classes),
            "shape": list(self.images.shape[1:]),
            "crc32": self.checksum(),
        }
