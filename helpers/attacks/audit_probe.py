"""What the checks of an audit measure: one model, some images and one attack, each figure computed once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd
import torch
from torch import Generator, Tensor, nn

from .accuracy import AttackLike, Robustness, predict, robust_accuracy
from .base import Attack
from .gradient import PGD

SLACK = 0.01  # no attack is perfect: on a hundred images another one may fell one more
EPS_FACTORS = (0.25, 0.5, 1, 2, 4, 8, 16)
ALL_GREY = 0.5  # the change of every pixel by which all images can become the same grey one
FEW, RESTARTS = 32, 2
STEPS = (1, 2, 5, 10, 20, 50)


@dataclass(frozen=True, eq=False)
class Probe:
    """The model, the images and the attack under audit, and what several checks need of them, computed once."""

    model: nn.Module
    images: Tensor
    labels: Tensor
    attack: PGD
    transfer_from: nn.Module | None
    batch_size: int
    seed: int

    def batches(self, kept: Tensor | slice = slice(None)) -> Iterator[tuple[Tensor, Tensor]]:
        """The images at `kept` and their labels."""
        images, labels = self.images[kept], self.labels[kept]
        return zip(images.split(self.batch_size), labels.split(self.batch_size), strict=True)

    def seeded(self, attack: AttackLike) -> AttackLike:
        """`attack` with a generator of its own, so that it does the same each time."""
        return replace(attack, generator=Generator().manual_seed(self.seed)) if isinstance(attack, Attack) else attack

    def outcome(self, attack: AttackLike) -> Robustness:
        """What `attack` does to the images."""
        return robust_accuracy(self.model, self.batches(), self.seeded(attack))

    def adversarial(self, attack: AttackLike, kept: Tensor | slice = slice(None)) -> Tensor:
        """The images at `kept` attacked, also those that the model gets wrong anyhow."""
        attack = self.seeded(attack)
        return torch.cat([attack(*batch) for batch in self.batches(kept)])

    def answers(self, images: Tensor) -> Tensor:
        """Logits `(N, classes)` in batches."""
        return torch.cat([predict(self.model, part).float() for part in images.split(self.batch_size)])

    def noise(self, eps: float) -> AttackLike:
        """Random noise of exactly the size `eps`."""
        generator = Generator().manual_seed(self.seed)

        def add(images: Tensor, labels: Tensor) -> Tensor:
            drawn = torch.randn(images.shape, generator=generator, dtype=images.dtype).to(images.device)
            return (images + eps * self.attack.norm.direction(drawn)).clamp(0, 1)

        return add

    def scaled(self, eps: float) -> PGD:
        """The attack at another budget, its step in proportion."""
        return replace(self.attack, eps=eps, alpha=self.attack.alpha * eps / self.attack.eps)

    @cached_property
    def logits(self) -> Tensor:
        """Of the clean images, `(N, classes)`."""
        return self.answers(self.images)

    @cached_property
    def right(self) -> Tensor:
        """bool `(N,)`: the clean images that the model gets right."""
        return self.logits.argmax(1) == self.labels

    @cached_property
    def attacked(self) -> Robustness:
        """Under the attack as it was given."""
        return self.outcome(self.attack)

    @cached_property
    def single(self) -> PGD:
        """One step of the whole budget."""
        return replace(self.attack, steps=1, alpha=self.attack.eps, random_start=False, restarts=1)

    @cached_property
    def single_step(self) -> Robustness:
        """Under one step of the whole budget."""
        return self.outcome(self.single)

    @cached_property
    def random_part(self) -> float:
        """How far two passes over the same images lie apart, in logits."""
        return (self.answers(self.images) - self.logits).abs().max().item()

    @cached_property
    def by_eps(self) -> pd.DataFrame:
        """Accuracy under the attack and under noise, over eps."""
        noisy = {eps: self.outcome(self.noise(eps)).top1 for eps in self.budgets}
        standing = self._chain({eps: self.scaled(eps) for eps in self.budgets}, self.attack.eps)
        rows = {0.0: [self.attacked.clean_top1] * 2} | {eps: [_share(standing[eps]), noisy[eps]] for eps in noisy}
        return pd.DataFrame.from_dict(rows, orient="index", columns=["attack", "random noise"]).rename_axis("eps")

    @cached_property
    def by_steps(self) -> pd.DataFrame:
        """Accuracy under the attack, over the number of steps."""
        tops = {steps: _share(standing) for steps, standing in self._over_steps.items()}
        return pd.DataFrame({"attack": tops}).rename_axis("steps")

    @cached_property
    def at_best(self) -> Tensor:
        """bool `(N,)`: who still stands after more steps and more restarts."""
        again = Generator().manual_seed(self.seed + 1)  # other starts than the attack's own
        restarted = replace(self.attack, restarts=RESTARTS, random_start=True, generator=again)
        return self.standing(restarted, self._over_steps[max(self._over_steps)])

    def standing(self, attack: AttackLike, kept: Tensor) -> Tensor:
        """bool `(N,)`: who of the images at `kept` stands up to `attack` too; no other is attacked."""
        out = kept.clone()
        if kept.any():
            out[kept] = robust_accuracy(self.model, self.batches(kept.to(self.images.device)), attack).survived
        return out

    @property
    def slack(self) -> float:
        """The largest share of the images that may be luck: `SLACK` and three standard errors of it."""
        return SLACK + 3 * math.sqrt(SLACK / len(self.images))

    @property
    def budgets(self) -> list[float]:
        """Multiples of the attack's eps, and at last one that can erase every image."""
        eps, values = self.attack.eps, self.images[0].numel()
        largest = max(eps, ALL_GREY if self.attack.norm.name == "Linf" else ALL_GREY * math.sqrt(values))
        return sorted({min(eps * factor, largest) for factor in EPS_FACTORS} | {largest})

    @cached_property
    def _over_steps(self) -> dict[int, Tensor]:
        steps = self.attack.steps
        counts = {*STEPS, steps, max(*STEPS, 2 * steps)}
        return self._chain({count: replace(self.attack, steps=count) for count in sorted(counts)}, steps)

    def _chain(self, attacks: dict[Any, PGD], known: Any) -> dict[Any, Tensor]:
        """Who stands up to each of `attacks`, from weak to strong, where what `known` does is known.

        Who fell to a weaker attack counts as fallen, and who stood up to a stronger one as standing: neither is
        attacked again, which saves most of the time.
        """
        out = {known: self.attacked.survived}
        weaker = [key for key in attacks if key < known]
        for key in reversed(weaker):
            stood = next(reversed(out.values()))
            out[key] = stood | self.standing(self.seeded(attacks[key]), self.attacked.clean_correct & ~stood)
        stood = out[known]
        for key in [key for key in attacks if key > known]:
            out[key] = stood = self.standing(self.seeded(attacks[key]), stood)
        return {key: out[key] for key in attacks}


def _share(standing: Tensor) -> float:
    return standing.double().mean().item()
