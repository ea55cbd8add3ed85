"""A decoder that writes a caption word by word and looks at a part of the image for each.

After "Show, Attend and Tell" (Xu et al. 2015, arXiv 1502.03044), of whose two attentions, hard and soft, this is the
soft one. An image is a grid of regions, `(N, R, D)`: what a convolutional network has before it pools.
"""

from __future__ import annotations

import math
from functools import singledispatch
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .search import PAD_ID, State


class RegionAttention(Protocol):
    """What the decoder asks of an attention."""

    def keys(self, regions: Tensor) -> Tensor:
        """What can be computed once an image, `(N, R, K)`."""

    def __call__(self, keys: Tensor, hidden: Tensor) -> Tensor:
        """Where to look, `(N, R)`, rows sum to 1; `hidden` is `(N, H)`."""


class AdditiveAttention(nn.Module):
    """`softmax(v . tanh(W a + U h))` over the regions `a` (Bahdanau et al. 2014, arXiv 1409.0473)."""

    def __init__(self, region_dim: int, hidden_dim: int, dim: int = 512) -> None:
        super().__init__()
        self.keys = nn.Linear(region_dim, dim)
        self.query = nn.Linear(hidden_dim, dim, bias=False)
        self.score = nn.Linear(dim, 1, bias=False)  # a bias would be the same for all regions

    def forward(self, keys: Tensor, hidden: Tensor) -> Tensor:
        return self.score(torch.tanh(keys + self.query(hidden)[:, None]))[..., 0].softmax(1)


class DotAttention(nn.Module):
    """`softmax(Q K^T / sqrt d)`: the hidden state asks, the regions answer (Vaswani et al. 2017, arXiv 1706.03762)."""

    def __init__(self, region_dim: int, hidden_dim: int, dim: int = 512) -> None:
        super().__init__()
        self.keys = nn.Linear(region_dim, dim)
        self.query = nn.Linear(hidden_dim, dim)

    def forward(self, keys: Tensor, hidden: Tensor) -> Tensor:
        return ((keys @ self.query(hidden)[:, :, None])[..., 0] * keys.shape[2] ** -0.5).softmax(1)


@singledispatch
def looks_of_beams(attention: RegionAttention, keys: Tensor, hidden: Tensor) -> Tensor:
    """Where each beam of an image looks, `(N, B, R)`; all share its keys `(N, R, K)`; `hidden` is `(N, B, H)`."""
    return torch.stack([attention(keys, beam) for beam in hidden.unbind(1)], 1)


@looks_of_beams.register
def _(attention: AdditiveAttention, keys: Tensor, hidden: Tensor) -> Tensor:
    """`tanh(k + q) = 1 - 2 / (1 + e^2k e^2q)`: exponentials once an image and once a beam, not for each pair of them.

    The 1 adds the same to all scores, so that softmax does not need it. Right where `k` and `q` are within -40 to 40.
    """
    parts = zip(keys.split(8), attention.query(hidden).split(8), strict=True)  # a few images stay in the cache
    return torch.cat([attention.score(_shares(*part))[..., 0] for part in parts]).mul(-2).softmax(2)


def _shares(keys: Tensor, queries: Tensor) -> Tensor:
    """`1 / (1 + e^2k e^2q)`, `(N, B, R, K)`, for keys `(N, R, K)` and queries `(N, B, K)`."""
    image, beam = ((2 * part).clamp_(-80, 80).exp_() for part in (keys, queries))  # finite in float32, and far enough
    return torch.addcmul(image.new_ones(()), image[:, None], beam[:, :, None]).reciprocal_()


class CaptionDecoder(nn.Module):
    """A layer that reads the regions, attention with a gate, one LSTM cell, and a score for each next word.

    A word has one vector, by which it is read and, as the last layer's weights, named (Press and Wolf 2017,
    arXiv 1608.05859): half of the weights that rare words would have to learn.

    Args:
        words: size of the vocabulary.
        region_dim: channels of a region (two more say where it lies).
        attention: `AdditiveAttention` or `DotAttention`.
        embed_dim, hidden_dim: sizes of a word's vector and of the LSTM's state.
        dropout: of regions, of word vectors and before the last layer.
    """

    def __init__(
        self,
        words: int,
        region_dim: int,
        attention: type[nn.Module] = AdditiveAttention,
        embed_dim: int = 300,
        hidden_dim: int = 512,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.sizes = {"words": words, "region_dim": region_dim, "embed_dim": embed_dim, "hidden_dim": hidden_dim}
        self.dropout = nn.Dropout(dropout)
        self.read = nn.Sequential(nn.Linear(region_dim + 2, hidden_dim), nn.LayerNorm(hidden_dim), self.dropout)
        self.embed = nn.Embedding(words, embed_dim, padding_idx=PAD_ID)
        self.embed.weight.data.mul_(embed_dim**-0.5)  # else the first logits, sums of embed_dim terms, are far apart
        self.attention: RegionAttention = attention(hidden_dim, hidden_dim, hidden_dim)
        self.gate = nn.Linear(hidden_dim, 1)
        self.cell = nn.LSTMCell(embed_dim + hidden_dim, hidden_dim)
        self.first = nn.Linear(hidden_dim, 2 * hidden_dim)
        self.from_hidden, self.from_context = nn.Linear(hidden_dim, embed_dim), nn.Linear(hidden_dim, embed_dim)
        self.bias = nn.Parameter(torch.zeros(words))

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.bias.device

    def start(self, regions: Tensor) -> State:
        """The state before the first word: hidden and cell from the mean region; the regions as read, their keys."""
        where = positions(regions.shape[1]).to(regions).expand(len(regions), -1, -1)
        regions = self.read(torch.cat([regions, where], 2))  # (N, R, H): narrower, of one scale whatever the encoder
        hidden, cell = self.first(regions.mean(1)).tanh().chunk(2, 1)
        return hidden, cell, self.attention.keys(regions), regions

    def step(self, state: State, words: Tensor) -> tuple[Tensor, State, Tensor]:
        """One word on, as `decoding` wants it: logits `(N, V)`, the next state, where it looked `(N, R)`."""
        meant, state, looks = self._meant(state, words)
        return self._named(meant), state, looks

    def forward(
        self, regions: Tensor, captions: Tensor, truth: float = 1.0, of: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits `(N, T - 1, V)` and looks `(N, T - 1, R)` for captions `(N, T)` that begin with `<sos>`.

        What stands at the places of `<pad>` means nothing; looks are 0 there.

        Args:
            truth: with this probability, drawn for each word, the decoder reads the caption's word, else its own
                likeliest one (scheduled sampling, Bengio et al. 2015, arXiv 1506.03099); 1 is teacher forcing.
            of: which of the regions `(M, R, D)` each caption is of, int64 `(N,)`, so that an image with several
                captions is read once; None: one caption an image.
        """
        lengths, order = (captions[:, 1:] != PAD_ID).sum(1).sort(descending=True)
        state = tuple(part[order if of is None else of[order]] for part in self.start(regions))
        captions, meant, looked = captions[order], [], []
        words = captions[:, 0]
        for place in range(1, captions.shape[1]):
            going = int((lengths >= place).sum())  # the longest come first, so that the rest needs no step
            now, state, looks = self._meant(tuple(part[:going] for part in state), words[:going])
            meant.append(F.pad(now, (0, 0, 0, len(captions) - going)))
            looked.append(F.pad(looks, (0, 0, 0, len(captions) - going)))
            words = captions[:going, place]
            if truth < 1:
                told = torch.rand(going, device=captions.device) < truth
                words = words.where(told, self._named(now.detach()).argmax(1))
        back = order.argsort()
        return self._named(torch.stack(meant, 1)[back]), torch.stack(looked, 1)[back]

    def _named(self, meant: Tensor) -> Tensor:
        """Logits `(..., V)` of the next word, by the words' own vectors."""
        return F.linear(meant, self.embed.weight, self.bias)

    def _meant(self, state: State, words: Tensor) -> tuple[Tensor, State, Tensor]:
        """The vector `(N, E)` that the next word is named from."""
        hidden, cell, keys, regions = state
        looks, seen = self._look(keys, regions, hidden)
        context = self.gate(hidden).sigmoid() * seen  # (N, H)
        word = self.dropout(self.embed(words))
        hidden, cell = self.cell(torch.cat([word, context], 1), (hidden, cell))
        meant = (word + self.from_hidden(hidden) + self.from_context(context)).tanh()
        return self.dropout(meant), (hidden, cell, keys, regions), looks

    def _look(self, keys: Tensor, regions: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Where each hidden state looks, `(M, R)`, and what it sees there, `(M, H)`: one an image, or several beams."""
        if len(hidden) == len(keys):
            looks = self.attention(keys, hidden)
            return looks, (looks[:, None] @ regions)[:, 0]
        looks = looks_of_beams(self.attention, keys, hidden.unflatten(0, (len(keys), -1)))  # (N, B, R)
        return looks.flatten(0, 1), (looks @ regions).flatten(0, 1)


def positions(regions: int) -> Tensor:
    """Where each region of a square grid lies: `(R, 2)`, x and y from -1 to 1, row by row (0 for a single region).

    Attention forgets which region it took its content from; with these, content says where it was (Liu et al. 2018,
    arXiv 1807.03247, do the same for convolution).
    """
    side = grid_side(regions)
    line = torch.linspace(-1, 1, side) if side > 1 else torch.zeros(1)
    return torch.cartesian_prod(line, line).flip(1)


def grid_side(regions: int) -> int:
    """How many regions a side of their square grid has. ValueError: it is no square."""
    side = math.isqrt(regions)
    if side * side != regions:
        raise ValueError(f"regions come from a square grid, got {regions} of them")
    return side


def caption_loss(
    logits: Tensor, looks: Tensor, captions: Tensor, penalty: float = 1.0, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the next word in nats, and the doubly stochastic penalty; the first is a mean over real words.

    The penalty, `penalty x mean of (1 - attention to a region over the whole caption)^2`, wants every region looked at
    once (Xu et al., equation 14). A caption of T words has only T looks to give to R regions: where T < R it can at
    best give T / R to each, and the penalty mostly asks for an even spread.

    Args:
        logits, looks: of `CaptionDecoder`, `(N, T - 1, V)` and `(N, T - 1, R)`.
        captions: int64 `(N, T)`, `<sos>` first, `<pad>` after `<eos>`; padding has no part in either term.
    """
    wanted = captions[:, 1:]
    words = F.cross_entropy(
        logits.flatten(0, 1), wanted.flatten(), ignore_index=PAD_ID, label_smoothing=label_smoothing
    )
    attended = (looks * (wanted != PAD_ID)[:, :, None]).sum(1)  # (N, R)
    return words, penalty * (1 - attended).square().mean()
