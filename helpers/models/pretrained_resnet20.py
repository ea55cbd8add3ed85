"""A ResNet-20 that was trained on CIFAR-10 elsewhere: from a file under `$DATA_ROOT`, else from torch's hub."""

from __future__ import annotations

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from ..data.loading import data_root
from ..training.checkpoints import CheckpointError
from .cifar_resnet import CifarResNet
from .normalize import normalized

FILE = "resnet20_cifar10.safetensors"
HUB, HUB_MEAN, HUB_STD = "chenyaofo/pytorch-cifar-models", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def pretrained_resnet20() -> tuple[nn.Module, str]:
    """Pixels `(N, 3, 32, 32)` in [0, 1] to ten logits, frozen, in eval mode; and where the weights come from.

    The file's network wants ImageNet's mean and std, the hub's wants CIFAR-10's.

    Raises:
        CheckpointError: the file is no such network, or there is neither file nor hub.
    """
    path = data_root() / "weights" / FILE
    if path.is_file():
        network, mean, std, source = _from_file(), IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, f"weights/{FILE}"
    else:
        network, mean, std, source = _from_hub(), HUB_MEAN, HUB_STD, f"torch hub {HUB}"
    return normalized(network, mean, std).eval().requires_grad_(False), source


def _from_file() -> nn.Module:
    network = CifarResNet()
    try:
        network.load_state_dict(load_file(data_root() / "weights" / FILE))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise CheckpointError(f"weights/{FILE} is no ResNet-20 of the kind known: {error}") from error
    return network


def _from_hub() -> nn.Module:
    """Without asking GitHub whether the branch exists: that question is rationed for machines that share an address."""
    try:
        return torch.hub.load(
            HUB, "cifar10_resnet20", pretrained=True, trust_repo=True, skip_validation=True, verbose=False
        )
    except Exception as error:  # whatever the network or the hub does, the answer is the same
        raise CheckpointError(
            f"no ResNet-20: {FILE} is not in {data_root() / 'weights'}, and torch hub said "
            f"{type(error).__name__}: {str(error)[:120]}. Connect to a network, or put the file there (data/README.md)."
        ) from error
