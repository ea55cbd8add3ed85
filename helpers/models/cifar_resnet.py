"""ResNet-20 for CIFAR, section 4.2 of He et al. 2015 (arXiv 1512.03385), with shortcuts that have no parameters."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Two 3 x 3 convolutions around a shortcut; where channels double, the shortcut takes every second pixel and fills
    the new channels with zeros (the paper's option A).
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.stride, self.extra = (1 if out == channels else 2), out - channels
        self.conv1 = nn.Conv2d(channels, out, 3, self.stride, 1, bias=False)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(out), nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(residual + self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        if not self.extra:
            return x
        kept = x[:, :, :: self.stride, :: self.stride]
        return F.pad(kept, (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2))


class CifarResNet(nn.Module):
    """Images `(N, 3, H, W)`, normalised, to logits `(N, classes)`: 3 stages of `blocks` blocks, 16 to 64 channels.

    `blocks=3` is ResNet-20 (269,722 parameters for ten classes); the names of its parts are those of public weights.
    `width` is the number of channels of the first stage, which the next two double.
    """

    def __init__(self, classes: int = 10, blocks: int = 3, width: int = 16) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(Block(before, out), *(Block(out, out) for _ in range(blocks - 1)))
            for before, out in ((width, width), (width, 2 * width), (2 * width, 4 * width))
        )
        self.linear = nn.Linear(4 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))  # (N, 4 width, H / 4, W / 4)
        return self.linear(x.mean((2, 3)))
