"""The loss as a function of a model's weights, and lengths filter by filter: what `sharpness` measures with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, autograd, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..contract import eval_mode, tqdm

Batches = Iterable[tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]  # outputs, labels -> mean over the batch
Weights = dict[str, Tensor]  # by the model's own names; as a direction: what is not named does not move


@dataclass(frozen=True, eq=False)
class Surface:
    """The loss as a function of the weights, on batches that stay the same."""

    model: nn.Module
    batches: list[tuple[Tensor, Tensor]]
    loss: Loss
    bar: tqdm
    origin: Weights

    def moved(self, amount: float, direction: Weights) -> Weights:
        """The model's weights and buffers after this step, as new tensors; what does not move is left out."""
        home = tensors(self.model)
        for name, change in direction.items():
            if name not in home or home[name].shape != change.shape:
                raise ValueError(f"the direction does not fit the model at {name}: make it from this model")
        return {name: home[name] + amount * change for name, change in direction.items()}

    def outputs(self, place: Weights) -> Iterator[tuple[Tensor, Tensor, float]]:
        """The model's outputs at `place`, the labels, and the batch's share of the images."""
        count = sum(len(labels) for _, labels in self.batches)
        for images, labels in self.batches:
            yield functional_call(self.model, place, (images,)), labels, len(labels) / count
            self.bar.update()

    @torch.no_grad()
    def figures(self, place: Weights) -> tuple[float, float]:
        """Loss and top1 at `place`."""
        loss = top1 = 0.0
        for logits, labels, share in self.outputs(place):
            loss += self.loss(logits, labels).item() * share
            top1 += (logits.argmax(1) == labels).double().mean().item() * share
        return loss, top1

    @torch.enable_grad()
    def gradient(self, place: Weights) -> tuple[float, Weights]:
        """The loss at `place` and its gradient with respect to what `place` holds."""
        free = {name: weight.detach().requires_grad_() for name, weight in place.items()}
        value, total = 0.0, {name: torch.zeros_like(weight) for name, weight in place.items()}
        for logits, labels, share in self.outputs(free):
            loss = self.loss(logits, labels) * share
            value += loss.item()
            for name, part in zip(free, autograd.grad(loss, list(free.values()), materialize_grads=True), strict=True):
                total[name] += part
        return value, total

    @torch.enable_grad()
    def times_hessian(self, vector: Tensor) -> Tensor:
        """The Hessian at the model's weights, times `vector`, both over all parameters in a row."""
        free = {name: weight.detach().requires_grad_() for name, weight in self.origin.items()}
        total = torch.zeros_like(vector)
        with sdpa_kernel(SDPBackend.MATH):  # the fused attention kernels have no second derivative
            for logits, labels, share in self.outputs(free):
                loss = self.loss(logits, labels) * share
                slope = flat(autograd.grad(loss, list(free.values()), create_graph=True, materialize_grads=True))
                total += flat(autograd.grad(slope @ vector, list(free.values()), materialize_grads=True))
        return total


@contextmanager
def fixed(model: nn.Module, batches: Batches, loss: Loss, passes: int, description: str) -> Iterator[Surface]:
    """The surface on these batches, the model in eval mode; the progress bar counts `passes` over them."""
    origin = parameters(model)
    device = next(iter(origin.values())).device
    held = [(images.to(device), labels.to(device)) for images, labels in batches]
    if not held:
        raise ValueError("no batches: the loss needs images (an iterator that was used up gives none)")
    bar = tqdm(total=passes * len(held), desc=description, leave=False, mininterval=1)
    with bar, eval_mode(model):
        yield Surface(model, held, loss, bar, origin)


def climb(surface: Surface, radius: float, steps: int, generator: Generator) -> Iterator[float]:
    """The losses met on the way up, by projected gradient ascent with normalised steps, filter by filter."""
    weights = {name: weight for name, weight in surface.origin.items() if weight.ndim > 1}
    length = min(1.0, 2.5 / steps) * radius
    offset = {name: radius / 100 * change for name, change in random_direction(weights, generator).items()}
    for _ in range(steps):
        value, slope = surface.gradient(surface.moved(1.0, offset))
        yield value
        for name, weight in weights.items():
            offset[name] = _inside(weight, offset[name] + length * _as_long_as(weight, slope[name]), radius)
    yield surface.figures(surface.moved(1.0, offset))[0]


def tensors(model: nn.Module) -> Weights:
    """Parameters, and the buffers that hold real numbers."""
    buffers = {name: buffer for name, buffer in model.named_buffers() if buffer.is_floating_point()}
    return parameters(model) | buffers


def parameters(model: nn.Module) -> Weights:
    """By name, without gradients; shared ones once."""
    return {name: weight.detach() for name, weight in model.named_parameters()}


def random_direction(weights: Weights, generator: Generator) -> Weights:
    """Gaussian, each filter as long as the weight's; 0 for parameters of one dimension."""
    return {name: _as_long_as(weight, normal(weight, generator)) for name, weight in weights.items()}


def normal(like: Tensor, generator: Generator) -> Tensor:
    """Drawn on the CPU, so that a seed means the same on every device."""
    return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)


def _as_long_as(weight: Tensor, direction: Tensor) -> Tensor:
    """`direction` with each filter as long as the weight's; 0 where it is 0, and where `weight` has no filters."""
    if weight.ndim < 2:
        return torch.zeros_like(weight)
    largest = direction.abs().amax(tuple(range(1, weight.ndim)), keepdim=True)
    scaled = direction / largest.clamp_min(tiny(weight))  # largest value 1, or all 0: squares do not underflow
    return scaled / _lengths(scaled).clamp_min(1) * _lengths(weight)


def _inside(weight: Tensor, offset: Tensor, radius: float) -> Tensor:
    """`offset` with each filter shortened to `radius` times the weight's where it is longer."""
    return offset * (radius * _lengths(weight) / _lengths(offset).clamp_min(tiny(weight))).clamp_max(1)


def _lengths(weight: Tensor) -> Tensor:
    """L2 norm of each filter, `(filters, 1, ...)`."""
    return torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.ndim)), keepdim=True)


def tiny(like: Tensor) -> float:
    """The smallest number by which one may still divide."""
    return torch.finfo(like.dtype).tiny


def flat(parts: Iterable[Tensor]) -> Tensor:
    """All values in a row."""
    return torch.cat([part.flatten() for part in parts])
