"""Attacks, called as in torchattacks: `attack = PGD(model, eps=8 / 255)`, then `adv_images = attack(images, labels)`.

The model takes images in [0, 1] and returns logits. Every attack also has the arguments `loss`, `target`, `generator`,
`eot_iter`, `restarts` and `early_stop` of `ascent.Attack`; `robust_accuracy` counts who survives.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from .ascent import Attack, Task
from .norms import L2, Norm, blank
from .objectives import Loss, cross_entropy, least_likely, margin, random_target
from .robustness import Robustness, WorstCase, robust_accuracy, worst_case

__all__ = [
    "EOT",
    "FFGSM",
    "FGSM",
    "PGD",
    "PGDL2",
    "Attack",
    "Robustness",
    "Square",
    "WorstCase",
    "cross_entropy",
    "least_likely",
    "margin",
    "random_target",
    "robust_accuracy",
    "worst_case",
]


@dataclass(frozen=True, eq=False, repr=False)
class FGSM(Attack):
    """One step along the gradient's sign: "Explaining and harnessing adversarial examples" (arXiv 1412.6572).

    Distance measure: L-inf

    Arguments:
        model (nn.Module): images in [0, 1] to logits.
        eps (float): budget in pixels of [0, 1]. (Default: 8/255)

    Shape:
        - images: `(N, C, H, W)`, float, in [0, 1]; labels: `(N,)`, int64, `0 <= label < classes`.
        - output: `(N, C, H, W)`, like the images.

    Examples:
        >>> attack = FGSM(model, eps=8 / 255)
        >>> adv_images = attack(images, labels)
    """


@dataclass(frozen=True, eq=False, repr=False)
class PGD(Attack):
    """Many small sign steps: "Towards deep learning models resistant to adversarial attacks" (arXiv 1706.06083).

    Distance measure: L-inf

    Arguments:
        model (nn.Module): images in [0, 1] to logits.
        eps (float): budget in pixels of [0, 1]. (Default: 8/255)
        alpha (float): size of a step; `alpha * steps` below `eps` never uses the budget. (Default: 2/255)
        steps (int): number of steps. (Default: 10)
        random_start (bool): begin at a uniformly random point of the ball. (Default: True)

    Shape:
        - images: `(N, C, H, W)`, float, in [0, 1]; labels: `(N,)`, int64, `0 <= label < classes`.
        - output: `(N, C, H, W)`, like the images.

    Examples:
        >>> attack = PGD(model, eps=8 / 255, alpha=2 / 255, steps=10, random_start=True)
        >>> adv_images = attack(images, labels)
        >>> towards = PGD(model, target=least_likely, restarts=5)  # the CS771 attack, five times
    """

    alpha: float = 2 / 255
    steps: int = 10
    random_start: bool = True


@dataclass(frozen=True, eq=False, repr=False)
class PGDL2(PGD):
    """PGD in a Euclidean ball: "Towards deep learning models resistant to adversarial attacks" (arXiv 1706.06083).

    Distance measure: L2

    Arguments:
        model (nn.Module): images in [0, 1] to logits.
        eps (float): largest length of the perturbation, in pixels of [0, 1]. (Default: 1.0)
        alpha (float): length of a step. (Default: 0.2)
        steps (int): number of steps. (Default: 10)
        random_start (bool): begin in a random direction, at a random distance up to `eps`. (Default: True)

    Shape:
        - images: `(N, C, H, W)`, float, in [0, 1]; labels: `(N,)`, int64, `0 <= label < classes`.
        - output: `(N, C, H, W)`, like the images.

    Examples:
        >>> attack = PGDL2(model, eps=1.0, alpha=0.2, steps=10, random_start=True)
        >>> adv_images = attack(images, labels)
    """

    eps: float = 1.0
    alpha: float = 0.2
    norm: ClassVar[Norm] = L2()


@dataclass(frozen=True, eq=False, repr=False)
class FFGSM(Attack):
    """A random start and one sign step, for training: "Fast is better than free" (arXiv 2001.03994).

    Distance measure: L-inf

    Arguments:
        model (nn.Module): images in [0, 1] to logits.
        eps (float): budget in pixels of [0, 1]. (Default: 8/255)
        alpha (float): size of the step, 1.25 of the default `eps`; much more, and training collapses. (Default: 10/255)

    Shape:
        - images: `(N, C, H, W)`, float, in [0, 1]; labels: `(N,)`, int64, `0 <= label < classes`.
        - output: `(N, C, H, W)`, like the images.

    Examples:
        >>> attack = FFGSM(model, eps=8 / 255, alpha=10 / 255)
        >>> adv_images = attack(images, labels)
    """

    alpha: float = 10 / 255
    random_start = True


@dataclass(frozen=True, eq=False, repr=False)
class Square(Attack):
    """Random search without gradients, by windows of random sign: after "Square Attack" (arXiv 1912.00049).

    Distance measure: L-inf

    Arguments:
        model (nn.Module): images in [0, 1] to logits.
        eps (float): budget in pixels of [0, 1]. (Default: 8/255)
        steps (int): queries an image; the paper takes 5,000, but a few hundred see a masked gradient. (Default: 200)
        share (float): part of the image that the first windows cover, halved nine times on the way. (Default: 0.8)

    Shape:
        - images: `(N, C, H, W)`, float, in [0, 1]; labels: `(N,)`, int64, `0 <= label < classes`.
        - output: `(N, C, H, W)`, like the images.

    Examples:
        >>> attack = Square(model, eps=8 / 255, steps=200)
        >>> adv_images = attack(images, labels)
    """

    steps: int = 200
    share: float = 0.8
    _: KW_ONLY
    loss: Loss = margin
    random_start = True

    def _start(self, images: Tensor) -> Tensor:
        n, c, _, width = images.shape
        return (images + self.eps * self._signs(images, (n, c, 1, width))).clamp_(0, 1)  # vertical stripes

    @torch.no_grad()
    def _climb(self, adv_images: Tensor, task: Task) -> Tensor:
        best, fallen = self._value(adv_images, task)
        for step in range(self.steps):
            rows = (~fallen if self.early_stop else torch.ones_like(fallen)).nonzero().squeeze(1)
            if not len(rows):
                break
            tried = self._propose(adv_images[rows], task.images[rows], step)
            value, wrong = self._value(tried, task[rows])
            better = value > best[rows]
            rows = rows[better]
            adv_images[rows], best[rows], fallen[rows] = tried[better], value[better], wrong[better]
        return adv_images

    def _value(self, adv_images: Tensor, task: Task) -> tuple[Tensor, Tensor]:
        """The objective and whether the model errs, both `(N,)`."""
        logits = self._mean_logits(adv_images, task.highest)
        value = task.sign * self.loss(logits, task.aim)
        if value.isnan().any():  # nothing is better than NaN: the search would stand still, and the model look robust
            raise FloatingPointError("the loss is NaN: attack in float32, and look for 0/0 or log(0) in the model")
        return value, logits.argmax(1) != task.labels

    def _propose(self, adv_images: Tensor, images: Tensor, step: int) -> Tensor:
        """In each image one square window set to plus or minus `eps`, a sign a channel."""
        n, c, height, width = images.shape
        halved = sum(step / self.steps > at for at in (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8))
        side = max(1, min(height, width, round(math.sqrt(self.share / 2**halved * height * width))))
        rows = self._window(images, height, side)[:, None, :, None]
        columns = self._window(images, width, side)[:, None, None, :]
        painted = (images + self.eps * self._signs(images, (n, c, 1, 1))).clamp_(0, 1)
        return torch.where(rows & columns, painted, adv_images)  # (N, C, H, W)

    def _window(self, images: Tensor, length: int, side: int) -> Tensor:
        """Where a run of `side` begins and ends on an axis of `length`, a random place an image: bool `(N, length)`."""
        first = (self._random(images, (len(images), 1)) * (length - side + 1)).long()
        place = torch.arange(length, device=images.device)
        return (place >= first) & (place < first + side)

    def _signs(self, images: Tensor, shape: tuple[int, ...]) -> Tensor:
        return (self._random(images, shape) < 0.5).to(images.dtype) * 2 - 1

    def _random(self, images: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Uniform in [0, 1)."""
        return blank(images, self.generator).new_empty(shape).uniform_(generator=self.generator).to(images.device)


def EOT(attack: Attack, samples: int = 20) -> Attack:
    """`attack` with averaged gradients: "Synthesizing robust adversarial examples" (arXiv 1707.07397).

    For models with random parts in eval mode (noise, random crops), where one pass shows only one of many gradients.

    Distance measure: the attack's own

    Arguments:
        attack (Attack): any attack of this package.
        samples (int): forward passes a step; also where a loss or an answer decides. (Default: 20)

    Shape:
        - as the attack's.

    Examples:
        >>> attack = EOT(PGD(model, eps=8 / 255), samples=20)
        >>> adv_images = attack(images, labels)
    """
    return replace(attack, eot_iter=samples)
