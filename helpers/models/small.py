"""The smallest network that learns the toy world in seconds."""

from __future__ import annotations

from torch import nn

LAST_CONV = 8  # its place in the Sequential


def small_cnn(classes: int, dropout: float = 0.0) -> nn.Sequential:
    """Three 3x3 convolutions of 16, 32 and 64 channels with BatchNorm, the largest value of each, a linear head.

    An image of `H x W` reaches the last convolution (`LAST_CONV`) as `H/4 x W/4` cells.
    """
    layers: list[nn.Module] = []
    for before, after in ((3, 16), (16, 32), (32, 64)):
        conv = nn.Conv2d(before, after, 3, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(
        *layers[:-1], nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(64, classes)
    )
