"""Recipes of notebook 06: the second assignment's schedule on MiniPlaces, for any network and any way of training."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchvision.models import ResNet18_Weights

from ..attacks import PGD
from ..attacks.defences import Mixed
from ..conv import CustomConv2d
from ..course.models import trained
from ..course.run import Run
from ..data import Batches, RandomFlip, RandomGain, RandomView, data_root, load
from ..models import CustomNet2, MyNet, SimpleNet, SimpleViT, normalized, resnet18
from ..training import fit
from . import once_a_run
from .nb02 import Split, Trained, load_or_train

NOTEBOOK = "06_custom_conv"


@once_a_run
def scenes(run: Run) -> Split:
    """MiniPlaces, or the toy world. Nothing is chosen by validation images, so they are the test images as well."""
    if run.profile == "toy":
        train, val = load("toy", "train").take(1_000, run.seed), load("toy", "test").take(200, run.seed)
    else:
        train, val = load("miniplaces", "train"), load("miniplaces", "val")
    return Split(train, val, val)


def scene_model(network: nn.Module) -> nn.Module:
    """The network behind ImageNet's normalisation."""
    return normalized(network, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)


def sgd(model: nn.Module, lr: float) -> Optimizer:
    """The assignment's optimiser for convolutional networks."""
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)


def adamw(model: nn.Module, lr: float) -> Optimizer:
    """The assignment's optimiser for SimpleViT."""
    return torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)


def warmed_cosine(optimizer: Optimizer, steps: int, warm: float = 1 / 12) -> LambdaLR:
    """From 0 up in a straight line for a share `warm` of the steps (5 of 60 epochs), then down to 0 along a cosine."""
    first = max(1, round(warm * steps))

    def factor(step: int) -> float:
        if step < first:
            return (step + 1) / first
        return (1 + math.cos(math.pi * min(1.0, (step - first) / max(1, steps - first)))) / 2

    return LambdaLR(optimizer, factor)


def learn(run: Run, name: str, start: nn.Module, *, epochs: int, optimizer: Callable[[nn.Module], Optimizer],
          images: int | None = None, **options: Any) -> Trained:  # fmt: skip
    """Train `start` by the assignment's schedule; the weights are those of the last epoch.

    Args:
        optimizer: makes it from the model.
        images: how many training images; None: all.
        options: further arguments of `fit`, such as `attack` and `max_norm`.
    """
    split, start = scenes(run), start.to(run.device)
    train = split.train if images is None else split.train.take(images, run.seed)
    area = run.pick(toy=(0.5, 1.0), lite=(0.5, 1.0), full=(0.25, 1.0))  # gentler where there are few epochs
    augment = [RandomFlip(), RandomGain(), RandomView(area)]

    def train_on(model: nn.Module, folder: Path) -> pd.DataFrame:
        batches = Batches(train, run.pick(toy=50, lite=64, full=256), shuffle=True, transforms=augment,
                          device=run.device, seed=run.seed)  # fmt: skip
        chosen = optimizer(model)
        return fit(model, batches, Batches(split.val, 100, device=run.device), epochs=epochs, optimizer=chosen,
                   scheduler=warmed_cosine(chosen, epochs * len(batches)), folder=folder, monitor="epoch",
                   topk=(1, 5), precision=run.precision, description=name, **options)  # fmt: skip

    return load_or_train(run, NOTEBOOK, name, start, train_on)


def simple_net(run: Run) -> Trained:
    """SimpleNet with torch's convolution, long enough to learn something: the model that is explained and attacked."""
    epochs = run.pick(toy=4, lite=16, full=60)
    rate = run.pick(toy=0.02, lite=0.05, full=0.1)  # 0.1 is for batches of 256
    return learn(run, "SimpleNet", _scene_net(run, SimpleNet), epochs=epochs, optimizer=partial(sgd, lr=rate))


RIVALS: dict[str, Callable[..., nn.Module]] = {
    "SimpleNet": SimpleNet,
    "SimpleNet, our convolution": partial(SimpleNet, conv=CustomConv2d),
    "CustomNet2": CustomNet2,
    "MyNet": MyNet,
}


def rival(run: Run, name: str) -> Trained:
    """One of `RIVALS`, or `"ResNet-18"` from pre-trained weights: the same images, epochs and schedule for all."""
    start = pretrained_resnet(run)[0] if name == "ResNet-18" else _scene_net(run, RIVALS[name])
    images, epochs = run.pick(toy=(400, 2), lite=(6_000, 4), full=(None, 10))
    rate = run.pick(toy=0.02, lite=0.02, full=0.1)  # in so few epochs 0.05 learns less
    return learn(run, f"short {name}", start, epochs=epochs, images=images, optimizer=partial(sgd, lr=rate))


def simple_vit(run: Run, norm: str) -> Trained:
    """SimpleViT with its last norm at one of three places (see `SimpleViT`), all else as assigned."""
    sizes = run.pick(toy={"image_size": 32, "patch_size": 4, "dim": 48}, lite={}, full={})
    images, epochs = run.pick(toy=(400, 2), lite=(None, 5), full=(None, 90))
    torch.manual_seed(run.seed)
    start = scene_model(SimpleViT(len(scenes(run).train.classes), norm=norm, **sizes))
    rate = run.pick(toy=2e-3, lite=2e-3, full=1e-2)  # 0.01 is for batches of 256
    return learn(run, f"SimpleViT, norm {norm}", start, epochs=epochs, images=images, max_norm=1.0,
                 optimizer=partial(adamw, lr=rate))  # fmt: skip


EPS = 2 / 255  # about what the reports trained at: 0.031 of a normalised image is 1.8/255
HARDENING: dict[str, Callable[[nn.Module], Callable | None]] = {
    "plain": lambda model: None,
    "half of each batch, PGD-5": lambda model: Mixed(PGD(model, EPS, EPS / 2, 5)),
    "all of it, PGD-3": lambda model: PGD(model, EPS, EPS / 2, 3),
    "half of each batch, PGD-5, four times the budget": lambda model: Mixed(PGD(model, 4 * EPS, 2 * EPS, 5)),
}


def hardened(run: Run, kind: str) -> Trained:
    """SimpleNet, trained on from its last epoch in one of the ways of `HARDENING`, the same length for all."""
    start = simple_net(run).model
    images, epochs = run.pick(toy=(200, 2), lite=(5_000, 3), full=(None, 20))
    return learn(run, f"hardened {kind}", start, epochs=epochs, images=images, attack=HARDENING[kind](start),
                 optimizer=partial(sgd, lr=run.pick(toy=0.01, lite=0.02, full=0.05)))  # fmt: skip


def pretrained_resnet(run: Run) -> tuple[nn.Module, str]:
    """ResNet-18 for scenes with a new head, and where its other weights come from.

    torchvision's ImageNet weights, from `$DATA_ROOT/weights/resnet18.safetensors` or its host; where neither can be
    had, and in `toy`, those of notebook 01's ResNet-18.
    """
    torch.manual_seed(run.seed)
    network = resnet18(len(scenes(run).train.classes))
    state, source = _imagenet_state() if run.profile != "toy" else (None, "")
    if state is None:
        state, source = trained(run, "01_noisy_resnet", "clean").network.state_dict(), "notebook 01's clean ResNet-18"
    head = {key: value for key, value in network.state_dict().items() if key.startswith("fc.")}
    network.load_state_dict(state | head)
    return _as_scene_model(network), source


def _imagenet_state() -> tuple[dict[str, Tensor] | None, str]:
    path = data_root() / "weights" / "resnet18.safetensors"
    if path.is_file():
        return load_file(path), f"weights/{path.name}"
    try:
        with redirect_stdout(StringIO()):  # it would say where on this machine it keeps them
            state = ResNet18_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True)
            return state, "torchvision, ImageNet"
    except OSError:  # no network: the caller names what it takes instead
        return None, ""


def _scene_net(run: Run, make: Callable[..., nn.Module]) -> nn.Module:
    torch.manual_seed(run.seed)
    return _as_scene_model(make(len(scenes(run).train.classes)))


def _as_scene_model(network: nn.Module) -> nn.Module:
    """Behind its normalisation, in the memory format in which its convolutions are fastest: torch's, or ours."""
    ours = any(isinstance(layer, CustomConv2d) for layer in network.modules())
    return scene_model(network).to(memory_format=torch.contiguous_format if ours else torch.channels_last)
