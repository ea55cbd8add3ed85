"""Training a caption decoder on cached features, and the captions that it writes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..contract import epoch_seed, eval_mode, seeded, tqdm
from ..training.checkpoints import TrainingFolder, improved, weights_checksum
from .decoder import CaptionDecoder, caption_loss
from .scores import bleu
from .search import NO_WORDS, PAD_ID, Captions, beam_search, greedy
from .text import Vocabulary, pad

Words = list[str]


@dataclass(frozen=True, eq=False)
class Described:
    """Images as features, with their captions in words.

    Args:
        features: float16 or float32 `(N, R, D)`, an array (which may be memory-mapped).
        captions: for each image one caption or more, as words.
        vocabulary: of the training captions.
    """

    features: np.ndarray
    captions: Sequence[Sequence[Words]]
    vocabulary: Vocabulary

    def __post_init__(self) -> None:
        if len(self.features) != len(self.captions):
            raise ValueError(f"{len(self.features)} images have features, but {len(self.captions)} have captions")

    def __len__(self) -> int:
        return len(self.captions)

    def regions(self, places: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        """float32 `(n, R, D)` of the images at these places."""
        return _regions(self.features[np.asarray(places)], device)

    def batch(self, places: Sequence[int], device: torch.device | str) -> tuple[Tensor, Tensor, Tensor]:
        """Regions `(n, R, D)`, all captions of these images `(m, T)`, and which of the images each is of `(m,)`."""
        encoded = [self.vocabulary.encode(caption) for place in places for caption in self.captions[place]]
        of = [number for number, place in enumerate(places) for _ in self.captions[place]]
        return self.regions(places, device), pad(encoded).to(device), torch.tensor(of, device=device)

    def batches(
        self, size: int, device: torch.device | str, seed: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """`size` images at a time, in an order drawn by `seed`, or as they lie."""
        order = np.arange(len(self)) if seed is None else np.random.default_rng(seed).permutation(len(self))
        for first in range(0, len(order), size):
            yield self.batch(np.sort(order[first : first + size]), device)  # sorted: kinder to a memory-mapped file


def _regions(features: np.ndarray, device: torch.device | str) -> Tensor:
    """Cached features as float32; copied first, since torch shares no read-only memory map."""
    return torch.from_numpy(np.array(features)).to(device).float()


def always_told(progress: float) -> float:
    """Teacher forcing: the decoder always reads the caption's own word."""
    return 1.0


def linear(progress: float) -> float:
    """Scheduled sampling from 1 to 0.5 in a straight line, `progress` from 0 to 1."""
    return 1 - 0.5 * progress


def exponential(progress: float) -> float:
    """Scheduled sampling from 1 to 0.5, fast at first: what is left to go halves with each fifth of the training."""
    return 0.5 + 0.5 * 2 ** (-5 * progress) if progress < 1 else 0.5


@dataclass(frozen=True)
class Recipe:
    """How a decoder is trained.

    Args:
        truth: from the share of the training that is over (0 to 1) to the probability of teacher forcing.
        images: in a batch, each with all of its captions.
        lr: the largest; it rises linearly for a tenth of the steps, then falls as a cosine to 0.
        penalty: weight of the doubly stochastic term, see `caption_loss`.
        longest: most words of a caption that is written, `<eos>` included.
    """

    epochs: int
    truth: Callable[[float], float] = always_told
    images: int = 13
    lr: float = 1e-3
    weight_decay: float = 1e-2
    label_smoothing: float = 0.1
    penalty: float = 0.1
    max_norm: float = 5.0
    longest: int = 20
    seed: int = 0


def train_captioner(
    decoder: CaptionDecoder, train: Described, val: Described, recipe: Recipe, folder: Path | str,
    device: torch.device | str = "cpu", precision: str = "no",
) -> pd.DataFrame:  # fmt: skip
    """Train `decoder` in place; history, one row an epoch: losses, BLEU of free-running captions, one caption.

    `val_loss` is cross-entropy (nats a word, no smoothing) under teacher forcing, whatever `recipe.truth` is, so that
    the curves of different trainings compare. `best.safetensors` in `folder` holds the epoch with the best `val_bleu4`
    of captions that the decoder wrote by itself (greedy). A training that was stopped goes on from `folder`; one with
    other settings is left alone, see `TrainingFolder`.

    Args:
        precision: `"bf16"` or `"no"`; float16 would need its loss scaled.

    Raises:
        ValueError: another precision.
        FloatingPointError: the loss became NaN or infinite; the last finished epoch is kept.
        CheckpointError: `folder` cannot be written.
    """
    if precision not in ("no", "bf16"):
        raise ValueError(f"captions are learned in precision 'no' or 'bf16', got {precision!r}")
    decoder.to(device)
    steps = math.ceil(len(train) / recipe.images)
    adamw, rise = _optimizer(decoder, recipe, steps)
    store = TrainingFolder(folder, _settings(decoder, train, recipe, precision))
    parts = {"optimizer": adamw, "scheduler": rise}
    history = store.resume(decoder, lambda state: [part.load_state_dict(state[key]) for key, part in parts.items()])
    with tqdm(total=recipe.epochs * steps, initial=len(history) * steps, desc=Path(folder).name, leave=False) as bar:
        for epoch in range(len(history), recipe.epochs):
            seed, started = epoch_seed(recipe.seed, epoch), time.perf_counter()
            row = {"epoch": epoch + 1, "truth": recipe.truth(epoch / max(recipe.epochs - 1, 1))}
            with seeded(seed, device):
                batches = train.batches(recipe.images, device, seed)
                row["train_loss"] = _epoch(decoder, batches, adamw, rise, recipe, row["truth"], precision, bar)
            row |= {"seconds": time.perf_counter() - started} | watch(decoder, val, device, recipe.longest)
            history.append(row)
            state = {key: part.state_dict() for key, part in parts.items()}
            store.save(epoch + 1, decoder, state, history, improved(history, "val_bleu4"))
    return pd.DataFrame(history)


def _optimizer(decoder: CaptionDecoder, recipe: Recipe, steps: int) -> tuple[torch.optim.Optimizer, Any]:
    """AdamW, and its schedule for `steps` an epoch."""
    adamw = torch.optim.AdamW(decoder.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    return adamw, torch.optim.lr_scheduler.OneCycleLR(adamw, recipe.lr, recipe.epochs * steps, pct_start=0.1)


def _settings(decoder: CaptionDecoder, train: Described, recipe: Recipe, precision: str) -> dict[str, Any]:
    """What decides the result of a training; two that differ here must not share a folder."""
    return asdict(recipe) | {
        "truth": recipe.truth.__name__,
        "start": weights_checksum(decoder),
        "examples": len(train),
        "vocabulary": len(train.vocabulary),
        "precision": precision,
    }


def _epoch(decoder: CaptionDecoder, batches: Iterator[tuple[Tensor, Tensor, Tensor]], adamw: torch.optim.Optimizer,
           rise: Any, recipe: Recipe, truth: float, precision: str, bar: tqdm) -> float:  # fmt: skip
    """One pass; the mean cross-entropy of a word, in nats, without smoothing or penalty."""
    decoder.train()
    total, count = 0.0, 0
    for regions, captions, of in batches:
        with torch.autocast(regions.device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits, looks = decoder(regions, captions, truth, of)
        logits, looks = logits.float(), looks.float()
        loss = sum(caption_loss(logits, looks, captions, recipe.penalty, recipe.label_smoothing))
        if not torch.isfinite(loss):
            raise FloatingPointError("the loss is NaN or infinite: lower lr; the last finished epoch is kept")
        adamw.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), recipe.max_norm)
        adamw.step()
        rise.step()
        nats, words = _nats(logits.detach(), looks.detach(), captions)
        total, count = total + nats, count + words
        bar.update()
    return total / count


def _nats(logits: Tensor, looks: Tensor, captions: Tensor) -> tuple[float, int]:
    """Cross-entropy without smoothing, summed over the real words, and how many there are."""
    words = int((captions[:, 1:] != PAD_ID).sum())
    return caption_loss(logits, looks, captions, 0.0)[0].item() * words, words


@torch.no_grad()
def watch(decoder: CaptionDecoder, val: Described, device: torch.device | str, longest: int) -> dict[str, Any]:
    """Teacher-forced loss, BLEU of greedy captions, how many of them differ, and the first one."""
    total, count = 0.0, 0
    with eval_mode(decoder):
        for regions, captions, of in val.batches(32, device):
            nats, words = _nats(*decoder(regions, captions, 1.0, of), captions)
            total, count = total + nats, count + words
    written = said(write(decoder, val.features, longest=longest, device=device), val.vocabulary)
    return {
        "val_loss": total / count,
        "val_bleu1": bleu(written, val.captions, 1),
        "val_bleu4": bleu(written, val.captions, 4),
        "val_distinct": len({" ".join(caption) for caption in written}),
        "caption": " ".join(written[0]),
    }


def write(decoder: CaptionDecoder, features: np.ndarray, *, width: int = 1, power: float = 0.7, longest: int = 20,
          barred: Sequence[int] = NO_WORDS, device: torch.device | str | None = None,
          batch: int = 64) -> list[Captions]:  # fmt: skip
    """The decoder's captions of `features` `(N, R, D)`, in batches: greedy with `width` 1, else by beam search.

    Args:
        device: where the decoder is; None: asked of it.
    """
    found, device = [], device or decoder.device
    with eval_mode(decoder), torch.no_grad():
        for first in range(0, len(features), batch):
            state = decoder.start(_regions(features[first : first + batch], device))
            found.append(
                greedy(decoder.step, state, longest, barred)
                if width == 1
                else beam_search(decoder.step, state, width, longest, power, barred)
            )
    return found


def said(found: Sequence[Captions], vocabulary: Vocabulary) -> list[Words]:
    """The words of each caption, without `<eos>`."""
    return [vocabulary.decode(row) for captions in found for row in captions.words]
