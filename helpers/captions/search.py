"""From a decoder's steps to captions, for a whole batch at once: greedy, and beam search.

A decoder is a function of a state and the last words `(M,)` that gives logits `(M, V)`, the next state, and where it
looked, `(M, R)`. A state is a tuple of tensors with a row for each of the M words, where the beams of an image lie side
by side. Only what a step hands back as it was given (an image's regions) keeps one row an image, however many beams it
has. Neither search knows more of a model, so both work for any attention, and for a language model without image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .text import EOS, PAD, SOS, SPECIAL, UNK

State = tuple[Tensor, ...]
# state, words (M,) -> logits (M, V), state, looks (M, R)
Step = Callable[[State, Tensor], tuple[Tensor, State, Tensor]]

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
    put aside. An image is done, and leaves the batch, when none of its beams is better, so far, than the best caption
    put aside. If nothing ends in time, the best unfinished one is taken: there is always a caption.

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
    last = state[0].new_full((len(state[0]),), SOS_ID, dtype=torch.long)
    going = torch.arange(len(last), device=last.device)  # images that are not done
    for place in range(longest):
        given = state
        logits, state, looks = step(given, last)
        if place == 0:
            beams, best = _nothing(logits, looks, 0, 0.0), _nothing(logits, looks, longest, -torch.inf)
        held = beams.words.shape[1]
        grown, parents = _grow(beams, _speakable(logits, barred), looks, width)
        beams, kept, ended = _going_on(grown, held, width)
        best.put(going, better := _better(best.of(going), grown, ended, power))
        hopeful = (beams.scores(power).amax(1) > better.scores(power)[:, 0]).nonzero()[:, 0]
        if not len(hopeful):
            break
        state = _reordered(state, given, parents.gather(1, kept), hopeful, held)
        going, beams = going[hopeful], beams.of(hopeful)
        last = beams.words[:, :, -1].flatten()
    unfinished = (best.of(going).log_probs == -torch.inf).expand_as(beams.log_probs)
    best.put(going, _better(best.of(going), beams, unfinished, power))
    return best.captions()


class _Beams(NamedTuple):
    """Of `N` images, `B` captions each: words `(N, B, T)`, looks `(N, B, T, R)`, log-probability `(N, B)`."""

    words: Tensor
    looks: Tensor
    log_probs: Tensor

    def scores(self, power: float) -> Tensor:
        """Length-normalised, `(N, B)`."""
        return self.log_probs / (self.words != PAD_ID).sum(2).clamp_min(1) ** power

    def of(self, images: Tensor) -> _Beams:
        """Those of some images."""
        return _Beams(*(part[images] for part in self))

    def captions(self) -> Captions:
        """The first of each image, without the places that no image needs."""
        words, looks, log_probs = (part[:, 0] for part in self)
        longest = int((words != PAD_ID).sum(1).max())
        return Captions(words[:, :longest], log_probs, looks[:, :longest])

    def put(self, images: Tensor, beams: _Beams) -> None:
        """Write those of some images, in place."""
        for part, now in zip(self, beams, strict=True):
            part[images] = now

    def chosen(self, index: Tensor) -> _Beams:
        """Of each image the beams at `index` `(N, kept)`."""
        images = torch.arange(len(index), device=index.device)[:, None]
        return _Beams(*(part[images, index] for part in self))


def _nothing(logits: Tensor, looks: Tensor, longest: int, log_prob: float) -> _Beams:
    """One caption an image, without words but with room for `longest`."""
    count, regions = looks.shape
    words = torch.full((count, 1, longest), PAD_ID, device=logits.device)
    return _Beams(words, looks.new_zeros(count, 1, longest, regions), logits.new_full((count, 1), log_prob))


def _speakable(logits: Tensor, barred: Sequence[int]) -> Tensor:
    """Log-probabilities with the `barred` numbers left out."""
    numbers = torch.tensor(barred, dtype=torch.long, device=logits.device)
    return logits.index_fill(1, numbers, -torch.inf).log_softmax(1)


def _grow(beams: _Beams, log_probs: Tensor, looks: Tensor, width: int) -> tuple[_Beams, Tensor]:
    """Twice as many continuations as `width`, the best first, and the beams `(N, 2 W)` they go on from.

    Twice, because at most half of them end: each beam has one `<eos>`.
    """
    shape, vocabulary = beams.log_probs.shape, log_probs.shape[1]
    total = (beams.log_probs[:, :, None] + log_probs.unflatten(0, shape)).flatten(1)  # (N, B V)
    best, places = total.topk(min(2 * width, total.shape[1]), 1)
    parents, words = places // vocabulary, (places % vocabulary)[:, :, None]  # (N, 2 W), (N, 2 W, 1)
    past = beams.chosen(parents)  # the attention is re-ordered with the beams
    now = looks.unflatten(0, shape).take_along_dim(parents[:, :, None], 1)[:, :, None]  # (N, 2 W, 1, R)
    return _Beams(torch.cat([past.words, words], 2), torch.cat([past.looks, now], 2), best), parents


def _going_on(grown: _Beams, before: int, width: int) -> tuple[_Beams, Tensor, Tensor]:
    """The `width` best that have not ended, which they are, and which of the `width` best of all have `(N, 2 W)`."""
    ended = grown.words[:, :, -1] == EOS_ID
    room = min(width, ended.shape[1] - before)  # each of the beams before has one `<eos>`
    kept = grown.log_probs.masked_fill(ended, -torch.inf).topk(room, 1).indices
    return grown.chosen(kept), kept, ended & (torch.arange(ended.shape[1], device=ended.device) < width)


def _better(best: _Beams, found: _Beams, which: Tensor, power: float) -> _Beams:
    """For each image the better of `best`, one caption, and those of `found` that `which` `(N, B)` admits."""
    room = best.words.shape[2] - found.words.shape[2]
    words = torch.cat([best.words, F.pad(found.words, (0, room), value=PAD_ID)], 1)
    looks = torch.cat([best.looks, F.pad(found.looks, (0, 0, 0, room))], 1)
    both = _Beams(words, looks, torch.cat([best.log_probs, found.log_probs.masked_fill(~which, -torch.inf)], 1))
    return both.chosen(both.scores(power).argmax(1, keepdim=True))


def _reordered(state: State, given: State, parents: Tensor, images: Tensor, held: int) -> State:
    """Of some `images`, each beam's state is that of the beam it goes on from: `parents` `(N, B)` of the `held` ones.

    What a step hands back as it was given is the same for all beams of an image, and stays.
    """
    rows = (torch.arange(len(parents), device=parents.device)[:, None] * held + parents)[images].flatten()
    return tuple(
        part[rows] if part is not before else part if len(images) == len(parents) else part[images]
        for part, before in zip(state, given, strict=True)
    )
