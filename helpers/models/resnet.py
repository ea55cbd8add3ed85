"""torchvision's ResNet-18 for images of any size, with the ImageNet stem or one for small images."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def resnet18(classes: int, stem: str = "imagenet") -> nn.Module:
    """ResNet-18 with `classes` outputs and random weights.

    Args:
        stem: `"imagenet"`: 7x7 of stride 2 and max-pooling (a 32-px image reaches the first stage as 8x8).
            `"half"`: 3x3 of stride 2, no pooling (16x16).
            `"small"`: 3x3 of stride 1, no pooling (32x32), as He et al. (arXiv:1512.03385) do for CIFAR.

    Raises:
        ValueError: an unknown stem.
    """
    strides = {"imagenet": None, "half": 2, "small": 1}
    if stem not in strides:
        raise ValueError(f"stem must be one of {', '.join(strides)}, got {stem!r}")
    from torchvision.models import resnet18 as network_of  # slow to import, and not everyone needs it

    network = network_of(num_classes=classes)
    if (stride := strides[stem]) is not None:
        network.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=stride, padding=1, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        network.maxpool = nn.Identity()
    return network


class OnePositionConv2d(nn.Conv2d):
    """An `nn.Conv2d` that leaves out the taps which see nothing but padding, where its output is a single position.

    At the end of a ResNet a 32-px image is 1x1: eight of the nine taps of a 3x3 convolution with padding 1 multiply
    zeros. CPU libraries multiply them all the same. Same weights, same function, same gradients (0 for those taps).
    """

    def forward(self, images: Tensor) -> Tensor:
        """`(N, C, H, W)` to `(N, out_channels, H', W')`, as `nn.Conv2d`."""
        (top, left), (height, width) = self.padding, images.shape[-2:]
        if not self._one_position(height, width):
            return super().forward(images)
        seen = self.weight[:, :, top : top + height, left : left + width]  # the taps that lie on the image
        return F.linear(images.flatten(1), seen.flatten(1), self.bias)[:, :, None, None]

    def _one_position(self, height: int, width: int) -> bool:
        sides = zip((height, width), self.kernel_size, self.padding, self.stride, strict=True)
        return all(size + 2 * pad - kernel < stride and size + pad <= kernel for size, kernel, pad, stride in sides)


def skip_idle_taps(network: nn.Module) -> nn.Module:
    """Turn the plain 2-D convolutions of `network` into `OnePositionConv2d`, in place; the weights stay as they are."""
    for module in network.modules():
        plain = type(module) is nn.Conv2d and module.groups == 1 and module.dilation == (1, 1)
        if plain and module.padding_mode == "zeros" and not isinstance(module.padding, str):
            module.__class__ = OnePositionConv2d
    return network
