"""What all attacks share: arguments and their checks, the gradient, and the search over restarts and steps."""

from __future__ import annotations

import re
from dataclasses import KW_ONLY, dataclass, fields, replace
from functools import partial
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor, nn

from ..contract import check_labels, check_logits, check_pixels, check_values, gradients_on
from .accuracy import rank, worst_of
from .losses import Loss, TargetRule, cross_entropy
from .norms import LInf, Norm

# A model may run its own forward in fp16 (a training may). Unscaled, the gradient of an image that the model is sure
# of rounds to 0 there and looks like robustness; scaled much more than this, a CLIP head (logit scale 100) overflows.
LOSS_SCALE = 128.0


@dataclass(frozen=True, eq=False)
class Task:
    """What one call is about: images, their labels, the class whose loss counts, and which way (+1: up, -1: down)."""

    images: Tensor
    labels: Tensor
    aim: Tensor
    sign: float
    highest: int  # the largest class in `labels` and `aim`

    def __getitem__(self, rows: Tensor) -> Task:
        return replace(self, images=self.images[rows], labels=self.labels[rows], aim=self.aim[rows])


@dataclass(frozen=True, eq=False, repr=False)
class Attack:
    """One step of size `eps` from the image itself; the attacks in `attacks.py` say what they do otherwise.

    Args:
        model: takes images in [0, 1], so it normalises by itself, and returns logits `(N, classes)`. Its mode and its
            parameters' `.grad` are the same after as before; while it is attacked it is in eval mode.
        eps: the budget in pixels of [0, 1], for example `8 / 255`.
        loss: one value an image, to raise (with a target: to lower).
        target: rule for the class to reach, `least_likely` or `random_target`, asked once, about the clean image.
            None: untargeted.
        generator: where the randomness comes from; None is torch's global one.
        eot_iter: the gradient is averaged over this many forward passes, see `EOT`.
        restarts: random starts; of each image an outcome that the model gets wrong is kept, of several the one with
            the highest loss.
        early_stop: leave an image alone at the first point where the model errs. The same images fall as by looking at
            every point on the way, in much less time; but those are only just wrong: no use for training or transfer.

    Raises:
        ValueError: an argument is out of its range.
    """

    model: nn.Module
    eps: float = 8 / 255
    _: KW_ONLY
    loss: Loss = cross_entropy
    target: TargetRule | None = None
    generator: Generator | None = None
    eot_iter: int = 1
    restarts: int = 1
    early_stop: bool = False

    norm: ClassVar[Norm] = LInf()
    steps = 1  # no annotation: dataclasses would keep its place before `alpha`, where an attack makes it an argument
    random_start = False

    @property
    def alpha(self) -> float:
        """Size of a step, in the units of `eps`."""
        return self.eps

    def __post_init__(self) -> None:
        if not 0 <= self.eps <= self.norm.largest:
            raise ValueError(f"eps is in pixels of [0, 1], got {self.eps}: write 8 / 255 for 8 levels of 255")
        if self.alpha < 0 or min(self.steps, self.restarts, self.eot_iter) < 1:
            raise ValueError(f"alpha must be 0 or more, and steps, restarts and eot_iter 1 or more: {self!r}")
        if self.restarts > 1 and not self.random_start:
            raise ValueError("restarts without random_start would all be the same")

    def __call__(self, images: Tensor, labels: Tensor | None = None, target: Tensor | None = None) -> Tensor:
        """Attacked images.

        Args:
            images: float32 or float64 `(N, C, H, W)` in [0, 1].
            labels: int64 `(N,)`. None: the model's own answers, so that a model trained on these images cannot read the
                label from the perturbation (label leaking, arXiv 1611.01236).
            target: int64 `(N,)`, the classes to reach, in place of the rule.

        Returns:
            Images like `images`, within `eps` of them and in [0, 1].

        Raises:
            ValueError: pixels, labels, targets, the loss or the model's output have the wrong range, type or shape.
            FloatingPointError: a gradient is NaN or infinite.
        """
        _check_images(images)
        if not len(images):
            return images.clone()
        with gradients_on(self.model, images) as own:
            return self._search(self._task(own, labels, target))

    def gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        """Of each image's own loss, at the images themselves, `(N, C, H, W)`: what the attack has to go by."""
        _check_images(images)
        with gradients_on(self.model, images) as own:
            return self._gradient(own, self._task(own, labels, None))[0]

    def stopping_early(self) -> Self:
        """The same attack with `early_stop`."""
        return replace(self, early_stop=True)

    def _task(self, images: Tensor, labels: Tensor | None, target: Tensor | None) -> Task:
        """The arguments of a call, checked; what depends on the model's answer is settled here, on the clean images."""
        by_rule = target is None and self.target is not None
        logits = self._mean_logits(images, -1) if labels is None or by_rule else None
        labels = logits.argmax(1) if labels is None else labels.clone()
        if by_rule:
            check_labels(labels, logits.shape[1])  # a rule looks the label up among the logits
            target = self.target(logits, labels, self.generator)
        highest = max(_check_classes(classes, images) for classes in (labels, target) if classes is not None)
        if target is not None and (target == labels).any():
            raise ValueError("a target is the label itself: reaching it would make the model right, not wrong")
        aim, sign = (labels, 1.0) if target is None else (target.clone(), -1.0)
        return Task(images, labels, aim, sign, highest)

    def _search(self, task: Task) -> Tensor:
        # Starts are drawn for all images, also for those that have fallen: dropping these moves no random number.
        starts = (self._start(task.images) for _ in range(self.restarts))
        if self.restarts == 1:
            return self._climb(next(starts), task)
        return worst_of((partial(self._try, start, task) for start in starts), task.images, drop=self.early_stop)

    def _try(self, start: Tensor, task: Task, rows: Tensor) -> tuple[Tensor, Tensor]:
        task = task[rows]
        adv_images = self._climb(start[rows], task)
        logits = self._mean_logits(adv_images, task.highest)
        return adv_images, rank(self._objective(logits, task), logits, task.labels)

    def _start(self, images: Tensor) -> Tensor:
        if not self.random_start:
            return images
        return (images + self.norm.start(images, self.eps, self.generator)).clamp_(0, 1)

    def _climb(self, adv_images: Tensor, task: Task) -> Tensor:
        """`steps` steps up from `adv_images`."""
        out, rows = adv_images.clone(), torch.arange(len(adv_images), device=adv_images.device)
        finite = torch.ones((), dtype=torch.bool, device=adv_images.device)
        for _ in range(self.steps):
            gradient, logits = self._gradient(adv_images, task)
            finite &= torch.isfinite(gradient).all()  # looked at once, at the end: each look waits for the device
            if self.early_stop and not (right := logits.argmax(1) == task.labels).all():
                out[rows] = adv_images
                rows, adv_images, gradient, task = rows[right], adv_images[right], gradient[right], task[right]
                if not len(rows):
                    break
            adv_images = self._step(adv_images, gradient, task.images)
        out[rows] = adv_images
        if not finite:  # the sign of NaN is 0: an attack that goes on does nothing, and the model looks robust
            raise FloatingPointError("a gradient is NaN or infinite: attack in float32, and look for 0/0 or sqrt(0)")
        return out

    def _step(self, adv_images: Tensor, gradient: Tensor, images: Tensor) -> Tensor:
        moved = adv_images.add(self.norm.direction(gradient), alpha=self.alpha)
        return self.norm.project(moved.sub_(images), self.eps).add_(images).clamp_(0, 1)

    def _gradient(self, adv_images: Tensor, task: Task) -> tuple[Tensor, Tensor]:
        """Of each image's own loss, `(N, C, H, W)`, and the logits `(N, classes)`: means over `eot_iter` passes."""
        adv_images = adv_images.detach().requires_grad_()
        gradient, total = torch.zeros_like(adv_images), 0.0
        for _ in range(self.eot_iter):
            logits = self._logits(adv_images, task.highest)
            value = self._objective(logits, task)
            check_values(value, logits)
            if not value.requires_grad:
                raise ValueError("no gradient comes back to the images: the model or the loss detaches them")
            gradient += torch.autograd.grad(value.sum() * LOSS_SCALE, adv_images)[0]
            total = total + logits.detach()
        return gradient / (LOSS_SCALE * self.eot_iter), total / self.eot_iter

    def _objective(self, logits: Tensor, task: Task) -> Tensor:
        """What is raised, one value an image, `(N,)`."""
        return task.sign * self.loss(logits, task.aim)

    @torch.no_grad()
    def _mean_logits(self, images: Tensor, highest: int) -> Tensor:
        return torch.stack([self._logits(images, highest) for _ in range(self.eot_iter)]).mean(0)

    def _logits(self, images: Tensor, highest: int) -> Tensor:
        """In float32 or better, whatever the model computes in; `highest` is the largest class that is asked for."""
        logits = self.model(images)
        check_logits(logits, images, highest)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def __repr__(self) -> str:
        """The arguments as they would be typed, without the model: stable, so that a checkpoint can keep it."""
        values = {f: getattr(self, f.name) for f in sorted(fields(self), key=lambda f: f.kw_only) if f.name != "model"}
        told = [f"{f.name}={_typed(value)}" for f, value in values.items() if not f.kw_only or value != f.default]
        return f"{type(self).__name__}({', '.join(told)})"


def _check_images(images: Tensor) -> None:
    check_pixels(images)
    if images.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"images must be float32 or float64, got {images.dtype}: too coarse for a budget of 1/255")


def _check_classes(classes: Tensor, images: Tensor) -> int:
    """Raise ValueError unless `classes` is int64 `(N,)` and none is negative; return the largest."""
    highest = int(classes.max()) if classes.numel() else -1
    check_labels(classes, highest + 1, images)
    return highest


def _typed(value: object) -> str:
    """An argument in the form in which one would write it."""
    if isinstance(value, float):
        return budget(value)
    if isinstance(value, Generator):
        return f"seed {value.initial_seed()}"
    return getattr(value, "__name__", None) or re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def budget(eps: float) -> str:
    """`8/255` for 0.03137254901960784; a number that is short by itself stays as it is."""
    levels = round(eps * 255, 3)
    return f"{levels:g}/255" if len(repr(eps)) > 6 and levels / 255 == eps else repr(eps)
