"""How many images stand up to an attack, image by image: the worst of several tries, and robust accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..contract import check_pixels, eval_mode
from .losses import cross_entropy
from .norms import L2, LInf

AttackLike = Callable[
    [Tensor, Tensor], Tensor
]  # images (N, C, H, W) in [0, 1], labels (N,) -> images of the same shape
Try = Callable[[Tensor], tuple[Tensor, Tensor]]  # positions (M,) -> attacked images (M, C, H, W) and their rank (M,)

FALLEN = (
    2.0  # between the ranks of the images that the model gets right (below pi / 2) and of the others (above 4 - pi / 2)
)


def rank(value: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """How bad an outcome is for the model, `(N,)`: first whether it errs, then by `value`, the attack's objective."""
    return value.double().atan() + 4 * (logits.argmax(1) != labels)


def worst_of(tries: Iterable[Try], images: Tensor, drop: bool) -> Tensor:
    """Of each image the outcome of highest rank; with `drop`, an image that has fallen is not tried again."""
    worst = images.clone()
    ranks = torch.full((len(images),), -torch.inf, dtype=torch.float64, device=images.device)
    for attempt in tries:
        rows = torch.arange(len(images), device=images.device)[ranks < FALLEN if drop else slice(None)]
        if len(rows):
            found, found_ranks = attempt(rows)
            better = found_ranks > ranks[rows]
            worst[rows[better]], ranks[rows[better]] = found[better], found_ranks[better]
    return worst


def worst_case(attacks: Sequence[Any]) -> WorstCase:
    """One attack out of several on the same model: each next one sees only the images that still stand."""
    return WorstCase(tuple(attacks))


@dataclass(frozen=True, eq=False, repr=False)
class WorstCase:
    """See `worst_case`. Called like any attack; an image that none fells comes back as the one with the highest loss.

    Args:
        attacks: objects with a `.model`, called with images and labels; the strongest cheap one first saves most time.

    Raises:
        ValueError: no attacks, or they attack different models.
    """

    attacks: tuple[Any, ...]

    def __post_init__(self) -> None:
        if len({id(attack.model) for attack in self.attacks}) != 1:
            raise ValueError("worst_case needs attacks, all on the same model")

    @property
    def model(self) -> nn.Module:
        """The model that all of them attack."""
        return self.attacks[0].model

    def __call__(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images like `images`; `labels` int64 `(N,)`, None for the model's own answers."""
        check_pixels(images)
        if not len(images):
            return images.clone()
        labels = predict(self.model, images).argmax(1) if labels is None else labels
        return worst_of((partial(self._try, attack, images, labels) for attack in self.attacks), images, drop=True)

    def _try(self, attack: AttackLike, images: Tensor, labels: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        adv_images, labels = attack(images[rows], labels[rows]), labels[rows]
        logits = predict(self.model, adv_images)
        return adv_images, rank(cross_entropy(logits, labels), logits, labels)

    def stopping_early(self) -> WorstCase:
        """The same with `early_stop` in each attack that has it."""
        return WorstCase(tuple(_stopping_early(attack, self.model) for attack in self.attacks))

    def __repr__(self) -> str:
        return f"worst_case({list(self.attacks)!r})"


@dataclass(frozen=True, eq=False)
class Robustness:
    """What became of each image, on the CPU, in the order of the data.

    Args:
        labels: int64 `(N,)`; `clean` and `attacked`: the model's answers before and after, int64 `(N,)`.
        linf, l2: size of each perturbation in pixels of [0, 1], `(N,)`; 0 for images that were wrong already.
    """

    labels: Tensor
    clean: Tensor
    attacked: Tensor
    linf: Tensor
    l2: Tensor

    @property
    def clean_correct(self) -> Tensor:
        """bool `(N,)`: right before the attack."""
        return self.clean == self.labels

    @property
    def survived(self) -> Tensor:
        """bool `(N,)`: right before the attack and after it."""
        return self.clean_correct & (self.attacked == self.labels)

    @property
    def clean_top1(self) -> float:
        """Share of images that are right before the attack, 0 to 1."""
        return self.clean_correct.double().mean().item()

    @property
    def top1(self) -> float:
        """Robust accuracy: share of images that are right before the attack and after it, 0 to 1."""
        return self.survived.double().mean().item()


def robust_accuracy(model: nn.Module, data: Iterable[tuple[Tensor, Tensor]], attack: AttackLike) -> Robustness:
    """Attack every image that `model` gets right, and say which survive.

    An attack of this package on this same model stops on an image as soon as the model errs (`early_stop`), between
    restarts and between steps: that cannot save an image, and it takes the fewer steps the weaker the model. An attack
    on another model (transfer) runs in full, since where it first fools that one says nothing here.

    Args:
        model: images in [0, 1] to logits `(N, classes)`.
        data: `Batches`, or any batches of images float `(N, C, H, W)` in [0, 1] and labels int64 `(N,)`.
        attack: of images and labels. For a model with random parts, one with `EOT`.

    Raises:
        ValueError: no batches.
    """
    attack = _stopping_early(attack, model)
    parts = [_outcomes(model, images, labels, attack) for images, labels in data]
    if not parts:
        raise ValueError("no batches: robust accuracy needs images (an iterator that was used up gives none)")
    return Robustness(*(torch.cat(column).cpu() for column in zip(*parts, strict=True)))


def predict(model: nn.Module, images: Tensor) -> Tensor:
    """Logits `(N, classes)`, in eval mode, without gradients, and in full precision as an attack sees them."""
    with eval_mode(model), torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        return model(images)


def _outcomes(model: nn.Module, images: Tensor, labels: Tensor, attack: AttackLike) -> tuple[Tensor, ...]:
    """The columns of `Robustness` for one batch."""
    clean = predict(model, images).argmax(1)
    adv_images, attacked = images.clone(), clean.clone()
    if len(right := (clean == labels).nonzero().squeeze(1)):
        adv_images[right] = attack(images[right], labels[right])
        attacked[right] = predict(model, adv_images[right]).argmax(1)
    delta = adv_images - images
    return labels, clean, attacked, LInf().size(delta), L2().size(delta)


def _stopping_early(attack: Any, model: nn.Module) -> Any:
    stoppable = hasattr(attack, "stopping_early") and attack.model is model
    return attack.stopping_early() if stoppable else attack
