"""SimpleNet and its rivals for 100 scene classes, each with a convolution to choose: `nn.Conv2d` or our own.

Layers as CS771's assignment and its students give them. None but MyNet normalises, so the start matters: weights are
drawn as in He et al. 2015 (arXiv 1502.01852), which keeps the size of activations through the layers.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

Conv = Callable[..., nn.Conv2d]  # `nn.Conv2d`, `conv.CustomConv2d`, or what takes the same arguments


class SimpleNet(nn.Sequential):
    """Seven convolutions, two of them in narrow 3x3 bottlenecks; 365,028 parameters for 100 classes.

    Args:
        classes: number of logits.
        conv: makes each convolution.
    """

    def __init__(self, classes: int = 100, conv: Conv = nn.Conv2d) -> None:
        super().__init__(
            *_stem(conv),  # (N, 64, H/4, W/4)
            *_narrow(conv, 64, 64, 256),
            _pool(),  # (N, 256, H/8, W/8)
            *_narrow(conv, 256, 128, 512),
            *_head(512, classes),
        )
        he_start(self)


class CustomNet(nn.Sequential):
    """Three skip blocks, the first at full resolution: 64 times SimpleNet's products; 4,687,780 parameters."""

    def __init__(self, classes: int = 100, conv: Conv = nn.Conv2d) -> None:
        super().__init__(
            Skip(3, 64, 7, conv),
            _pool(),
            Skip(64, 256, 3, conv),
            _pool(),
            Skip(256, 512, 3, conv),
            *_head(512, classes),
        )
        he_start(self)


class CustomNet2(nn.Sequential):
    """CustomNet behind SimpleNet's stem, a sixteenth of the pixels; 4,634,468 parameters."""

    def __init__(self, classes: int = 100, conv: Conv = nn.Conv2d) -> None:
        super().__init__(
            *_stem(conv),
            *(Skip(64, 64, 3, conv) for _ in range(2)),
            _pool(),
            Skip(64, 256, 3, conv),
            _pool(),
            Skip(256, 512, 3, conv),
            *_head(512, classes),
        )
        he_start(self)


class MyNet(nn.Sequential):
    """Seven bottlenecks with BatchNorm; 3,195,876 parameters."""

    def __init__(self, classes: int = 100, conv: Conv = nn.Conv2d) -> None:
        super().__init__(
            *_stem(conv),
            Bottleneck(64, 64, 128, conv),
            *(Bottleneck(128, 128, 128, conv) for _ in range(2)),
            _pool(),
            Bottleneck(128, 256, 256, conv),
            *(Bottleneck(256, 256, 256, conv) for _ in range(2)),
            _pool(),
            Bottleneck(256, 128, 512, conv),
            *_head(512, classes),
        )
        he_start(self)


class Skip(nn.Module):
    """Convolution, ReLU, convolution, plus the input (by a 1x1 convolution where channels change), ReLU."""

    def __init__(self, before: int, after: int, kernel: int, conv: Conv = nn.Conv2d) -> None:
        super().__init__()
        half = kernel // 2
        self.body = nn.Sequential(
            conv(before, after, kernel, padding=half), nn.ReLU(inplace=True), conv(after, after, kernel, padding=half)
        )
        self.skip = nn.Identity() if before == after else conv(before, after, 1)

    def forward(self, images: Tensor) -> Tensor:
        """`(N, before, H, W)` to `(N, after, H, W)`."""
        return (self.body(images) + self.skip(images)).relu_()


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with BatchNorm, plus a 1x1 convolution of the input (never the input), ReLU."""

    def __init__(self, before: int, middle: int, after: int, conv: Conv = nn.Conv2d) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(before, middle, 1),
            nn.BatchNorm2d(middle),
            nn.ReLU(inplace=True),
            conv(middle, middle, 3, padding=1),
            nn.BatchNorm2d(middle),
            nn.ReLU(inplace=True),
            conv(middle, after, 1),
            nn.BatchNorm2d(after),
        )
        self.skip = conv(before, after, 1)

    def forward(self, images: Tensor) -> Tensor:
        """`(N, before, H, W)` to `(N, after, H, W)`."""
        return (self.body(images) + self.skip(images)).relu_()


def he_start(network: nn.Module) -> None:
    """Weights of every convolution from a normal distribution of variance 2 / fan-in, biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _pool() -> nn.Module:
    return nn.MaxPool2d(3, stride=2, padding=1)


def _stem(conv: Conv) -> tuple[nn.Module, ...]:
    """`(N, 3, H, W)` to `(N, 64, H/4, W/4)`."""
    return conv(3, 64, 7, stride=2, padding=3), nn.ReLU(inplace=True), _pool()


def _narrow(conv: Conv, before: int, middle: int, after: int) -> tuple[nn.Module, ...]:
    """1x1 to `middle` channels, 3x3, 1x1 to `after`, a ReLU after each."""
    relu = nn.ReLU(inplace=True)
    return conv(before, middle, 1), relu, conv(middle, middle, 3, padding=1), relu, conv(middle, after, 1), relu


def _head(channels: int, classes: int) -> tuple[nn.Module, ...]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)
