"""What a frozen encoder makes of images, computed once and kept on disk.

Decoder epochs then cost no encoder pass, and a memory-mapped file of any size fits a machine with little memory.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..contract import tqdm
from ..data.captions import CaptionSet
from ..training.checkpoints import replacing, weights_checksum
from .encoder import GridEncoder


def cached_features(
    encoder: GridEncoder, images: CaptionSet, folder: Path | str, *, batch: int = 32, device: torch.device | str = "cpu"
) -> np.ndarray:
    """float16 `(N, R, D)`, memory-mapped: the encoder's regions of each image, from `folder` or computed now.

    The file's name holds a hash over the encoder's weights and size and over the images' bytes and order: with another
    encoder or other images another file is made, and none is mixed up with it.

    Raises:
        DataError: an image cannot be read; the message names it.
        FloatingPointError: a feature is NaN or too large for float16.
        CheckpointError: the folder cannot be written; nothing is left half done.
    """
    path = Path(folder) / f"{_key(encoder, images)}.npy"
    if not path.is_file():
        before = encoder.device
        try:
            _write(encoder.to(device), images, path, batch)
        finally:
            encoder.to(before)  # the device's memory is the decoder's
    return np.load(path, mmap_mode="r")


def encode(encoder: GridEncoder, images: CaptionSet, places: range) -> Tensor:
    """Regions `(n, R, D)` of the images at `places`, float32 on the CPU."""
    pixels = [encoder.resized(images.image(place)[None].to(encoder.device) / 255) for place in places]
    return encoder(torch.cat(pixels)).float().cpu()


def _write(encoder: GridEncoder, images: CaptionSet, path: Path, batch: int) -> None:
    parts = [range(first, min(first + batch, len(images))) for first in range(0, len(images), batch)]
    with replacing(path) as temporary:
        kept = None
        for places in tqdm(parts, desc="encoding images", unit="batch", leave=False):
            regions = encode(encoder, images, places).half()
            if not torch.isfinite(regions).all():
                names = " to ".join(dict.fromkeys(images.names[place] for place in (places[0], places[-1])))
                raise FloatingPointError(
                    f"features of {names} are NaN or beyond float16: look at the encoder's weights"
                )
            if kept is None:
                shape = (len(images), *regions.shape[1:])
                kept = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float16, shape=shape)
            kept[places.start : places.stop] = regions.numpy()
        kept.flush()


def _key(encoder: GridEncoder, images: CaptionSet) -> str:
    digest = hashlib.sha256(f"{weights_checksum(encoder)} {encoder.size} {encoder.grid}".encode())
    for name in images.names:
        digest.update(name.encode() + b"\0" + hashlib.sha256(images.read(name)).digest())
    return digest.hexdigest()[:20]
