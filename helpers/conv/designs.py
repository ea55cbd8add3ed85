"""Other ways to write a convolution, to weigh `conv.CustomConv2d` against; shapes as in `nn.Conv2d`, without groups."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from .function import CustomConv2d


class SavedUnfold(nn.Conv2d):
    """Unfold the whole batch, one product, and let autograd keep the unfolded images: what most students hand in."""

    def forward(self, images: Tensor) -> Tensor:
        columns = F.unfold(images, self.kernel_size, self.dilation, self.padding, self.stride)  # (N, C k k, L)
        out = self.weight.flatten(1) @ columns  # (N, D, L)
        if self.bias is not None:
            out = out + self.bias[:, None]
        return out.view(len(images), -1, *_size(self, images))


class Shifts(nn.Conv2d):
    """No unfolding: the image is shifted to each place of the kernel, multiplied by that place's weights, and added."""

    def forward(self, images: Tensor) -> Tensor:
        height, width = _size(self, images)
        (up, left), (down, right) = self.stride, self.dilation
        padded = F.pad(images, [self.padding[1]] * 2 + [self.padding[0]] * 2)
        total = 0
        for i in range(self.kernel_size[0]):
            for j in range(self.kernel_size[1]):
                rows = slice(i * down, i * down + up * (height - 1) + 1, up)
                columns = slice(j * right, j * right + left * (width - 1) + 1, left)
                total = total + self.weight[:, :, i, j] @ padded[:, :, rows, columns].flatten(2)  # (N, D, L)
        if self.bias is not None:
            total = total + self.bias[:, None]
        return total.view(len(images), -1, height, width)


DESIGNS: dict[str, type[nn.Conv2d]] = {
    "nn.Conv2d": nn.Conv2d,
    "ours: tiles, unfolded again": CustomConv2d,
    "unfolded once and kept": SavedUnfold,
    "shifts": Shifts,
}


def _size(layer: nn.Conv2d, images: Tensor) -> tuple[int, int]:
    """`(H', W')`."""
    terms = zip(images.shape[2:], layer.kernel_size, layer.stride, layer.padding, layer.dilation, strict=True)
    height, width = ((side + 2 * p - d * (k - 1) - 1) // s + 1 for side, k, s, p, d in terms)
    return height, width
