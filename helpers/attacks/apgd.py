"""Auto-PGD: sign steps with momentum whose size the attack sets by itself, image by image (arXiv 2003.01690)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import partial

import torch
from torch import Tensor

from .accuracy import worst_of
from .base import Attack, Task
from .losses import dlr_targeted
from .norms import blank


@dataclass(frozen=True, eq=False)
class Climb:
    """Where each image of an attack stands; every field has a row for each."""

    images: Tensor  # (N, C, H, W), as all points and gradients
    before: Tensor  # one step ago
    gradient: Tensor
    value: Tensor  # the objective here, (N,)
    best: Tensor  # the point of the highest value so far
    best_gradient: Tensor
    highest: Tensor
    step: Tensor  # (N, 1, 1, 1)
    rises: Tensor  # how many steps since the last check raised the value
    checked: Tensor  # the highest value at the last check
    halved: Tensor  # whether the step was halved at the last check
    fooling: Tensor  # the last point at which the model errs, if there is one
    erred: Tensor

    def __getitem__(self, rows: Tensor) -> Climb:
        return Climb(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True, eq=False, repr=False)
class APGD(Attack):
    """PGD with momentum that halves its step where it no longer climbs: "Reliable evaluation" (arXiv 2003.01690).

    It starts with steps of `2 * eps`. At a few checks on the way an image whose loss rose in too few of the steps, or
    not at all, goes back to its best point and on with half the step. There is no step size to choose wrongly.

    Distance measure: L-inf

    Arguments:
        model (nn.Module): images in [0, 1] to logits.
        eps (float): budget in pixels of [0, 1]. (Default: 8/255)
        steps (int): number of steps; AutoAttack takes 100. (Default: 50)
        rho (float): the share of steps that has to raise the loss. (Default: 0.75)

    Shape:
        - images: `(N, C, H, W)`, float, in [0, 1]; labels: `(N,)`, int64, `0 <= label < classes`.
        - output: `(N, C, H, W)`, like the images: where the model errs, else of highest loss.

    Examples:
        >>> attack = APGD(model, eps=8 / 255, steps=50)
        >>> adv_images = attack(images, labels)
        >>> other = APGD(model, eps=8 / 255, loss=dlr)  # a loss that does not saturate
    """

    steps: int = 50
    rho: float = 0.75
    random_start = True

    def _start(self, images: Tensor) -> Tensor:
        """A random direction, enlarged until its largest value is `eps`."""
        drawn = 2 * blank(images, self.generator).uniform_(generator=self.generator).to(images.device) - 1
        return (images + self.eps * drawn / drawn.flatten(1).abs().amax(1)[:, None, None, None]).clamp(0, 1)

    def _climb(self, adv_images: Tensor, task: Task) -> Tensor:
        out, rows = adv_images.clone(), torch.arange(len(adv_images), device=adv_images.device)
        checks = dict(_checks(self.steps))
        state = self._begun(adv_images, task)
        for number in range(1, self.steps + 1):
            state = self._moved(state, task, 1.0 if number == 1 else 0.75)
            if gap := checks.get(number):
                state = self._checked(state, gap)
            if self.early_stop and state.erred.any():
                out[rows[state.erred]] = state.fooling[state.erred]
                rows, task, state = rows[~state.erred], task[~state.erred], state[~state.erred]
                if not len(rows):
                    break
        out[rows] = torch.where(_wide(state.erred), state.fooling, state.best)
        return out

    def _begun(self, images: Tensor, task: Task) -> Climb:
        gradient, value, _ = self._looked(images, task)
        steps = images.new_full((len(images), 1, 1, 1), 2 * self.eps)
        none, no = torch.zeros_like(value), torch.zeros_like(value, dtype=torch.bool)
        # In the authors' code the first step is compared with a loss of 0, and a start at which the model errs is
        # passed over; kept, so that results are theirs.
        return Climb(images=images, before=images, gradient=gradient, value=none, best=images,
                     best_gradient=gradient, highest=value, step=steps, rises=none, checked=value, halved=~no,
                     fooling=images, erred=no)  # fmt: skip

    def _moved(self, state: Climb, task: Task, share: float) -> Climb:
        """One step: `share` along the gradient's sign, the rest as the step before."""
        x, last = state.images, state.images - state.before
        ahead = self._inside(x + state.step * state.gradient.sign(), task)
        new = self._inside(x + (ahead - x) * share + last * (1 - share), task)
        gradient, value, wrong = self._looked(new, task)
        better = value > state.highest
        return replace(
            state,
            images=new,
            before=x,
            gradient=gradient,
            value=value,
            best=torch.where(_wide(better), new, state.best),
            best_gradient=torch.where(_wide(better), gradient, state.best_gradient),
            highest=torch.where(better, value, state.highest),
            rises=state.rises + (value > state.value),
            fooling=torch.where(_wide(wrong), new, state.fooling),
            erred=state.erred | wrong,
        )

    def _checked(self, state: Climb, gap: int) -> Climb:
        """Half the step, from the best point, where too few of the last `gap` steps raised the value, or none did."""
        stuck = ~state.halved & (state.checked >= state.highest)
        halve = (state.rises <= self.rho * gap) | stuck
        return replace(
            state,
            images=torch.where(_wide(halve), state.best, state.images),
            gradient=torch.where(_wide(halve), state.best_gradient, state.gradient),
            step=torch.where(_wide(halve), state.step / 2, state.step),
            rises=torch.zeros_like(state.rises),
            checked=state.highest,
            halved=halve,
        )

    def _inside(self, adv_images: Tensor, task: Task) -> Tensor:
        return adv_images.clamp(task.images - self.eps, task.images + self.eps).clamp(0, 1)

    def _looked(self, images: Tensor, task: Task) -> tuple[Tensor, Tensor, Tensor]:
        """The gradient `(N, C, H, W)`, and the objective and whether the model errs, both `(N,)`."""
        gradient, logits = self._gradient(images, task)
        value = self._objective(logits, task)
        if not (torch.isfinite(gradient).all() and torch.isfinite(value).all()):
            raise FloatingPointError("a gradient is NaN or infinite: attack in float32, and look for 0/0 or sqrt(0)")
        return gradient, value, logits.argmax(1) != task.labels


@dataclass(frozen=True, eq=False, repr=False)
class APGDT(APGD):
    """APGD towards each of the likeliest wrong classes in turn, by the DLR loss: APGD-T (arXiv 2003.01690).

    Distance measure: L-inf

    Arguments:
        model (nn.Module): images in [0, 1] to logits of four classes or more.
        eps (float): budget in pixels of [0, 1]. (Default: 8/255)
        steps (int): number of steps towards each class. (Default: 50)
        rho (float): the share of steps that has to raise the loss. (Default: 0.75)
        targets (int): how many classes to try; fewer where there are not as many. (Default: 9)

    Shape:
        - as `APGD`'s.

    Examples:
        >>> attack = APGDT(model, eps=8 / 255, steps=50, targets=9)
        >>> adv_images = attack(images, labels)
    """

    targets: int = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.targets < 1 or self.target is not None:
            raise ValueError(f"targets must be 1 or more, and it takes no rule for a target: {self!r}")

    def _search(self, task: Task) -> Tensor:
        if task.sign < 0:
            raise ValueError("APGDT chooses its targets itself: leave target out, or take APGD")
        logits = self._mean_logits(task.images, task.highest)
        others = logits.scatter(1, task.labels[:, None], -torch.inf).argsort(1, descending=True)
        number = min(self.targets, logits.shape[1] - 1)
        tasks = [replace(task, aim=others[:, k]) for k in range(number) for _ in range(self.restarts)]
        starts = (self._start(task.images) for _ in tasks)
        tries = (partial(self._try, start, each) for start, each in zip(starts, tasks, strict=True))
        return worst_of(tries, task.images, drop=self.early_stop)

    def _objective(self, logits: Tensor, task: Task) -> Tensor:
        return dlr_targeted(logits, task.labels, task.aim)


def _checks(steps: int) -> Iterator[tuple[int, int]]:
    """After which step to look, and how many steps it has been: 22 % of all, then fewer each time, down to 6 %."""
    gap, at = max(int(0.22 * steps), 1), 0
    while (at := at + gap) <= steps:
        yield at, gap
        gap = max(gap - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))


def _wide(values: Tensor) -> Tensor:
    return values[:, None, None, None]
