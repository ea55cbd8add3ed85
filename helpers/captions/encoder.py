"""Images to a grid of region vectors: a convolutional network without its pooling and classifier."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO

import timm
import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torchvision.models import get_model

from ..data.toy import FINE
from ..models import Normalize, small_cnn
from ..models.weights import find_weights
from ..training.checkpoints import CheckpointError

# Pixels that torchvision's EfficientNets were made for.
SIZES = {f"efficientnet_b{n}": size for n, size in enumerate((224, 240, 260, 300, 380, 456, 528, 600))}


class GridEncoder(nn.Module):
    """Frozen and always in evaluation mode, `train()` or not: its BatchNorm must not drift while a decoder learns.

    Args:
        body: images to a feature map `(N, D, h, w)`.
        size: pixels that images are resized to (bicubic, squashed) before they go in.
        mean, std: of the channels that `body` was trained with.
        grid: the map is averaged to `grid x grid` cells; None leaves it as it is.
    """

    def __init__(
        self, body: nn.Module, size: int, mean: Sequence[float], std: Sequence[float], grid: int | None = None
    ) -> None:
        super().__init__()
        self.normalize, self.body, self.size, self.grid = Normalize(mean, std), body, size, grid
        self.requires_grad_(False).train()

    def train(self, mode: bool = True) -> GridEncoder:
        """Stays in evaluation mode."""
        return super().train(False)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.normalize.mean.device

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Pixels `(N, 3, H, W)` in [0, 1] to regions `(N, R, D)`, row by row of the grid."""
        features = self.body(self.normalize(self.resized(images)))  # (N, D, h, w)
        if self.grid is not None:
            features = F.adaptive_avg_pool2d(features, self.grid)
        return features.flatten(2).transpose(1, 2)

    def resized(self, images: Tensor) -> Tensor:
        """Images of any size as the network wants them, `(N, 3, size, size)`, still in [0, 1]."""
        if images.shape[2:] == (self.size, self.size):
            return images
        return F.interpolate(images, (self.size, self.size), mode="bicubic", antialias=True).clamp(0, 1)


def load_encoder(
    name: str, *, size: int | None = None, grid: int | None = None, network: nn.Sequential | None = None
) -> GridEncoder:
    """The network `name` up to its last feature map, with ImageNet weights.

    Args:
        name: `"efficientnet_lite0"` (regions of 1,280 values; weights from `$DATA_ROOT/weights` or timm's hub), or
            `"efficientnet_b0"` to `"efficientnet_b7"` (1,280 to 2,560; weights from torchvision's host).
        size: pixels of the image as the network sees it; None: those it was made for.
        grid: average the map to `grid x grid` regions; None: as many as there are, size / 32 a side.
        network: for the name `"toy"`, a trained `toy_network()` (None: an untrained one); for no other.

    Raises:
        ValueError: another name. CheckpointError: the weights cannot be had; the message says where to put them.
    """
    if name == "toy":
        body = (network or toy_network())[:-4]  # without pooling and head
        return GridEncoder(body, 32, (0.5,) * 3, (0.5,) * 3, grid)
    if name == "efficientnet_lite0":
        weights = find_weights(name)
        network = timm.create_model("tf_efficientnet_lite0")
        network.load_state_dict(weights.state)
        return GridEncoder(_Features(network), size or 224, weights.mean, weights.std, grid)
    if name not in SIZES:
        raise ValueError(f"unknown encoder {name!r}: take efficientnet_lite0 or one of {', '.join(SIZES)}")
    return GridEncoder(
        _torchvision(name).features, size or SIZES[name], IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, grid
    )


def toy_network() -> nn.Sequential:
    """For the toy world's 100 classes at 32 px; its last feature map has 8 x 8 cells of 64 values."""
    return small_cnn(len(FINE))


class _Features(nn.Module):
    """timm's name for "up to the last feature map", as `forward`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.forward_features(images)


def _torchvision(name: str) -> nn.Module:
    """torchvision's network with its ImageNet weights, whose checksum its own name holds."""
    try:
        with redirect_stdout(StringIO()):  # it would say where on this machine it keeps them
            return get_model(name, weights="DEFAULT", progress=False)
    except OSError as error:  # URLError is one
        raise CheckpointError(
            f"cannot download torchvision's weights of {name} ({error}): connect to a network, or take "
            "efficientnet_lite0, whose weights can be put under DATA_ROOT (data/README.md)"
        ) from error
