"""How sharp a minimum is: the loss around a model's weights, measured.

Flat and sharp are said of the loss as a function of the weights, for fixed images; not of the images. The model is only
read: each point is a set of new tensors that stand in for the weights during one forward. All of it runs in the model's
own precision: bf16 keeps 8 bits of a weight, and the small steps measured here would drown in its rounding.

`batches` is any iterable of `(images, labels)`; it is read once and held, so every point sees the same images. `loss`
is the mean over a batch; smaller batches give the same figures in less memory. Dropout is off and BatchNorm uses its
running figures (eval mode).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Generator, nn

from .surface import Batches, Loss, Weights, climb, fixed, flat, normal, parameters, random_direction, tensors, tiny


@dataclass(frozen=True)
class Sharpness:
    """The `loss` at the weights, the `largest` increase in the ball, the mean increase in `random` directions."""

    loss: float
    largest: float
    random: float


@dataclass(frozen=True)
class Eigenvalue:
    """The `value`; some eigenvalue of the Hessian lies within `error` of it; how many `iterations` that took."""

    value: float
    error: float
    iterations: int


def filter_normalised_direction(model: nn.Module, seed: int) -> Weights:
    """A random direction in which every filter is as long as the model's own (Li et al. 2018, arXiv 1712.09913).

    A filter is a slice along a weight's first dimension. Parameters of one dimension (biases, norms, LayerScale) do
    not move, as in the paper's code. So equal amounts mean equal relative changes, whatever the scale of a layer.
    """
    return random_direction(parameters(model), Generator().manual_seed(seed))


def between(model: nn.Module, other: nn.Module) -> Weights:
    """The straight line from `model` (amount 0) to `other` (amount 1), two models of one architecture.

    BatchNorm's running figures and other real-valued buffers move along, so that both ends are the two models. In
    between, those are mixed and not measured again, which overstates the barrier of a network with BatchNorm (Jordan
    et al. 2022, arXiv 2211.08403); beyond the ends a mixed variance may fall below 0 and the loss is NaN then. A ViT
    has no such buffers.

    Raises:
        ValueError: names or shapes differ.
    """
    here, there = tensors(model), tensors(other)
    for name in here | there:
        shapes = [tuple(side[name].shape) if name in side else "missing" for side in (here, there)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"no straight line between the two models: {name} is {shapes[0]} in one and {shapes[1]} in the other; "
                "build both with the same arguments"
            )
    return {name: there[name].to(here[name]) - here[name] for name in here}


def loss_along(
    model: nn.Module, direction: Weights, batches: Batches, amounts: Sequence[float], loss: Loss = F.cross_entropy
) -> pd.DataFrame:
    """Loss and accuracy at `weights + amount * direction`.

    Returns:
        DataFrame over `amount` with the columns `loss` and `top1` (0 to 1).

    Raises:
        ValueError: the direction does not fit the model, or there are no batches.
    """
    with fixed(model, batches, loss, len(amounts), "loss along a line") as surface:
        rows = [surface.figures(surface.moved(amount, direction)) for amount in amounts]
    return pd.DataFrame(rows, index=pd.Index(amounts, name="amount"), columns=["loss", "top1"])


def sharpness(
    model: nn.Module,
    batches: Batches,
    radius: float,
    steps: int = 20,
    seed: int = 0,
    draws: int = 5,
    loss: Loss = F.cross_entropy,
) -> Sharpness:
    """How far the loss can rise when each filter moves by at most `radius` times its own length.

    The largest increase in a ball is Keskar et al.'s sharpness (arXiv 1609.04836). That the ball goes with the weights
    answers Dinh et al. (arXiv 1703.04933): scaling one layer up and the next down changes nothing. Kwon et al. (ASAM,
    arXiv 2102.11600) do the same with one ball over all filters. What ascent finds is a lower bound of the maximum.

    Args:
        radius: relative, above 0; 0.05 moves each filter by 5 % of its length.
        steps: of projected gradient ascent, each of length `2.5 * radius / steps` (at most `radius`).
        seed: of the start, a hundredth of the radius aside because a minimum has no gradient, and of the `draws`.
        draws: random directions of length `radius` over which the mean is taken.

    Raises:
        ValueError: radius, steps or draws out of range, or no batches.
        FloatingPointError: the loss at the weights is not finite.
    """
    if not 0 < radius < float("inf") or steps < 1 or draws < 1:
        raise ValueError(f"need radius > 0, steps and draws of 1 or more, got {radius=}, {steps=}, {draws=}")
    generator = Generator().manual_seed(seed)
    with fixed(model, batches, loss, steps + draws + 2, f"sharpness, radius {radius:g}") as surface:
        start, _ = surface.figures({})
        if not abs(start) < float("inf"):
            raise FloatingPointError(f"the loss at the model's own weights is {start}: nothing can be measured there")
        rises = []
        for _ in range(draws):
            place = surface.moved(radius, random_direction(surface.origin, generator))
            rises.append(surface.figures(place)[0] - start)
        climbed = [value - start for value in climb(surface, radius, steps, generator)]
    # max leaves a NaN aside when it does not come first: what overflowed is no measurement
    return Sharpness(start, max(0.0, *rises, *climbed), sum(rises) / draws)


def top_eigenvalue(
    model: nn.Module,
    batches: Batches,
    iterations: int = 30,
    seed: int = 0,
    tolerance: float = 1e-3,
    loss: Loss = F.cross_entropy,
) -> Eigenvalue:
    """The Hessian's eigenvalue of largest size, over all parameters, by power iteration.

    An iteration is one Hessian-vector product: two backward passes, no matrix (Pearlmutter 1994). Below 0, the largest
    curvature is downwards: the weights are at no minimum. Not scale-free: the same function with rescaled layers has
    another value (Dinh et al., arXiv 1703.04933), so read it beside `sharpness`.

    Args:
        tolerance: stops when the value changes by less than this share of itself.

    Raises:
        ValueError: fewer than 1 iteration, or no batches.
    """
    if iterations < 1:
        raise ValueError(f"need 1 iteration or more, got {iterations}")
    generator = Generator().manual_seed(seed)
    with fixed(model, batches, loss, iterations, "top eigenvalue") as surface:
        product, values = flat(normal(weight, generator) for weight in surface.origin.values()), []
        for _ in range(iterations):
            vector = product / torch.linalg.vector_norm(product).clamp_min(tiny(product))
            product = surface.times_hessian(vector)
            values.append((vector @ product).item())
            if len(values) > 1 and not abs(values[-1] - values[-2]) > tolerance * abs(values[-1]):
                break  # also where it is NaN
    error = torch.linalg.vector_norm(product - values[-1] * vector).item()
    return Eigenvalue(values[-1], error, len(values))
