"""A decoder that writes a caption word by word and looks at a part of the image for each.

After "Show, Attend and Tell" (Xu et al. 2015, arXiv 1502.03044), of whose two attentions, hard and soft, this is the
soft one. An image is a grid of regions, `(N, R, D)`: what a convolutional network has before it pools.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..decoding import PAD_ID, State


class Attention(Protocol):
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


class CaptionDecoder(nn.Module):
    """Embedding, attention with a gate, one LSTM cell, and a layer that names the next word.

    Args:
        words: size of the vocabulary.
        region_dim: channels of a region.
        attention: `AdditiveAttention` or `DotAttention`.
        embed_dim, hidden_dim: sizes of a word's vector and of the LSTM's state.
        dropout: of word vectors and before the last layer.
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
        self.embed = nn.Embedding(words, embed_dim, padding_idx=PAD_ID)
        self.attention: Attention = attention(region_dim, hidden_dim)
        self.gate = nn.Linear(hidden_dim, 1)
        self.cell = nn.LSTMCell(embed_dim + region_dim, hidden_dim)
        self.first = nn.Linear(region_dim, 2 * hidden_dim)
        self.from_hidden, self.from_context = nn.Linear(hidden_dim, embed_dim), nn.Linear(region_dim, embed_dim)
        self.out, self.dropout = nn.Linear(embed_dim, words), nn.Dropout(dropout)

    def start(self, regions: Tensor) -> State:
        """The state before the first word: hidden and cell from the mean region; keys and regions stay."""
        hidden, cell = self.first(regions.mean(1)).tanh().chunk(2, 1)
        return hidden, cell, self.attention.keys(regions), regions

    def step(self, state: State, words: Tensor) -> tuple[Tensor, State, Tensor]:
        """One word on, as `decoding` wants it: logits `(N, V)`, the next state, where it looked `(N, R)`."""
        hidden, cell, keys, regions = state
        looks = self.attention(keys, hidden)
        context = self.gate(hidden).sigmoid() * (looks[:, None] @ regions)[:, 0]  # (N, D)
        word = self.dropout(self.embed(words))
        hidden, cell = self.cell(torch.cat([word, context], 1), (hidden, cell))
        seen = word + self.from_hidden(hidden) + self.from_context(context)
        return self.out(self.dropout(seen.tanh())), (hidden, cell, keys, regions), looks

    def forward(self, regions: Tensor, captions: Tensor, truth: float = 1.0) -> tuple[Tensor, Tensor]:
        """Logits `(N, T - 1, V)` and looks `(N, T - 1, R)` for captions `(N, T)` that begin with `<sos>`.

        Args:
            truth: with this probability, drawn for each word, the decoder reads the caption's word, else its own
                likeliest one (scheduled sampling, Bengio et al. 2015, arXiv 1506.03099); 1 is teacher forcing.
        """
        state, words, logits, looked = self.start(regions), captions[:, 0], [], []
        for place in range(1, captions.shape[1]):
            values, state, looks = self.step(state, words)
            logits.append(values)
            looked.append(looks)
            told = torch.rand(len(captions), device=captions.device) < truth if truth < 1 else None
            words = captions[:, place]
            if told is not None:
                words = words.where(told, values.detach().argmax(1))
        return torch.stack(logits, 1), torch.stack(looked, 1)


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
