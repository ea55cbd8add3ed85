"""torchvision's ResNet-18 for images of any size, with the ImageNet stem or one for small images."""

from __future__ import annotations

from torch import nn


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
