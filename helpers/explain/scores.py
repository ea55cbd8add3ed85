"""Is a map any good? Scores against a known mask or the model's own answers, beside a random map and an edge map.

Maps are float `(N, H, W)`, masks bool `(N, H, W)`; a score is one number an image, float `(N,)`. Pixels of equal value
share what they win, so that a constant map scores what chance scores.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..contract import check_labels, check_pixels, eval_mode

Scores = dict[str, dict[str, Tensor]]  # name of the map -> name of the score -> (N,)


def random_maps(images: Tensor, seed: int = 0, cells: tuple[int, int] | None = None) -> Tensor:
    """Uniform noise in [0, 1), `(N, H, W)`: each pixel its own, or as coarse as a CAM of `cells` (h, w)."""
    noise = torch.rand(len(images), 1, *(cells or images.shape[2:]), generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, images.shape[2:], mode="bilinear")[:, 0].to(images)  # (N, H, W)


def edge_maps(images: Tensor) -> Tensor:
    """Length of the Sobel gradient of the mean channel, `(N, H, W)`: what no model needs to know (arXiv 1810.03292)."""
    sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]).to(images) / 8  # pixel value per pixel
    grey = F.pad(images.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")  # (N, 1, H+2, W+2)
    return F.conv2d(grey, torch.stack([sobel, sobel.T])[:, None]).norm(dim=1)  # (N, 2, H, W) to (N, H, W)


def with_baselines(maps: Mapping[str, Tensor], images: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """The maps by name, then the `"random map"` and the `"edge map"` that each of them has to beat."""
    return {**maps, "random map": random_maps(images, seed), "edge map": edge_maps(images)}


def top_pixels(maps: Tensor, counts: Tensor | int) -> Tensor:
    """Membership among the `counts` highest pixels of each map, `(N, H, W)` in [0, 1], which sums to `counts`.

    1 above the last place, 0 below it; pixels that tie for the last places share them.

    Raises:
        ValueError: a map has NaN, or a count is not in 1 .. H*W.
    """
    flat = maps.flatten(1)  # (N, H*W)
    counts = torch.as_tensor(counts, device=maps.device).expand(len(flat))[:, None]
    if torch.isnan(flat).any():
        raise ValueError("maps hold NaN: look at the step that made them")
    if ((counts < 1) | (counts > flat.shape[1])).any():
        raise ValueError(f"counts must lie in 1 .. {flat.shape[1]}; is a mask empty?")
    last = flat.sort(1, descending=True).values.gather(1, counts - 1)
    above, tied = flat > last, flat == last
    share = (counts - above.sum(1, keepdim=True)) / tied.sum(1, keepdim=True)
    return (above + share * tied).view_as(maps)


def pointing_game(maps: Tensor, masks: Tensor) -> Tensor:
    """Whether the highest pixel lies on the mask, `(N,)`: 1 or 0, a share where several are highest.

    Zhang et al. 2016, arXiv 1608.00507, without its 15 pixels of tolerance. Chance is the mask's share of the pixels.
    """
    _check_masks(maps, masks)
    return (top_pixels(maps, 1) * masks).sum((1, 2))


def mask_iou(maps: Tensor, masks: Tensor, share: float | None = None) -> Tensor:
    """Intersection over union of the mask and the map's highest pixels, `(N,)` in [0, 1].

    Args:
        share: how many pixels of the image count as highest, 0.2 for the top 20 %; None: as many as the mask has.

    Raises:
        ValueError: shapes differ, a mask is not bool or, where its size is asked for, empty.
    """
    _check_masks(maps, masks)
    counts = masks.sum((1, 2)) if share is None else _count(maps, share)
    return _overlap(top_pixels(maps, counts), masks.to(maps.dtype))


def map_iou(maps: Tensor, others: Tensor, share: float = 0.2) -> Tensor:
    """Intersection over union of two maps' highest pixels, `(N,)` in [0, 1]: how far an attack moves the look.

    NaN where both maps are constant (a Grad-CAM map is 0 everywhere if all evidence is against the class): neither has
    highest pixels, so there is nothing to compare. If only one of them is, it scores what chance scores.
    """
    if maps.shape != others.shape:
        raise ValueError(f"maps differ in shape: {tuple(maps.shape)} and {tuple(others.shape)}")
    counts = _count(maps, share)
    overlap = _overlap(top_pixels(maps, counts), top_pixels(others, counts))
    return overlap.masked_fill(_constant(maps) & _constant(others), torch.nan)


def deletion_curve(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    labels: Tensor | None = None,
    *,
    steps: int = 20,
    fill: Tensor | None = None,
) -> Tensor:
    """The label's probability while the map's highest pixels are painted over, first to last.

    Petsiuk et al. 2018 (RISE), arXiv 1806.07421. A good map makes it fall early: a small `area_under` is good.

    Args:
        images: float `(N, C, H, W)` in [0, 1].
        maps: `(N, H, W)`; pixels of equal value go in a fixed random order.
        labels: int64 `(N,)`, or None for the model's predictions on the whole images.
        steps: in how many equal parts the pixels go.
        fill: what they turn into, broadcast to the images; None: the image's mean colour.

    Returns:
        `(N, steps + 1)`, probabilities with 0, 1/steps, ... 1 of the pixels gone.

    Raises:
        ValueError: pixels, labels or shapes do not fit.
    """
    fill = images.mean((2, 3), keepdim=True) if fill is None else fill  # (N, C, 1, 1)
    labels = _labels(model, images, labels)
    return _curve(model, images, fill.expand_as(images), _ranks(maps, images), labels, steps)


def insertion_curve(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    labels: Tensor | None = None,
    *,
    steps: int = 20,
    fill: Tensor | None = None,
) -> Tensor:
    """The label's probability while the map's highest pixels come back to a blurred image, first to last.

    The counterpart of `deletion_curve`, with its arguments, result and errors: a good map makes it rise early, a large
    `area_under` is good. `fill` is what the pixels come back to; None: the image blurred to 4 x 4 colours.
    """
    fill = blurred(images) if fill is None else fill
    labels = _labels(model, images, labels)
    return _curve(model, fill.expand_as(images), images, _ranks(maps, images), labels, steps)


def area_under(curves: Tensor) -> Tensor:
    """Area under curves `(N, steps + 1)` over the share of pixels from 0 to 1, by trapezoids: `(N,)` in [0, 1]."""
    return torch.trapezoid(curves, dx=1 / (curves.shape[1] - 1))


def blurred(images: Tensor, cells: int = 4) -> Tensor:
    """Images of which only `cells` x `cells` mean colours are left, smoothly joined, `(N, C, H, W)`."""
    return F.interpolate(F.adaptive_avg_pool2d(images, cells), images.shape[2:], mode="bilinear")


def curve_scores(
    model: nn.Module,
    maps: Mapping[str, Tensor],
    images: Tensor,
    labels: Tensor | None = None,
    steps: int = 20,
    seed: int = 0,
) -> Scores:
    """Areas under the `deletion` (low is good) and `insertion` (high is good) curves, beside the same two baselines."""
    curves = {"deletion": deletion_curve, "insertion": insertion_curve}
    return {
        name: {key: area_under(curve(model, images, m, labels, steps=steps)) for key, curve in curves.items()}
        for name, m in with_baselines(maps, images, seed).items()
    }


def _check_masks(maps: Tensor, masks: Tensor) -> None:
    if masks.dtype != torch.bool or maps.ndim != 3 or masks.shape != maps.shape:
        raise ValueError(
            f"maps must be (N, H, W) and masks bool of that shape, got {tuple(maps.shape)} and {masks.dtype} "
            f"{tuple(masks.shape)}"
        )


def _count(maps: Tensor, share: float) -> int:
    return round(share * maps.shape[1:].numel())


def _constant(maps: Tensor) -> Tensor:
    """Maps that have one value everywhere, bool `(N,)`."""
    return maps.amax((1, 2)) == maps.amin((1, 2))


def _overlap(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of two memberships `(N, H, W)` in [0, 1]."""
    return torch.minimum(one, other).sum((1, 2)) / torch.maximum(one, other).sum((1, 2))


def _ranks(maps: Tensor, images: Tensor) -> Tensor:
    """Each pixel's place from the highest, `(N, H, W)`, 0 first; the same draw decides ties in every map."""
    if maps.shape != images[:, 0].shape or torch.isnan(maps).any():
        raise ValueError(f"maps must be {tuple(images[:, 0].shape)} without NaN, got {tuple(maps.shape)}")
    flat = maps.flatten(1)
    draw = torch.randperm(flat.shape[1], generator=torch.Generator().manual_seed(0)).to(maps.device)
    order = draw[flat[:, draw].argsort(dim=1, descending=True, stable=True)]  # (N, H*W)
    return order.argsort(1).view_as(maps)


def _curve(model: nn.Module, before: Tensor, after: Tensor, ranks: Tensor, labels: Tensor, steps: int) -> Tensor:
    """The labels' probabilities `(N, steps + 1)` while `before` turns into `after`, lowest rank first."""
    curve = []
    for step in range(steps + 1):
        turned = ranks < round(step / steps * ranks.shape[1:].numel())  # (N, H, W)
        probabilities = _probabilities(model, torch.where(turned[:, None], after, before))
        curve.append(probabilities.gather(1, labels[:, None]))
    return torch.cat(curve, 1)


def _labels(model: nn.Module, images: Tensor, labels: Tensor | None) -> Tensor:
    """The labels, checked, or the model's predictions on the whole images."""
    check_pixels(images)
    probabilities = _probabilities(model, images)
    labels = probabilities.argmax(1) if labels is None else labels.to(probabilities.device)
    check_labels(labels, probabilities.shape[1], images)
    return labels


def _probabilities(model: nn.Module, images: Tensor) -> Tensor:
    with eval_mode(model), torch.no_grad():
        return model(images).softmax(1)
