"""Where a kernel stands on an image: the image as columns of patches, and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

TILE = 2**20  # numbers unfolded at a time: 4 MB of float32, near the size of a CPU's cache
TILE_GPU = 2**27  # few large products, for many cores

Pair = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """Where the kernel stands: what `nn.Conv2d` calls by these names, and the images' height and width."""

    size: Pair
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int

    @property
    def output(self) -> Pair:
        """Height and width of the output: `floor((H + 2 p - d (k - 1) - 1) / s) + 1`."""
        return tuple(
            (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, pad, dilation in zip(
                self.size, self.kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )

    @property
    def places(self) -> int:
        """How many: `L = H' W'`."""
        return self.output[0] * self.output[1]

    @property
    def pointwise(self) -> bool:
        """Each output pixel sees one input pixel: the image is its own unfolding."""
        return self.kernel == self.stride == (1, 1) and self.padding == (0, 0)

    def unfold(self, images: Tensor) -> Tensor:
        """`(n, C, H, W)` to columns `(n, groups, C/groups k k, L)`."""
        if self.pointwise:
            return images.flatten(2).unflatten(1, (self.groups, -1))
        (top, left), (down, right), (far, wide) = self.padding, self.stride, self.dilation
        padded = F.pad(images, (left, left, top, top))
        n, c, h, w = padded.stride()
        shape = (*images.shape[:2], *self.kernel, *self.output)  # (n, C, k, k, H', W')
        windows = padded.as_strided(shape, (n, c, h * far, w * wide, h * down, w * right))  # nothing copied yet
        return windows.reshape(len(images), self.groups, -1, self.places)

    def fold(self, columns: Tensor) -> Tensor:
        """The transpose of `unfold`: each number of a column is added to the pixel it was read from."""
        columns = columns.flatten(1, 2)
        if self.pointwise:
            return columns.unflatten(2, self.size)
        (top, left), (height, width) = self.padding, self.size
        windows = columns.unflatten(2, self.output).unflatten(1, (-1, *self.kernel))  # (n, C, k, k, H', W')
        padded = columns.new_zeros(*windows.shape[:2], height + 2 * top, width + 2 * left)
        for i, rows in enumerate(self.runs(0)):
            for j, line in enumerate(self.runs(1)):
                padded[:, :, rows, line] += windows[:, :, i, j]
        return padded[:, :, top : top + height, left : left + width]

    def runs(self, axis: int) -> list[slice]:
        """For each row (axis 0) or column (1) of the kernel, the pixels of the padded image that it stands on."""
        step, last = self.stride[axis], self.stride[axis] * (self.output[axis] - 1)
        starts = range(0, self.kernel[axis] * self.dilation[axis], self.dilation[axis])
        return [slice(start, start + last + 1, step) for start in starts]

    def tiles(self, images: Tensor) -> Iterator[slice]:
        """Slices of the batch whose columns fit into the tile."""
        each = images.shape[1] * self.kernel[0] * self.kernel[1] * self.places
        step = max(1, (TILE_GPU if images.is_cuda else TILE) // max(1, each))
        return (slice(first, first + step) for first in range(0, len(images), step))

    def rows(self, weight: Tensor) -> Tensor:
        """`(D, C/groups, k, k)` to `(groups, D/groups, C/groups k k)`."""
        return weight.flatten(1).unflatten(0, (self.groups, -1))

    def split(self, output: Tensor) -> Tensor:
        """`(n, D, H', W')` to `(n, groups, D/groups, L)`."""
        return output.flatten(2).unflatten(1, (self.groups, -1))
