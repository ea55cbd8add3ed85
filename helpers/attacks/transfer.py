"""Images attacked on one model to be shown to another: made once, kept as bytes on disk, the same for every model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ..contract import seeded, to_uint8, tqdm
from ..data import Batches, ImageSet
from ..training.checkpoints import CheckpointError, replacing, weights_checksum


def transfer_images(
    data: ImageSet, attack: Any, folder: Path | str, *, batch: int = 250, device: torch.device | str = "cpu",
    seed: int = 0,
) -> ImageSet:  # fmt: skip
    """`data` after `attack` on its own model, from `folder` or made now.

    Pixels are rounded to whole levels of 255, as in a file that is handed on: with `eps` a number of whole levels they
    stay within it. The file's name holds a hash over the images, the attacked model's weights, the attack and the seed.

    Args:
        attack: `attack(images, labels)` with `.model`, such as `torchattacks.PGD(surrogate, eps=8 / 255)`; what it
            says of itself (`str`) tells two attacks apart.

    Raises:
        CheckpointError: the folder cannot be written, or the file in it is damaged.
    """
    key = f"{data.checksum()} {weights_checksum(attack.model)} {attack} {batch} {seed} {torch.device(device).type}"
    path = Path(folder) / f"{hashlib.sha256(key.encode()).hexdigest()[:20]}.safetensors"
    if not path.is_file():
        with replacing(path) as temporary:
            temporary.write_bytes(save({"images": _made(data, attack, batch, device, seed)}))
    return replace(data, images=_read(path), source=f"{data.source}, attacked")


def resampled(data: ImageSet, size: int) -> ImageSet:
    """Every image enlarged to `size` pixels and brought back (bilinear), without any attack.

    The control for an attack that was made behind the same two steps: what is lost here is not the attack's doing.
    """

    def there_and_back(images: Tensor) -> Tensor:
        larger = F.interpolate(images, (size, size), mode="bilinear", align_corners=False)
        return F.interpolate(larger, images.shape[2:], mode="bilinear", align_corners=False)

    images = torch.cat([to_uint8(there_and_back(images)) for images, _ in Batches(data, 500)])
    return replace(data, images=images, source=f"{data.source}, resampled")


def _made(data: ImageSet, attack: Callable[[Tensor, Tensor], Tensor], batch: int, device: Any, seed: int) -> Tensor:
    device = torch.device(device)
    batches = Batches(data, batch, device=device)
    parts = []
    with seeded(seed, device):  # torchattacks draws its random start from torch's global generator
        for images, labels in tqdm(batches, desc="attacking the surrogate", leave=False, mininterval=1):
            parts.append(to_uint8(attack(images, labels).detach()).cpu())
    return torch.cat(parts)


def _read(path: Path) -> Tensor:
    try:
        return load_file(path)["images"]
    except (SafetensorError, KeyError) as error:
        raise CheckpointError(f"{path.name} is damaged ({error}): delete it, it is made again") from error
