"""Where does a model look? Saliency, Grad-CAM and HiResCAM, for CNNs and ViTs, a batch at a time.

N images, C channels, H x W pixels; h x w is the grid of cells of an inner layer. Every function returns raw maps, float
`(N, H, W)` >= 0 on the images' device; `scale_maps` brings them to [0, 1] for a figure. The model is explained in eval
mode and without autocast, and nothing of it is changed: no `.grad`, no mode, no hook stays behind. Frozen weights and
callers under `torch.no_grad` or `torch.inference_mode` make no difference.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..contract import check_labels, check_logits, check_pixels, check_values, cross_entropy, gradients_on
from .layers import Tokens, as_grid, cut_at

Score = Callable[[Tensor, Tensor], Tensor]  # logits (N, classes), targets (N,) -> what is explained (N,)


def class_logit(logits: Tensor, targets: Tensor) -> Tensor:
    """The target's logit, `(N,)`: what speaks for this class."""
    return logits.gather(1, targets[:, None])[:, 0]


def saliency(model: nn.Module, images: Tensor, labels: Tensor | None = None, *, score: Score = cross_entropy) -> Tensor:
    """How much the score moves with each pixel: the input gradient, its absolute value, the largest of the channels.

    Simonyan et al. 2013, arXiv 1312.6034; the score is the loss, as CS771 asks (the paper's is `class_logit`).

    Args:
        model: images to logits `(N, classes)`.
        images: float `(N, C, H, W)` in [0, 1].
        labels: int64 `(N,)`, or None for the model's own predictions.
        score: what is differentiated.

    Returns:
        `(N, H, W)`, score per unit of pixel value.

    Raises:
        ValueError: pixels, labels or logits out of shape or range, or a gradient that is NaN or zero everywhere.
    """
    check_pixels(images)
    with gradients_on(model, images) as own:
        own.requires_grad_()
        return _strongest_channel(_gradient(_total_score(model, own, labels, score), own))


def grad_cam(
    model: nn.Module,
    layer: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    score: Score = class_logit,
    tokens: Tokens | None = None,
) -> Tensor:
    """Grad-CAM: the layer's channels, weighted by their mean gradient, summed, negative evidence cut off.

    Selvaraju et al. 2016, arXiv 1610.02391: `ReLU(sum_c mean_xy(dS/dA_c) A_c)`, bilinearly enlarged to the image.

    Args:
        model: images to logits `(N, classes)`.
        layer: a module of it that returns `(N, C, h, w)`, `(N, h, w, C)` or tokens `(N, T, C)`. Use the last block of
            a CNN, and of a ViT the *first* norm of the last block: behind the last attention only the class token
            reaches the logits, so that the patches' gradient is zero.
        images: float `(N, C, H, W)` in [0, 1].
        targets: class to explain, int64 `(N,)`, or None for the model's own predictions.
        score: what is differentiated.
        tokens: where the patches lie, if it cannot be found from their number (prompts behind the patches).

    Returns:
        `(N, H, W)` >= 0, in units of the score.

    Raises:
        ValueError: pixels, targets or logits out of shape or range; the layer did not run exactly once, returns no grid
            of at least two cells, or no image's score depends on it.
    """
    activation, gradient = _layer_gradient(model, layer, images, targets, score, tokens)  # (N, C, h, w) each
    weights = gradient.mean((2, 3), keepdim=True)  # (N, C, 1, 1)
    return _enlarge((weights * activation).sum(1), images)  # not a matrix product: autocast would round it


def hires_cam(
    model: nn.Module,
    layer: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    *,
    score: Score = class_logit,
    tokens: Tokens | None = None,
) -> Tensor:
    """HiResCAM: gradient times activation in each cell, summed over channels, negative evidence cut off.

    Draelos and Carin 2020, arXiv 2011.08891: `ReLU(sum_c dS/dA_c * A_c)`. Unlike Grad-CAM it does not average the
    gradient over cells, so it marks no cell without a gradient. Arguments, result and errors as in `grad_cam`. In a ViT
    take a norm, not a block: what goes into a LayerNorm is orthogonal to its gradient, and the sum is rounding noise.
    """
    activation, gradient = _layer_gradient(model, layer, images, targets, score, tokens)  # (N, C, h, w) each
    return _enlarge((gradient * activation).sum(1), images)


def scale_maps(maps: Tensor, shared: bool = False) -> Tensor:
    """Maps `(..., H, W)` brought to [0, 1]: each by its own lowest and highest value, or all by the same two.

    A scale per image stretches the faintest map to full colour. To compare models, or clean with attacked images,
    stack their maps and scale them with `shared=True`. A constant map becomes 0.
    """
    over = tuple(range(maps.ndim)) if shared else (-2, -1)
    low, high = maps.amin(over, keepdim=True), maps.amax(over, keepdim=True)
    return (maps - low) / torch.where(high > low, high - low, torch.ones_like(high))


def _total_score(model: nn.Module, images: Tensor, targets: Tensor | None, score: Score) -> Tensor:
    """The sum over images, whose gradient holds each image's own: in eval mode no image touches another."""
    logits = model(images)
    check_logits(logits, images)
    targets = logits.detach().argmax(1) if targets is None else targets.to(logits.device, copy=True)
    check_labels(targets, logits.shape[1], images)
    scores = score(logits, targets)
    check_values(scores, logits)
    return scores.sum()


def _gradient(total: Tensor, by: Tensor) -> Tensor:
    """Zero where the graph of `total` does not lead."""
    if not total.requires_grad:
        return torch.zeros_like(by)
    (gradient,) = torch.autograd.grad(total, by, allow_unused=True, materialize_grads=True)
    if not torch.isfinite(gradient).all():
        raise ValueError("the gradient is NaN or infinite: is there a division, root or logarithm of 0 in the model?")
    return gradient


def _strongest_channel(gradient: Tensor) -> Tensor:
    if not gradient.any():
        raise ValueError(
            "the input gradient is zero for every image: does the model round its input or cut the graph? If it is "
            "just certain of itself, its loss is flat: explain score=class_logit"
        )
    return gradient.abs().amax(1)  # (N, H, W)


def _layer_gradient(
    model: nn.Module, layer: nn.Module, images: Tensor, targets: Tensor | None, score: Score, tokens: Tokens | None
) -> tuple[Tensor, Tensor]:
    """The layer's output as a grid and the score's gradient by it, `(N, C, h, w)` each."""
    check_pixels(images)
    with gradients_on(model, images) as own, cut_at(layer) as outputs:
        total = _total_score(model, own, targets, score)
        if len(outputs) != 1:
            raise ValueError(f"the layer ran {len(outputs)} times: choose one that this model runs exactly once")
        gradient = _gradient(total, outputs[0])
    activation, gradient = (as_grid(x.detach(), images.shape[2:], tokens) for x in (outputs[0], gradient))
    if not gradient.any():
        raise ValueError(
            "the layer's gradient is zero for every image, so the score does not depend on it: in a ViT choose a layer "
            "before the last attention (blocks[-1].norm1), behind which no patch reaches the class token"
        )
    return activation, gradient


def _enlarge(cells: Tensor, images: Tensor) -> Tensor:
    """Cells `(N, h, w)`, negative ones cut off, to the image's pixels."""
    return F.interpolate(cells.relu()[:, None], images.shape[2:], mode="bilinear")[:, 0]  # (N, H, W)
