"""What an attack wants: a loss to raise, or a wrong class to reach.

A loss takes logits `(N, classes)` and labels `(N,)` and gives one value an image, `(N,)`: summed, not averaged, an
image's gradient does not shrink with the batch. A target rule takes logits, labels and a generator and gives classes
`(N,)`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ..contract import cross_entropy as cross_entropy  # the loss that saliency differentiates too

Loss = Callable[[Tensor, Tensor], Tensor]
TargetRule = Callable[[Tensor, Tensor, Generator | None], Tensor]


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The best other logit minus the label's, `(N,)`: above 0 where the model errs (Carlini, Wagner, arXiv 1608.04644).

    It does not saturate: where the softmax is 1 to the last bit the cross-entropy's gradient is 0, this one's is not.
    """
    chosen = F.one_hot(labels, logits.shape[1]).bool()
    return logits.masked_fill(chosen, -torch.inf).amax(1) - logits.gather(1, labels[:, None]).squeeze(1)


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """`margin` by the distance from the highest to the third highest logit, `(N,)` (Croce, Hein, arXiv 2003.01690).

    Logits times 10 give the same loss, where cross-entropy saturates.

    Raises:
        ValueError: fewer than 3 classes.
    """
    top = _highest(logits, 3)
    return margin(logits, labels) / (top[:, 0] - top[:, 2] + 1e-12)


def dlr_targeted(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The target's logit minus the label's, by a distance between the highest logits, `(N,)` (arXiv 2003.01690).

    Raises:
        ValueError: fewer than 4 classes.
    """
    top = _highest(logits, 4)
    lead = logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None])
    return lead.squeeze(1) / (top[:, 0] - 0.5 * top[:, 2] - 0.5 * top[:, 3] + 1e-12)


def _highest(logits: Tensor, count: int) -> Tensor:
    if logits.shape[1] < count:
        raise ValueError(f"the DLR loss needs {count} classes or more, the model has {logits.shape[1]}: take `margin`")
    return logits.topk(count, dim=1).values


def least_likely(logits: Tensor, labels: Tensor, generator: Generator | None = None) -> Tensor:
    """The class that the model thinks least likely, other than the label, `(N,)` (Kurakin et al., arXiv 1607.02533)."""
    return logits.scatter(1, labels[:, None], torch.inf).argmin(1)


def random_target(logits: Tensor, labels: Tensor, generator: Generator | None = None) -> Tensor:
    """Any class but the label, each as likely, `(N,)`."""
    device = labels.device if generator is None else generator.device
    shift = torch.randint(1, logits.shape[1], labels.shape, generator=generator, device=device)
    return (labels + shift.to(labels.device)) % logits.shape[1]
