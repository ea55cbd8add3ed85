"""Recipes of notebook 02: ViT from scratch and fine-tuned; and what every recipe needs to keep what it trains.

A model is loaded from its notebook's checkpoints, or trained by that notebook's recipe if they are not there, so that
the notebooks on attacks (03) and on Grad-CAM (04) can start anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import LayerScale
from timm.models.vision_transformer import VisionTransformer
from timm.optim import param_groups_layer_decay
from torch import nn

from ..course.run import Run
from ..data import Batches, ImageSet, RandomCrop, RandomFlip, load
from ..models import normalized
from ..models.weights import find_weights, load_vit
from ..training import fit
from ..training.checkpoints import load_weights
from . import once_a_run

NOTEBOOK = "02_vit_transfer"
CIFAR_MEAN, CIFAR_STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)  # CIFAR-100's training images
VIT_NAMES = {"lite": ("vit_small_patch14", 112), "full": ("vit_base_patch16_224", 224)}  # name and pixels


class Split(NamedTuple):
    """Images to learn from, to choose by, and to report on."""

    train: ImageSet
    val: ImageSet
    test: ImageSet


class Trained(NamedTuple):
    """A model and its history, one row an epoch."""

    model: nn.Module
    history: pd.DataFrame


@once_a_run
def flowers(run: Run) -> Split:
    """Notebook 02's split: Flowers-102's official one, or toy classes that no pre-training saw; read once a run."""
    name, size = run.pick(toy=("toy-flowers", 32), lite=("flowers-102", 112), full=("flowers-102", 224))
    train, val, test = (load(name, split, size=size) for split in ("train", "val", "test"))
    return Split(train, val, test.take(run.pick(toy=1_000, lite=len(test), full=len(test)), run.seed))


def new_vit(run: Run, classes: int, pretrained: bool) -> nn.Module:
    """The profile's ViT behind its normalisation: `vit_base_patch16_224` (full), ViT-S/14 (lite), a tiny one (toy)."""
    torch.manual_seed(run.seed)
    if run.profile == "toy":
        network = tiny_vit(classes)
        if pretrained:
            _copy_body(pretrained_tiny_vit(run).model.network, network)
        return normalized(network, CIFAR_MEAN, CIFAR_STD).to(run.device)
    name, size = VIT_NAMES[run.profile]
    weights = find_weights(name) if pretrained else None
    mean, std = (weights.mean, weights.std) if weights else (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    network = load_vit(name, size, classes, weights)
    if not pretrained:
        _wake_layer_scale(network)
    return normalized(network, mean, std).to(run.device)


def source_of_weights(run: Run) -> str:
    """Where the pre-trained ViT's weights come from, in words."""
    if run.profile == "toy":
        return "trained here on the source half of the toy classes"
    return find_weights(VIT_NAMES[run.profile][0]).source


def _wake_layer_scale(network: nn.Module) -> None:
    """LayerScale at 0.1: timm's 1e-5 is for pre-trained weights, and starts each block as good as switched off.

    Touvron et al. 2021, arXiv:2103.17239, take 0.1 for networks of up to 18 blocks.
    """
    for module in network.modules():
        if isinstance(module, LayerScale):
            nn.init.constant_(module.gamma, 0.1)


def tiny_vit(classes: int) -> VisionTransformer:
    """16 tokens of 8 x 8 pixels, 4 blocks of width 96: learns toy scenes in seconds."""
    return VisionTransformer(img_size=32, patch_size=8, embed_dim=96, depth=4, num_heads=3, num_classes=classes)


def pretrained_tiny_vit(run: Run) -> Trained:
    """The tiny ViT after learning the source half of the toy classes."""
    train, val = load("toy-source", "train").take(4_000, run.seed), load("toy-source", "val")
    torch.manual_seed(run.seed)
    start = normalized(tiny_vit(len(train.classes)), CIFAR_MEAN, CIFAR_STD).to(run.device)

    def learn(model: nn.Module, folder: Path) -> pd.DataFrame:
        return fine_tune(run, model, Split(train, val, val), folder, epochs=6, lr=2e-3, layer_decay=1.0, batch_size=64)

    return load_or_train(run, NOTEBOOK, "pretrained", start, learn)


def vit(run: Run, pretrained: bool) -> Trained:
    """Notebook 02's ViT: fine-tuned 5 epochs from pre-trained weights, or trained 10 epochs from scratch."""
    split, epochs = flowers(run), 5 if pretrained else 10
    rates = {"lr": 3e-4, "head_lr": 3e-3, "layer_decay": 0.8} if pretrained else {"lr": 5e-4, "layer_decay": 1.0}

    def train(model: nn.Module, folder: Path) -> pd.DataFrame:
        return fine_tune(run, model, split, folder, epochs=epochs, **rates)

    start = new_vit(run, len(split.train.classes), pretrained)
    return load_or_train(run, NOTEBOOK, "fine-tuned" if pretrained else "scratch", start, train)


def fine_tune(
    run: Run,
    model: nn.Module,
    split: Split,
    folder: Path,
    *,
    epochs: int,
    lr: float,
    head_lr: float | None = None,
    layer_decay: float = 1.0,
    batch_size: int = 16,
) -> pd.DataFrame:
    """AdamW, one cycle of the learning rate, light augmentation; `layer_decay`: see timm."""
    side = split.train.images.shape[-1]
    augment = [RandomFlip(), RandomCrop(side // 10)]
    train = Batches(split.train, batch_size, shuffle=True, transforms=augment, device=run.device, seed=run.seed)
    groups = param_groups_layer_decay(model.network, weight_decay=0.05, layer_decay=layer_decay)
    heads = {id(p) for p in model.network.get_classifier().parameters()}
    for group in groups:
        is_head = head_lr is not None and any(id(p) in heads for p in group["params"])
        group["lr"] = head_lr if is_head else lr * group.pop("lr_scale", 1.0)
    adamw = torch.optim.AdamW(groups)
    rates = [group["lr"] for group in groups]
    cycle = torch.optim.lr_scheduler.OneCycleLR(adamw, rates, epochs * len(train), pct_start=0.2)
    watched = Batches(split.val, 128, device=run.device)
    return fit(model, train, watched, epochs=epochs, optimizer=adamw, scheduler=cycle, max_norm=1.0, folder=folder,
               precision=run.precision, description=folder.name)  # fmt: skip


def _copy_body(source: nn.Module, target: nn.Module) -> None:
    """All weights but the head's."""
    body = {name: value for name, value in source.state_dict().items() if not name.startswith("head.")}
    target.load_state_dict(body, strict=False)


def load_or_train(run: Run, notebook: str, name: str, model: nn.Module,
                  train: Callable[[nn.Module, Path], pd.DataFrame]) -> Trained:  # fmt: skip
    """The best weights of a training, and its history.

    `train` calls `fit` with that folder, which compares settings: a finished training costs nothing, one that was
    stopped goes on, and one that was asked for with other settings is done anew in a folder beside it.
    """
    folder = run.folder(name, notebook)
    history = train(model, folder)
    return Trained(load_weights(model, folder / "best.safetensors"), history)
