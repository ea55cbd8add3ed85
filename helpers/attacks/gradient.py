"""Attacks, called as in torchattacks: `attack = PGD(model, eps=8 / 255)`, then `adv_images = attack(images, labels)`.

The model takes images in [0, 1] and returns logits. Every attack also has the arguments `loss`, `target`, `generator`,
`eot_iter`, `restarts` and `early_stop` of `base.Attack`; `robust_accuracy` counts who survives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from .base import Attack
from .norms import L2, Norm


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
