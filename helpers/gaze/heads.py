"""Where to look, learned: from an image's features to gazes or boxes, and what keeps them apart or at home."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class UnitFeatures(nn.Module):
    """Features `(N, F)` less their mean, at length 1.

    Adam's first step moves each weight by the learning rate, so it moves a weighted sum of such features by at most the
    learning rate times the root of F; features after a ReLU it moves by the learning rate times their sum.
    """

    def forward(self, features: Tensor) -> Tensor:
        return F.normalize(features - features.mean(1, keepdim=True), dim=1)


class GazeHead(nn.Module):
    """Features `(N, F)` to gazes `(N, G, 2)` in pixels from the centre, each within `limit`.

    The weights start at 0 and the bias such that every image begins at `starts`. With `norm`, the features are brought
    to length 1 first (`UnitFeatures`). Without it, as in the model this is taken from, 512 features after a ReLU sum to
    hundreds: a few steps of Adam can throw every gaze against its limit, and the tanh, flat there, holds it.

    Args:
        features: how many there are, F.
        starts: `(G, 2)`, pixels from the centre, inside the limit.
        limit: the furthest gaze on an axis, in pixels.

    Raises:
        ValueError: a start that does not lie inside the limit.
    """

    def __init__(self, features: int, starts: Tensor, limit: float, norm: bool = True) -> None:
        super().__init__()
        if starts.ndim != 2 or starts.shape[1] != 2 or not starts.abs().max() < limit:
            raise ValueError(f"starts must be (G, 2) within {limit} pixels, got {starts.tolist()}")
        self.limit = limit
        self.norm = UnitFeatures() if norm else nn.Identity()
        self.linear = _starting_at((starts / limit).atanh().flatten(), features)

    def forward(self, features: Tensor) -> Tensor:
        return self.limit * self.linear(self.norm(features)).tanh().unflatten(1, (-1, 2))


class BoxHead(nn.Module):
    """Features `(N, F)` to `count` boxes `(N, K, 4)`: scale x, shift x, scale y, shift y (see `boxes.box_theta`).

    With `norm`, scales lie between 0.3 and 1.2 and shifts within 0.6, and the start is scale 0.7, each box moved a
    little another way: five equal boxes would get five equal gradients. Without it all four numbers are a bare tanh
    that starts at `tanh(1)`, 0.76, as in the model this is taken from: the whole image can then never be shown.
    """

    def __init__(self, features: int, count: int, norm: bool = True) -> None:
        super().__init__()
        self.norm = UnitFeatures() if norm else nn.Identity()
        middle, reach = ((0.75, 0.0), (0.45, 0.6)) if norm else ((0.0, 0.0), (1.0, 1.0))
        self.register_buffer("middle", torch.tensor(middle * 2), persistent=False)
        self.register_buffer("reach", torch.tensor(reach * 2), persistent=False)
        turn = torch.arange(count) * (2 * torch.pi / count)
        ring = torch.stack(
            [torch.full((count,), 0.7), 0.2 * turn.cos(), torch.full((count,), 0.7), 0.2 * turn.sin()], 1
        )
        raw = (
            ((ring - self.middle) / self.reach).atanh() if norm else torch.tensor([1.0, 0.0, 1.0, 0.0]).repeat(count, 1)
        )
        self.linear = _starting_at(raw.flatten(), features)

    def forward(self, features: Tensor) -> Tensor:
        return self.middle + self.reach * self.linear(self.norm(features)).tanh().unflatten(1, (-1, 4))


def saturation(gazes: Tensor, limit: float, share: float = 0.95) -> float:
    """Share of the coordinates of `gazes` that lie beyond `share` of the limit, 0 to 1."""
    return (gazes.abs() > share * limit).double().mean().item()


def activity_penalty(gazes: Tensor, limit: float) -> Tensor:
    """Sum of squares of an image's gazes in units of the limit, mean over images: Keras's activity loss."""
    return (gazes / limit).square().flatten(1).sum(1).mean()


def diversity_penalty(gazes: Tensor, width: float) -> Tensor:
    """How close an image's gazes `(N, G, 2)` lie to each other: mean over pairs of `exp(-distance^2 / (2 width^2))`.

    1 if all are the same, 0 if they are far apart; `width` in pixels.
    """
    if gazes.shape[1] < 2:
        raise ValueError("a single gaze cannot differ from the others: the penalty needs two or more")
    first, second = torch.triu_indices(gazes.shape[1], gazes.shape[1], 1)
    squared = (gazes[:, first] - gazes[:, second]).square().sum(-1)  # (N, pairs)
    return torch.exp(-squared / (2 * width**2)).mean()


def _starting_at(bias: Tensor, features: int) -> nn.Linear:
    layer = nn.Linear(features, len(bias))
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(bias)
    return layer
