"""Evidence on captions: how likely a model finds them, and what becomes of a word when its regions are taken away."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..contract import eval_mode
from .decoder import CaptionDecoder
from .search import PAD_ID
from .text import Vocabulary, pad
from .training import Words


@torch.no_grad()
def word_log_probs(decoder: CaptionDecoder, regions: Tensor, captions: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of each word of given captions, and where the decoder looks while it reads them.

    Args:
        regions: `(N, R, D)`; captions: int64 `(N, T)` with `<sos>`, `<eos>` and padding.

    Returns:
        `(N, T - 1)` in nats, 0 at padding; `(N, T - 1, R)`.
    """
    with eval_mode(decoder):
        logits, looks = decoder(regions, captions)
    wanted = captions[:, 1:]
    found = logits.log_softmax(2).gather(2, wanted[:, :, None])[..., 0]  # (N, T - 1)
    return found * (wanted != PAD_ID), looks


def mean_log_prob(
    decoder: CaptionDecoder, regions: Tensor, captions: Sequence[Words], vocabulary: Vocabulary
) -> Tensor:
    """Nats a word (`<eos>` is one) of one caption for each image, `(N,)`."""
    encoded = pad([vocabulary.encode(caption) for caption in captions]).to(regions.device)
    return word_log_probs(decoder, regions, encoded)[0].sum(1) / (encoded[:, 1:] != PAD_ID).sum(1)


@torch.no_grad()
def loss_without(
    decoder: CaptionDecoder, regions: Tensor, captions: Tensor, count: int, generator: torch.Generator | None = None
) -> Tensor:
    """How many nats each word loses when the `count` regions most looked at for it are replaced by the mean region.

    A causal check of a heat map: if the word comes from where the decoder looked, this costs more than taking away as
    many regions drawn at random, which a `generator` asks for. The decoder reads the whole caption with the regions
    gone, so each word of the caption needs a run of its own.

    Returns:
        `(N, T - 1)`, 0 at padding; positive where the word became less likely.
    """
    whole, looks = word_log_probs(decoder, regions, captions)
    images, mean = torch.arange(len(regions), device=regions.device)[:, None], regions.mean(1, keepdim=True)
    lost = torch.zeros_like(whole)
    for place in range(whole.shape[1]):
        order = looks[:, place] if generator is None else _drawn(looks[:, place], generator)
        left = regions.clone()
        left[images, order.topk(count, 1).indices] = mean
        lost[:, place] = (whole - word_log_probs(decoder, left, captions)[0])[:, place]
    return lost


def _drawn(like: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform from 0 to 1, of this shape and on its device, wherever the generator is."""
    return torch.rand(like.shape, generator=generator, device=generator.device).to(like.device)
