"""From a decoder's steps to captions, for a whole batch at once: greedy, and beam search.

A decoder is a function of a state and the last words `(B,)` that gives logits `(B, V)`, the next state, and where it
looked, `(B, R)`. A state is a tuple of tensors whose first dimension is the batch. Neither search knows more of a
model, so both work for any attention, and for a language model without image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .text import EOS, PAD, SOS, SPECIAL, UNK

State = tuple[Tensor, ...]
Step = Callable[
    [State, Tensor], tuple[Tensor, State, Tensor]
]  # state, words (B,) -> logits (B, V), state, looks (B, R)

PAD_ID, SOS_ID, EOS_ID, UNK_ID = (SPECIAL.index(word) for word in (PAD, SOS, EOS, UNK))
NO_WORDS = (PAD_ID, SOS_ID)  # never written
FOR_PEOPLE = (*NO_WORDS, UNK_ID)  # what a caption that someone reads must not hold


class Captions(NamedTuple):
    """What a search found for `N` images.

    `words`: int64 `(N, T)`, after `<eos>` only `<pad>`; no `<eos>` where `longest` came first.
    `log_probs`: `(N,)`, of all its words and the `<eos>`, in nats.
    `looks`: `(N, T, R)`, the attention when each word was written; 0 after the end.
    """

    words: Tensor
    log_probs: Tensor
    looks: Tensor

    @property
    def lengths(self) -> Tensor:
        """How many words, `<eos>` included, `(N,)`."""
        return (self.words != PAD_ID).sum(1)

    def normalized(self, power: float) -> Tensor:
        """`log_probs / lengths ** power`, `(N,)`: what beam search raises."""
        return self.log_probs / self.lengths**power


@torch.no_grad()
def greedy(step: Step, state: State, longest: int = 20, barred: Sequence[int] = NO_WORDS) -> Captions:
    """The likeliest word that is not `barred`, again and again, up to `<eos>` or `longest` words."""
    count = len(state[0])
    words = state[0].new_full((count,), SOS_ID, dtype=torch.long)
    total, going = state[0].new_zeros(count), torch.ones_like(words, dtype=torch.bool)
    said, looked = [], []
    for _ in range(longest):
        logits, state, looks = step(state, words)
        best, words = _speakable(logits, barred).max(1)
        said.append(words.where(going, PAD_ID))
        looked.append(looks * going[:, None])
        total = total + best * going
        going = going & (words != EOS_ID)
        if not going.any():
            break
    return Captions(torch.stack(said, 1), total, torch.stack(looked, 1))


@torch.no_grad()
def beam_search(step: Step, state: State, width: int = 3, longest: int = 20, power: float = 0.7,
                barred: Sequence[int] = NO_WORDS) -> Captions:  # fmt: skip
    """The caption with the best length-normalised log-probability among those that `width` beams meet.

    In each step the `width` best continuations that go on stay; one that ends and is among the `width` best of all is
    put aside. An image is done when none of its beams is better, so far, than the best caption put aside. If nothing
    ends in time, the best unfinished one is taken: there is always a caption.

    Args:
        width: beams an image; with 1 this is `greedy`.
        longest: most words, `<eos>` included.
        power: of the length that log-probabilities are divided by; 0 favours short captions, 1 is the mean.
        barred: numbers that are never written.

    Raises:
        ValueError: width or longest below 1.
    """
    if min(width, longest) < 1:
        raise ValueError(f"width and longest must be 1 or more, got {width} and {longest}")
    count, beams, best = len(state[0]), None, None
    state = tuple(part.repeat_interleave(width, 0) for part in state)
    last = state[0].new_full((count * width,), SOS_ID, dtype=torch.long)
    going = torch.ones(count, 1, dtype=torch.bool, device=last.device)
    for _ in range(longest):
        given = state
        logits, state, looks = step(given, last)
        grown, parents = _grow(
            beams, _speakable(logits, barred).unflatten(0, (count, width)), looks.unflatten(0, (count, width))
        )
        best = best or _nothing(grown, longest)
        ended = grown.words[:, :, -1] == EOS_ID
        first = torch.arange(2 * width, device=ended.device) < width
        best = _better(best, grown, ended & first & going, power)
        beams, kept = _going_on(grown, ended, width)
        state, last = _reordered(state, given, parents.gather(1, kept)), beams.words[:, :, -1].flatten()
        going = going & (beams.scores(power).amax(1, keepdim=True) > best.scores(power))
        if not going.any():
            break
    unfinished = (best.log_probs == -torch.inf).expand_as(beams.log_probs)
    words, looks, log_probs = (part[:, 0] for part in _better(best, beams, unfinished, power))
    longest = int((words != PAD_ID).sum(1).max())
    return Captions(words[:, :longest], log_probs, looks[:, :longest])


class _Beams(NamedTuple):
    """Of `N` images, `B` captions each: words `(N, B, T)`, looks `(N, B, T, R)`, log-probability `(N, B)`."""

    words: Tensor
    looks: Tensor
    log_probs: Tensor

    def scores(self, power: float) -> Tensor:
        """Length-normalised, `(N, B)`."""
        return self.log_probs / (self.words != PAD_ID).sum(2).clamp_min(1) ** power


def _speakable(logits: Tensor, barred: Sequence[int]) -> Tensor:
    """Log-probabilities with the `barred` numbers left out."""
    logits = logits.clone()
    logits[:, list(barred)] = -torch.inf
    return logits.log_softmax(1)


def _grow(beams: _Beams | None, log_probs: Tensor, looks: Tensor) -> tuple[_Beams, Tensor]:
    """Twice as many continuations as beams, the best first, and the beams `(N, 2 B)` they go on from.

    Twice, because at most half of them end: each beam has one `<eos>`.
    """
    before = log_probs.new_full(log_probs.shape[:2], -torch.inf)
    before[:, 0] = 0  # all beams are the same at the start: only the first goes on
    before = beams.log_probs if beams else before
    best, places = (before[:, :, None] + log_probs).flatten(1).topk(2 * log_probs.shape[1], 1)
    parents, words = places // log_probs.shape[2], (places % log_probs.shape[2])[:, :, None]  # (N, 2 B), (N, 2 B, 1)
    now = looks.take_along_dim(parents[:, :, None], 1)[:, :, None]  # (N, 2 B, 1, R)
    if beams is None:
        return _Beams(words, now, best), parents
    past = _chosen(beams, parents)  # the attention is re-ordered with the beams
    return _Beams(torch.cat([past.words, words], 2), torch.cat([past.looks, now], 2), best), parents


def _going_on(grown: _Beams, ended: Tensor, width: int) -> tuple[_Beams, Tensor]:
    """The `width` best that have not ended, and which they are."""
    kept = grown.log_probs.masked_fill(ended, -torch.inf).topk(width, 1).indices
    return _chosen(grown, kept), kept


def _nothing(like: _Beams, longest: int) -> _Beams:
    """No caption yet for any image, with room for one."""
    count, regions = len(like.words), like.looks.shape[-1]
    words = like.words.new_full((count, 1, longest), PAD_ID)
    return _Beams(
        words, like.looks.new_zeros(count, 1, longest, regions), like.log_probs.new_full((count, 1), -torch.inf)
    )


def _better(best: _Beams, found: _Beams, which: Tensor, power: float) -> _Beams:
    """For each image the better of `best`, one caption, and those of `found` that `which` `(N, B)` admits."""
    room = best.words.shape[2] - found.words.shape[2]
    words = torch.cat([best.words, F.pad(found.words, (0, room), value=PAD_ID)], 1)
    looks = torch.cat([best.looks, F.pad(found.looks, (0, 0, 0, room))], 1)
    both = _Beams(words, looks, torch.cat([best.log_probs, found.log_probs.masked_fill(~which, -torch.inf)], 1))
    return _chosen(both, both.scores(power).argmax(1, keepdim=True))


def _chosen(beams: _Beams, index: Tensor) -> _Beams:
    """The beams at `index` `(N, kept)`."""
    return _Beams(*(part.take_along_dim(index.view(*index.shape, *[1] * (part.ndim - 2)), 1) for part in beams))


def _reordered(state: State, given: State, parents: Tensor) -> State:
    """Each beam's state is that of the beam it goes on from.

    What a step hands back as it was given (an image's regions) is the same for all beams of an image, and stays.
    """
    count, width = parents.shape
    rows = (torch.arange(count, device=parents.device)[:, None] * width + parents).flatten()
    return tuple(part if part is before else part[rows] for part, before in zip(state, given, strict=True))
