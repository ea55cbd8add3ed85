"""One training loop for clean and adversarial training, on CPU, one GPU or many, that can be killed and resumed."""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..contract import check_labels, epoch_seed, eval_mode, seeded, tqdm
from ..data import Batches
from .checkpoints import TrainingFolder, improved, weights_checksum
from .evaluation import Attack, Loss, Objective, check_outputs, evaluate, hits
from .step import Step, mixed_forward, plain_state

Row = dict[str, float]  # of the history


@dataclass(eq=False, repr=False)
class Training:
    """What `fit` is told.

    Args:
        model: trained in place.
        train: the batches to learn from; order, augmentation and dropout of epoch `e` follow from `train.seed` and `e`.
        val: the batches to watch, or several by name: `{"val": a, "noisy": b}` gives `val_top1` and `noisy_top1`.
        epochs: how many passes over `train`.
        optimizer, scheduler: any of torch's, built on `model.parameters()`; the scheduler is stepped once a batch.
        loss: of logits and labels, a mean over the batch.
        attack: if given, each batch is replaced by `attack(images, labels)` before the step (adversarial training).
        val_attack: if given, the history also has `val_adv_top1` (and so on), measured under it.
        objective: if given, it takes the place of `attack` and `loss` in training: of the model (in training mode),
            clean images and labels, it returns the loss to lower and the logits that `train_top1` counts. For a loss
            that wants the clean and the attacked images at once, such as `defences.TRADES`.
        max_norm: clip the gradient's L2 norm to this.
        folder: where the state after each epoch is kept. If it holds one, training goes on from there, to the same
            weights (on CPU bit for bit) as if it had never been stopped; one with other settings is left alone, see
            `checkpoints.TrainingFolder`. None: nothing is written.
        monitor: the history's column whose maximum decides `best.safetensors`.
        topk: which accuracies the history has; `(1, 5)` adds `train_top5` and `val_top5`.
        precision: `"no"`, `"fp16"` or `"bf16"`, see `course.device.precision`.
        description: stands before the progress bar.
    """

    model: nn.Module
    train: Batches
    val: Batches | Mapping[str, Batches] | None = None
    _: KW_ONLY
    epochs: int
    optimizer: Optimizer
    scheduler: LRScheduler | None = None
    loss: Loss = F.cross_entropy
    attack: Attack | None = None
    val_attack: Attack | None = None
    objective: Objective | None = None
    max_norm: float | None = None
    folder: Path | str | None = None
    monitor: str = "val_top1"
    topk: Sequence[int] = (1,)
    precision: str = "no"
    description: str = "training"

    def __post_init__(self) -> None:
        if self.objective is not None and self.attack is not None:
            raise ValueError("give an attack or an objective, not both: an objective makes its own attacked images")
        check_labels(self.train.data.labels, len(self.train.data.classes))

    def run(self) -> list[Row]:
        """Train up to the last epoch, from the newest state in the folder; the history."""
        store = TrainingFolder(self.folder, self.settings()) if self.folder is not None else None
        objective = self.objective or self._attacked_loss
        step = Step(self.model, self.optimizer, self.scheduler, objective, self.max_norm, self.precision)
        history = store.resume(self.model, step.load_state) if store else []
        with mixed_forward(self.model, self.precision, step.device), self._bar(step, len(history)) as bar:
            for epoch in range(len(history), self.epochs):
                history.append(self._epoch(step, epoch, bar))
                if store and step.main:
                    best = improved(history, self.monitor)
                    store.save(epoch + 1, self.model, step.state(), history, best, step.ran())
        return history

    def settings(self) -> dict[str, Any]:
        """What decides the result of a run; two runs that differ here must not share a folder."""
        silent = ("foreach", "fused", "capturable")  # how it computes, not what
        rates = {key: repr(value) for key, value in self.optimizer.defaults.items() if key not in silent}
        state = plain_state(self.scheduler) if self.scheduler else {}
        schedule = {key: value for key, value in state.items() if isinstance(value, int | float)}
        told = {
            "model": type(self.model).__name__,
            "start": weights_checksum(self.model),
            "epochs": self.epochs,
            "train": self.train.describe(),
            "optimizer": {type(self.optimizer).__name__: rates},
            "scheduler": {type(self.scheduler).__name__: schedule},
            "loss": _name(self.loss),
            "attack": _name(self.attack),
            "max_norm": self.max_norm,
            "monitor": self.monitor,
            "precision": self.precision,
        }
        if groups := _rates_of_groups(self.optimizer):
            told["groups"] = groups
        if self.objective is not None:
            told["objective"] = _name(self.objective)
        if tuple(self.topk) != (1,):
            told["topk"] = list(self.topk)
        return told

    def _attacked_loss(self, model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The usual objective: the loss on the images, or on what an attack makes of them."""
        logits = model(images if self.attack is None else self.attack(images, labels))
        return self.loss(logits, labels), logits

    def _bar(self, step: Step, done: int) -> tqdm:
        quiet = {} if step.main else {"disable": True}  # disable=False would speak against TQDM_DISABLE
        total, initial = self.epochs * len(self.train), done * len(self.train)
        return tqdm(total=total, initial=initial, desc=self.description, leave=False, mininterval=1, **quiet)

    def _epoch(self, step: Step, epoch: int, bar: tqdm) -> Row:
        """One pass over the training batches, then a look at the others; its row of the history."""
        watched = self.val if isinstance(self.val, Mapping) else {} if self.val is None else {"val": self.val}
        with seeded(epoch_seed(self.train.seed, epoch), step.device):
            row = self._learn(step, epoch, bar)
            for name, batches in watched.items():
                row |= self._watch(step, name, batches)
        if watched and self.monitor not in row:
            raise ValueError(f"monitor={self.monitor!r} is no column of the history: {', '.join(row)}")
        return row

    def _learn(self, step: Step, epoch: int, bar: tqdm) -> Row:
        started, lr = time.perf_counter(), self.optimizer.param_groups[0]["lr"]
        step.model.train()
        totals = torch.zeros(2 + len(self.topk), device=step.device, dtype=torch.float64)  # stays on the device
        for number, (images, labels) in enumerate(self.train.epoch(epoch, *step.shard)):
            if number == 0:  # before a loss indexes into too few outputs, which on a GPU ends the process
                with eval_mode(self.model), torch.no_grad():
                    check_outputs(self.model(images[:1]), self.train)
            totals += self._totals(*step(images, labels), labels)
            bar.update()
            if number % 50 == 49:  # a look at the loss waits for the device, so not at each step
                _check_finite(totals, epoch, number)
        _check_finite(totals, epoch, number)
        seconds = time.perf_counter() - started
        return {"epoch": epoch + 1, "lr": lr} | self._means("train", step.sum(totals)) | {"seconds": seconds}

    def _watch(self, step: Step, name: str, val: Batches) -> Row:
        """Clean and, if asked, attacked figures on one set of batches."""
        row = self._evaluate(step, name, val, None)
        if self.val_attack is not None:
            attacked = self._evaluate(step, f"{name}_adv", val, self.val_attack)
            row |= {key: value for key, value in attacked.items() if not key.endswith("_loss")}
        return row

    def _evaluate(self, step: Step, name: str, val: Batches, attack: Attack | None) -> Row:
        rank, world = step.shard
        result = evaluate(self.model, val, attack=attack, loss=self.loss, rank=rank, world=world)
        mean = torch.tensor(result.loss, dtype=torch.float64)
        return self._means(name, step.sum(self._totals(mean, result.logits, result.labels)))

    def _totals(self, loss: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss, correct answers for each k, and examples, summed over a batch."""
        correct = [hits(logits, labels, k).sum() for k in self.topk]
        count = torch.tensor(len(labels), device=logits.device)
        return torch.stack([loss.double() * len(labels), *correct, count]).double()

    def _means(self, name: str, totals: list[float]) -> Row:
        loss, *correct, count = totals
        shares = {f"{name}_top{k}": right / count for k, right in zip(self.topk, correct, strict=True)}
        return {f"{name}_loss": loss / count} | shares


def fit(
    model: nn.Module, train: Batches, val: Batches | Mapping[str, Batches] | None = None, **options: Any
) -> pd.DataFrame:
    """Train `model` in place and return the history, one row an epoch. The options are those of `Training`.

    Returns:
        DataFrame with `epoch, lr, train_loss, train_top1, seconds` (of training) and the validation columns; `top1` is
        a fraction (the label's logit is the largest), `top5` as well (it is among the five largest).

    Raises:
        ValueError: options that do not go together, labels outside the classes, or a model with too few outputs.
        FloatingPointError: the loss became NaN or infinite; the state of the last good epoch is kept.
        CheckpointError: `folder` cannot be written.
    """
    return pd.DataFrame(Training(model, train, val, **options).run())


fit.__signature__ = inspect.signature(Training).replace(return_annotation="pd.DataFrame")  # what `fit?` shows


def _rates_of_groups(optimizer: Optimizer) -> dict[str, str]:
    """The peak rate and the penalty of each group of weights, if any is not the optimizer's own default."""
    asked = {
        "lr": [group.get("max_lr", group.get("initial_lr", group["lr"])) for group in optimizer.param_groups],
        "weight_decay": [group.get("weight_decay", 0.0) for group in optimizer.param_groups],
    }
    usual = {key: optimizer.defaults.get(key, 0.0) for key in asked}
    if all(value == usual[key] for key, values in asked.items() for value in values):
        return {}
    return {key: " ".join(f"{value:.4g}" for value in values) for key, values in asked.items()}


def _check_finite(totals: Tensor, epoch: int, step: int) -> None:
    if not torch.isfinite(totals[0]):
        raise FloatingPointError(
            f"the loss is NaN or infinite at epoch {epoch + 1}, by step {step + 1}: lower the learning rate, clip "
            "gradients (max_norm), or look for NaN in the data. The last finished epoch is kept."
        )


def _name(thing: object) -> str:
    """A function's name, or what an object says of itself, without memory addresses."""
    return getattr(thing, "__qualname__", None) or re.sub(r" at 0x[0-9a-f]+", "", repr(thing))
