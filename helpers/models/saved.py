"""A trained model on disk: its weights, and beside them a card that says how to build it and how it was trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from ..contract import seeded
from ..data.loading import data_root
from ..training.checkpoints import CheckpointError, load_weights, replacing, save_weights, weights_checksum
from .cifar_resnet import CifarResNet
from .normalize import Normalize, normalized
from .resnet import resnet18
from .scene_nets import CustomNet, CustomNet2, MyNet, SimpleNet
from .simple_vit import SimpleViT
from .small import small_cnn
from .weights import load_vit

WEIGHTS, CARD = "model.safetensors", "model.json"
OF_SCENES = (SimpleNet, CustomNet, CustomNet2, MyNet)
BUILDS: dict[str, Callable[..., nn.Module]] = {
    build.__name__: build
    for build in (resnet18, small_cnn, CifarResNet, SimpleViT, VisionTransformer, load_vit, *OF_SCENES)
}


class Saved(NamedTuple):
    """A model on the CPU, in eval mode, and what is known of it."""

    model: nn.Module
    card: dict[str, Any]


def save_model(
    model: nn.Module, folder: Path | str, build: str, arguments: dict[str, Any], settings: dict[str, Any], **more: Any
) -> None:
    """Write `model.safetensors` and `model.json` into `folder`.

    Args:
        model: `normalized(build(**arguments), mean, std)`; mean and std are read off it.
        build: the name of a constructor, one of `BUILDS`.
        settings: what the model was trained with, as JSON has it.
        more: whatever else the card shall say.

    Raises:
        ValueError: `model` is not what `build` and `arguments` make; nothing is written.
        CheckpointError: the folder cannot be written; what was there before is untouched.
    """
    layer = getattr(model, "normalize", None)
    if not isinstance(layer, Normalize):
        raise ValueError("only a model behind its normalisation is saved: normalized(network, mean, std)")
    if _shapes(_built(build, arguments)) != _shapes(model.network):
        raise ValueError(f"this model is not what {build}(**{arguments}) makes: it could not be loaded again")
    mean, std = ([round(value, 6) for value in values.flatten().tolist()] for values in (layer.mean, layer.std))
    card = {"build": build, "arguments": arguments, "mean": mean, "std": std, "settings": settings} | more
    text = json.dumps(card | {"checksum": weights_checksum(model)}, indent=1, ensure_ascii=False) + "\n"
    save_weights(model, Path(folder) / WEIGHTS)
    with replacing(Path(folder) / CARD) as temporary:
        temporary.write_text(text)


def load_model(folder: Path | str) -> Saved:
    """What `save_model` wrote.

    Raises:
        CheckpointError: it is missing or damaged, its constructor is unknown, or its weights do not fit.
    """
    folder = Path(folder)
    card = read_card(folder)
    try:
        model = normalized(_built(card["build"], card["arguments"]), card["mean"], card["std"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{_name(folder)}/{CARD} describes no model known here: {error}") from error
    load_weights(model, folder / WEIGHTS)
    if weights_checksum(model) != card.get("checksum"):
        raise CheckpointError(f"{_name(folder)}: {WEIGHTS} is not the file that {CARD} was written with")
    return Saved(model.eval(), card)


def shared_folder(group: str, name: str) -> Path:
    """Where a model lies that somebody else trained: `$DATA_ROOT/models/<group>/<name>`."""
    return data_root() / "models" / group / name


def read_card(folder: Path | str) -> dict[str, Any]:
    """The card alone. CheckpointError: there is none, or it is damaged."""
    path = Path(folder) / CARD
    try:
        card = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"no model was saved in {_name(path.parent)}") from error
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{_name(path.parent)}/{CARD} is damaged: {error}") from error
    if not isinstance(card, dict):
        raise CheckpointError(f"{_name(path.parent)}/{CARD} is damaged: it is no card")
    return card


def _built(build: str, arguments: dict[str, Any]) -> nn.Module:
    if build not in BUILDS:
        raise ValueError(f"unknown constructor {build!r}: it is none of {', '.join(BUILDS)}")
    with seeded(0):  # first weights draw numbers: those of the caller must stay as they are
        return BUILDS[build](**arguments)


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in network.state_dict().items()}


def _name(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"
