"""A gradient-free attack: what a masked gradient cannot hide from."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from .base import Attack, Task
from .losses import Loss, margin
from .norms import blank


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
        value = self._objective(logits, task)
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
