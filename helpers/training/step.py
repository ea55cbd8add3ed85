"""One step of a training: its precision, its processes, and the state it leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import convert_outputs_to_fp32
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .checkpoints import ran_on
from .evaluation import Objective

HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}


@contextmanager
def mixed_forward(model: nn.Module, precision: str, device: torch.device) -> Iterator[None]:
    """While open, every call of `model` computes in `precision` and answers in float32, an attack's calls included.

    Accelerate would do the same, but with one precision for all trainings of a process.
    """
    if precision not in ("no", *HALF):
        raise ValueError(f"precision must be 'no', 'fp16' or 'bf16', got {precision!r}")
    if precision == "no":
        yield
        return
    before = vars(model).get("forward")  # None: the class's own
    forward = torch.autocast(device.type, HALF[precision])(model.forward)
    if device.type == "cpu":  # there torch's fused attention takes longer than the plain one, most of all backward
        forward = sdpa_kernel(SDPBackend.MATH)(forward)
    model.forward = convert_outputs_to_fp32(forward)
    try:
        yield
    finally:
        if before is None:
            del model.forward
        else:
            model.forward = before


class Step:
    """A model and its optimiser behind Accelerate, which knows the device and the other processes.

    The scaler keeps fp16's small gradients from rounding to zero; in other precisions it does nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        scheduler: LRScheduler | None,
        objective: Objective,
        max_norm: float | None,
        precision: str,
    ) -> None:
        self.accelerator = Accelerator(mixed_precision="no")
        self.device, self.main = self.accelerator.device, self.accelerator.is_main_process
        self.shard = (self.accelerator.process_index, self.accelerator.num_processes)
        self.model, self.optimizer, self.scheduler = self.accelerator.prepare(model), optimizer, scheduler
        self.objective, self.max_norm = objective, max_norm
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Change the weights once; the loss and the logits before the change."""
        value, logits = self.objective(self.model, images, labels)
        self.optimizer.zero_grad()
        self.scaler.scale(value).backward()
        if self.max_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.max_norm)
        before = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scheduler is not None and self.scaler.get_scale() >= before:  # smaller: fp16 overflowed, no step taken
            self.scheduler.step()
        return value.detach(), logits.detach()

    def sum(self, totals: Tensor) -> list[float]:
        """Over all processes."""
        return self.accelerator.reduce(totals.to(self.device), "sum").tolist()

    def state(self) -> dict[str, Any]:
        """Everything but the weights that the next epoch needs."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler and plain_state(self.scheduler),
            "scaler": self.scaler.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])

    def ran(self) -> dict[str, Any]:
        """On what this training runs."""
        return ran_on(self.device, self.shard[1])


def plain_state(scheduler: LRScheduler) -> dict[str, Any]:
    """A scheduler's state without the functions that some put there: those come back with the scheduler itself."""
    return {key: value for key, value in scheduler.state_dict().items() if not callable(value)}
