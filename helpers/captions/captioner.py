"""A captioner in one file: encoder, decoder and vocabulary, from pixels to Persian words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..contract import eval_mode
from ..data.folders import DataError, decode_image
from ..training.checkpoints import CheckpointError, replacing
from . import decoder as attentions
from .decoder import CaptionDecoder, grid_side
from .encoder import GridEncoder
from .regions import SideBySide, load_regions
from .search import FOR_PEOPLE, beam_search
from .text import Vocabulary

FILE = "captioner.safetensors"


@dataclass(frozen=True, eq=False)
class Captioner:
    """From pixels to words: an encoder by its name in `load_regions`, a decoder, and the words it knows."""

    encoder: GridEncoder | SideBySide
    encoder_name: str
    decoder: CaptionDecoder
    vocabulary: Vocabulary

    def __call__(self, images: Tensor, width: int = 3, power: float = 0.7) -> list[tuple[list[str], Tensor]]:
        """Words, and where each was looked for `(words, h, w)`, of images `(N, 3, H, W)` in [0, 1].

        Images may be on any device; what is found comes back to the CPU.
        """
        with eval_mode(self.decoder), torch.no_grad():
            regions = self.encoder(images.to(self.encoder.device)).to(self.decoder.device)
            state = self.decoder.start(regions)
            found = beam_search(self.decoder.step, state, width, power=power, barred=FOR_PEOPLE)
        words = [self.vocabulary.decode(row) for row in found.words]
        maps = found.looks.cpu().unflatten(2, [grid_side(found.looks.shape[2])] * 2)  # (N, T, h, w)
        return [(said, looks[: len(said)]) for said, looks in zip(words, maps, strict=True)]

    def save(self, path: Path | str) -> None:
        """Everything in one file. A pre-trained encoder is not in it: its name is, and the toy one's weights are."""
        about = {
            "encoder": {"name": self.encoder_name, "size": self.encoder.size, "grid": self.encoder.grid},
            "attention": type(self.decoder.attention).__name__,
            "sizes": self.decoder.sizes,
            "words": self.vocabulary.words,
        }
        tensors = {f"decoder.{name}": value for name, value in self.decoder.state_dict().items()}
        if self.encoder_name == "toy":
            tensors |= {f"encoder.{name}": value for name, value in self.encoder.state_dict().items()}
        tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        with replacing(Path(path)) as temporary:
            temporary.write_bytes(save(tensors, metadata={"captioner": json.dumps(about)}))

    @classmethod
    def load(cls, path: Path | str) -> Captioner:
        """What `save` wrote, on the CPU. CheckpointError: the file is missing, damaged or something else."""
        path = Path(path)
        if not path.is_file():
            raise CheckpointError(f"no captioner at {path.parent.name}/{path.name}: train one, or name its file")
        try:
            with safe_open(path, "pt") as file:
                about = json.loads(file.metadata()["captioner"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
            decoder = CaptionDecoder(**about["sizes"], attention=getattr(attentions, about["attention"]))
            decoder.load_state_dict(_under("decoder.", tensors))
            encoder, vocabulary = load_regions(**about["encoder"]), Vocabulary(tuple(about["words"]))
            if about["encoder"]["name"] == "toy":
                encoder.load_state_dict(_under("encoder.", tensors))
        except CheckpointError:  # the encoder's own weights cannot be had: its message says what to do
            raise
        except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise CheckpointError(f"{path.name} is damaged or no captioner ({error}): save it anew") from error
        return cls(encoder, about["encoder"]["name"], decoder.eval(), vocabulary)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def read_image(path: Path | str) -> Tensor:
    """Any image file as float32 `(1, 3, H, W)` in [0, 1]. DataError: it is missing or no image."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file {path}: give the path of an image")
    return torch.from_numpy(np.array(decode_image(path.read_bytes(), path.name))).permute(2, 0, 1)[None] / 255
