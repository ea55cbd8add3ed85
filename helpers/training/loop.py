"""One training loop for clean and adversarial training, on CPU, one GPU or many, that can be killed and resumed."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from ..contract import check_labels, epoch_seed, eval_mode, seeded
from ..data import Batches
from .checkpoints import TrainingFolder, weights_checksum
from .evaluation import Attack, Loss, Objective, check_outputs, evaluate, hits


def fit(
    model: nn.Module,
    train: Batches,
    val: Batches | Mapping[str, Batches] | None = None,
    *,
    epochs: int,
    optimizer: Optimizer,
    scheduler: LRScheduler | None = None,
    loss: Loss = F.cross_entropy,
    attack: Attack | None = None,
    val_attack: Attack | None = None,
    objective: Objective | None = None,
    max_norm: float | None = None,
    folder: Path | str | None = None,
    monitor: str = "val_top1",
    topk: Sequence[int] = (1,),
    precision: str = "no",
    description: str = "training",
) -> pd.DataFrame:
    """Train `model` in place and return the history, one row an epoch.

    Args:
        train: the batches to learn from; order, augmentation and dropout of epoch `e` follow from `train.seed` and `e`.
        val: the batches to watch, or several by name: `{"val": a, "noisy": b}` gives `val_top1` and `noisy_top1`.
        epochs: how many passes over `train`.
        optimizer, scheduler: any of torch's, built on `model.parameters()`; the scheduler is stepped once a batch.
        loss: of logits and labels, a mean over the batch.
        attack: if given, each batch is replaced by `attack(images, labels)` before the step (adversarial training).
        objective: if given, it takes the place of `attack` and `loss` in training: of the model (in training mode),
            clean images and labels, it returns the loss to lower and the logits that `train_top1` counts. For a loss
            that wants the clean and the attacked images at once, such as `defences.TRADES`.
        val_attack: if given, the history also has `val_adv_top1` (and so on), measured under it.
        max_norm: clip the gradient's L2 norm to this.
        folder: where the state after each epoch is kept. If it holds one, training goes on from there, to the same
            weights (on CPU bit for bit) as if it had never been stopped; one with other settings is left alone, see
            `checkpoints.TrainingFolder`. None: nothing is written.
        monitor: the history's column whose maximum decides `best.safetensors`.
        topk: which accuracies the history has; `(1, 5)` adds `train_top5` and `val_top5`.
        precision: `"no"`, `"fp16"` or `"bf16"`, see `runs.precision`.

    Returns:
        DataFrame with `epoch, lr, train_loss, train_top1, seconds` (of training) and the validation columns; `top1` is
        a fraction (the label's logit is the largest), `top5` as well (it is among the five largest).

    Raises:
        FloatingPointError: the loss became NaN or infinite; the state of the last good epoch is kept.
        CheckpointError: `folder` cannot be written.
    """
    if objective is not None and attack is not None:
        raise ValueError("give an attack or an objective, not both: an objective makes its own attacked images")
    settings = _settings(model, train, epochs, optimizer, scheduler, loss, attack, max_norm) | {
        "monitor": monitor,
        "precision": precision,
    }
    if objective is not None:
        settings["objective"] = _name(objective)
    if tuple(topk) != (1,):
        settings["topk"] = list(topk)
    whole = objective or _Plain(loss, attack)
    trainer = _Trainer(model, optimizer, scheduler, loss, whole, max_norm, precision, tuple(topk))
    check_labels(train.data.labels, len(train.data.classes))
    watched = val if isinstance(val, Mapping) else {} if val is None else {"val": val}
    store = TrainingFolder(folder, settings) if folder is not None else None
    history = store.resume(trainer.plain, trainer.load_state) if store else []
    best = max((row.get(monitor, -math.inf) for row in history), default=-math.inf)
    quiet = {} if trainer.accelerator.is_main_process else {"disable": True}
    steps = tqdm(
        total=epochs * len(train),
        initial=len(history) * len(train),
        desc=description,
        leave=False,
        mininterval=1,
        **quiet,
    )
    with steps:
        for epoch in range(len(history), epochs):
            with seeded(epoch_seed(train.seed, epoch), trainer.accelerator.device):
                row = trainer.epoch(train, epoch, steps)
                for name, batches in watched.items():
                    row |= trainer.validate(name, batches, val_attack)
            if watched and monitor not in row:
                raise ValueError(f"monitor={monitor!r} is no column of the history: {', '.join(row)}")
            history.append(row)
            improved = row.get(monitor, math.inf) > best  # nothing watched: the last is the best
            best = max(best, row.get(monitor, -math.inf))
            if store and trainer.accelerator.is_main_process:
                store.save(epoch + 1, trainer.plain, trainer.state(), history, improved, trainer.ran())
    trainer.close()
    return pd.DataFrame(history)


def _accelerator(precision: str) -> Accelerator:
    """Accelerate keeps the first precision for the whole process; here each training has its own."""
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != precision:
        AcceleratorState._reset_state()  # the processes and their devices stay as they are
    return Accelerator(mixed_precision=precision)


@dataclass(frozen=True)
class _Plain:
    """The usual objective: the loss on the images, or on what an attack makes of them."""

    loss: Loss
    attack: Attack | None

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(images if self.attack is None else self.attack(images, labels))
        return self.loss(logits, labels), logits


class _Trainer:
    """What one step needs, behind Accelerate."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        scheduler: LRScheduler | None,
        loss: Loss,
        objective: Objective,
        max_norm: float | None,
        precision: str,
        topk: tuple[int, ...],
    ) -> None:
        self.accelerator, self.topk = _accelerator(precision), topk
        self.plain, self.scheduler, self.max_norm = model, scheduler, max_norm
        self.loss, self.objective = loss, objective
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.shard = (self.accelerator.process_index, self.accelerator.num_processes)

    def epoch(self, train: Batches, epoch: int, steps: tqdm) -> dict[str, float]:
        """One pass over the training batches; its row of the history."""
        started, lr = time.perf_counter(), self.optimizer.param_groups[0]["lr"]
        self.model.train()
        # loss, correct answers for each k, examples: summed on the device
        totals = torch.zeros(2 + len(self.topk), device=self.accelerator.device, dtype=torch.float64)
        for step, (images, labels) in enumerate(train.epoch(epoch, *self.shard)):
            if step == 0:  # before a loss indexes into too few outputs, which on a GPU ends the process
                with eval_mode(self.plain), torch.no_grad():
                    check_outputs(self.plain(images[:1]), train)
            totals += self._step(images, labels)
            steps.update()
            if step % 50 == 49:  # a look at the loss waits for the device, so not at each step
                _check_finite(totals, epoch, step)
        _check_finite(totals, epoch, step)
        seconds = time.perf_counter() - started
        return {"epoch": epoch + 1, "lr": lr} | self._means("train", totals) | {"seconds": seconds}

    def _step(self, images: Tensor, labels: Tensor) -> Tensor:
        value, logits = self.objective(self.model, images, labels)
        self.optimizer.zero_grad()
        self.accelerator.backward(value)
        if self.max_norm is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.max_norm)
        self.optimizer.step()
        if self.scheduler is not None and not self.accelerator.optimizer_step_was_skipped:
            self.scheduler.step()
        return self._totals(value.detach(), logits.detach(), labels)

    def validate(self, name: str, val: Batches, attack: Attack | None) -> dict[str, float]:
        """Clean and, if asked, attacked figures on one set of batches."""
        row = self._means(name, self._evaluate(val, None))
        if attack is not None:
            attacked = self._means(f"{name}_adv", self._evaluate(val, attack))
            row |= {key: value for key, value in attacked.items() if not key.endswith("_loss")}
        return row

    def _evaluate(self, val: Batches, attack: Attack | None) -> Tensor:
        result = evaluate(self.plain, val, attack=attack, loss=self.loss, rank=self.shard[0], world=self.shard[1])
        return self._totals(torch.tensor(result.loss, dtype=torch.float64), result.logits, result.labels).to(
            self.accelerator.device
        )

    def _totals(self, loss: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss, correct answers for each k, and examples, summed over a batch."""
        correct = [hits(logits, labels, k).sum() for k in self.topk]
        count = torch.tensor(len(labels), device=logits.device)
        return torch.stack([loss.double() * len(labels), *correct, count]).double()

    def _means(self, name: str, totals: Tensor) -> dict[str, float]:
        """Columns of the history, from sums over all processes."""
        loss, *correct, count = self.accelerator.reduce(totals, "sum").tolist()
        shares = {f"{name}_top{k}": sum_ / count for k, sum_ in zip(self.topk, correct, strict=True)}
        return {f"{name}_loss": loss / count} | shares

    def state(self) -> dict[str, Any]:
        """Everything but the weights that the next epoch needs."""
        scaler = self.accelerator.scaler
        return {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler and _plain(self.scheduler.state_dict()),
            "scaler": scaler and scaler.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        if self.accelerator.scaler is not None and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])

    def ran(self) -> dict[str, Any]:
        """On what this training runs: a fact about the run, not a setting of it."""
        accelerator = self.accelerator
        threads = torch.get_num_threads() if accelerator.device.type == "cpu" else None
        return {"device": accelerator.device.type, "threads": threads, "processes": accelerator.num_processes}

    def close(self) -> None:
        """Leave the model as a plain one again (Accelerate wraps `forward` for mixed precision)."""
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)


def _check_finite(totals: Tensor, epoch: int, step: int) -> None:
    if not torch.isfinite(totals[0]):
        raise FloatingPointError(
            f"the loss is NaN or infinite at epoch {epoch + 1}, by step {step + 1}: lower the learning rate, clip "
            "gradients (max_norm), or look for NaN in the data. The last finished epoch is kept."
        )


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """A scheduler's state without the functions that some put there: those come back with the scheduler itself."""
    return {key: value for key, value in state.items() if not callable(value)}


def _settings(
    model: nn.Module,
    train: Batches,
    epochs: int,
    optimizer: Optimizer,
    scheduler: LRScheduler | None,
    loss: Loss,
    attack: Attack | None,
    max_norm: float | None,
) -> dict[str, Any]:
    """What decides the result of a run; two runs that differ here must not share a folder."""
    rates = {
        key: repr(value) for key, value in optimizer.defaults.items() if key not in ("foreach", "fused", "capturable")
    }
    schedule = (
        {key: value for key, value in _plain(scheduler.state_dict()).items() if isinstance(value, int | float)}
        if scheduler
        else {}
    )
    return {
        "model": type(model).__name__,
        "start": weights_checksum(model),
        "epochs": epochs,
        "train": train.describe(),
        "optimizer": {type(optimizer).__name__: rates},
        "scheduler": {type(scheduler).__name__: schedule},
        "loss": _name(loss),
        "attack": _name(attack),
        "max_norm": max_norm,
    }


def _name(thing: object) -> str:
    """A function's name, or what an object says of itself, without memory addresses."""
    return getattr(thing, "__qualname__", None) or re.sub(r" at 0x[0-9a-f]+", "", repr(thing))
