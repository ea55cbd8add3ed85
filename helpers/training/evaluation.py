"""What a model answers to a set, on clean or attacked images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..contract import eval_mode
from ..data import Batches

Attack = Callable[[Tensor, Tensor], Tensor]  # images (N, C, H, W) in [0, 1], labels (N,) -> images of the same shape
Loss = Callable[[Tensor, Tensor], Tensor]  # logits (N, classes), labels (N,) -> mean over the batch
Objective = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]  # model, images, labels -> loss, logits


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a model said: `logits` float32 `(N, classes)`, `labels` int64 `(N,)`, both on the CPU; the mean `loss`."""

    logits: Tensor
    labels: Tensor
    loss: float

    @property
    def correct(self) -> Tensor:
        """bool `(N,)`."""
        return hits(self.logits, self.labels, 1)

    @property
    def top1(self) -> float:
        """Share of correct answers, 0 to 1."""
        return self.correct.float().mean().item()


def evaluate(
    model: nn.Module,
    data: Batches,
    *,
    attack: Attack | None = None,
    loss: Loss = F.cross_entropy,
    rank: int = 0,
    world: int = 1,
) -> Evaluation:
    """Run `model` in eval mode over `data`, on attacked images if an `attack` is given.

    Of `world` processes, number `rank` does its share.
    """
    logits, labels, total = [], [], 0.0
    with eval_mode(model):
        for images, target in data.epoch(0, rank, world):
            if attack is not None:
                images = attack(images, target)
            with torch.inference_mode():
                output = model(images).float()
                check_outputs(output, data)
                total += loss(output, target).item() * len(target)
            logits.append(output.cpu())
            labels.append(target.cpu())
    answers = torch.cat(labels)
    return Evaluation(torch.cat(logits), answers, total / len(answers))


def hits(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    """bool `(N,)`: whether the label is among the `k` largest of the logits `(N, classes)`."""
    if k == 1:
        return logits.argmax(1) == labels
    return (logits.topk(min(k, logits.shape[1]), 1).indices == labels[:, None]).any(1)


def check_outputs(logits: Tensor, data: Batches) -> None:
    """Raise ValueError unless the model has an output for each class of the set."""
    classes = len(data.data.classes)
    if logits.ndim != 2 or logits.shape[1] < classes:
        raise ValueError(
            f"the model returns {tuple(logits.shape)}, but {data.data.name} has {classes} classes: need (N, {classes})"
        )
