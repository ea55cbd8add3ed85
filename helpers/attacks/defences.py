"""What adversarial training lowers, where it is more than the loss on attacked images."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..contract import eval_mode
from .base import Attack


@dataclass(frozen=True)
class TRADES:
    """Cross-entropy on clean images + `beta` x KL(clean answer, attacked answer).

    Zhang et al. 2019, arXiv:1901.08573, equation 5: the attack looks for the image in the ball whose answer is furthest
    from the clean one, so no label can leak into it.

    Args:
        attack: an attack on the model in training, for its ball and its steps; its loss is not used. It needs a random
            start, because the distance to the clean answer has no gradient at the clean image.
        beta: what robustness weighs (the paper's 1 / lambda, 6 for CIFAR-10).

    Raises:
        ValueError: the attack starts at the clean image, or has a target.
    """

    attack: Attack
    beta: float = 6.0

    def __post_init__(self) -> None:
        if not self.attack.random_start or self.attack.target is not None:
            raise ValueError("TRADES needs an untargeted attack with a random start")

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and the logits `(N, classes)` of the attacked images."""
        with eval_mode(model), torch.no_grad():
            answer = model(images).float().log_softmax(1)
        attack = replace(self.attack, loss=lambda logits, _: divergence(logits, answer), early_stop=False)
        adv_images = attack(images, labels)
        clean, attacked = model(torch.cat([images, adv_images])).chunk(2)  # one batch: BatchNorm sees both kinds
        distance = divergence(attacked, clean.log_softmax(1)).mean()
        return F.cross_entropy(clean, labels) + self.beta * distance, attacked


@dataclass(frozen=True)
class Mixed:
    """Attacks the first `share` of each batch and leaves the rest as it is.

    Training on such batches (Goodfellow et al. 2014, arXiv:1412.6572, section 6) costs less than attacking all, and
    gives up less clean accuracy.
    """

    attack: Attack
    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share must lie in 0 .. 1, got {self.share}")

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Images like `images`; batches come shuffled, so which ones are attacked is random."""
        count = round(self.share * len(images))
        return torch.cat([self.attack(images[:count], labels[:count]), images[count:]])


def divergence(logits: Tensor, answer: Tensor) -> Tensor:
    """KL(answer, softmax(logits)) of each image, `(N,)`; `answer` holds log-probabilities `(N, classes)`."""
    return F.kl_div(logits.log_softmax(1), answer, reduction="none", log_target=True).sum(1)
