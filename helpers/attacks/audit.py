"""Is this robustness real? The checks that expose a weak attack or a masked gradient, in one call.

After "Obfuscated gradients" (arXiv 1802.00420), "On evaluating adversarial robustness" (arXiv 1902.06705) and the flags
of AutoAttack (arXiv 2003.01690). A model that passes may still fall to a better attack; one that fails has no number to
report.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor, nn

from ..contract import check_labels, check_pixels
from .accuracy import predict
from .audit_probe import FEW, RESTARTS, Probe
from .gradient import PGD
from .square import Square


@dataclass(frozen=True, eq=False)
class Audit:
    """What `audit` found; `plotting.audit_curves` draws it.

    Args:
        table: a line for each check: `verdict` ("pass", "fail", "not run"), what was `measured`, and what is `wanted`.
        by_eps: robust accuracy (0 to 1) under the attack and under random noise; its index is eps.
        by_steps: robust accuracy (0 to 1) under the attack; its index is the number of steps.
    """

    table: pd.DataFrame
    by_eps: pd.DataFrame
    by_steps: pd.DataFrame

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not (self.table.verdict == "fail").any()


def audit(model: nn.Module, images: Tensor, labels: Tensor, attack: PGD | None = None, *,
          transfer_from: nn.Module | None = None, batch_size: int = 128, seed: int = 0) -> Audit:  # fmt: skip
    """Check the robust accuracy of `model` under `attack` from a dozen sides.

    Args:
        images, labels: float `(N, C, H, W)` in [0, 1] and int64 `(N,)`; with less than a hundred the shares say little.
        attack: the attack whose result is to be believed, on this model. None: PGD-20 at 8/255.
        transfer_from: another model for the same classes; attacks on it must not hurt `model` more.
        seed: of all random starts.

    Raises:
        ValueError: images or labels do not fit, the model gets none right, or the attack is not a PGD on this model.
    """
    attack = PGD(model, steps=20) if attack is None else attack
    if not isinstance(attack, PGD) or attack.model is not model or attack.eps <= 0:
        raise ValueError(f"audit needs a PGD (of any norm) on this same model with an eps above 0, got {attack!r}")
    check_pixels(images)
    attack = replace(attack, early_stop=False)  # where only counts matter, `robust_accuracy` sets it again
    probe = Probe(model, images, labels, attack, transfer_from, batch_size, seed)
    check_labels(labels, probe.logits.shape[1])
    if not torch.isfinite(probe.logits).all():
        raise ValueError("the logits hold NaN or infinity: the model is broken, so there is nothing to audit")
    if not probe.right.any():
        raise ValueError("the model gets none of these images right: there is nothing to attack")
    with torch.random.fork_rng([images.device] if images.is_cuda else []):  # a model with random parts draws there
        torch.manual_seed(seed)
        found = {name: check(probe) for name, check in CHECKS.items()}
        table = pd.DataFrame(found, index=["verdict", "measured", "wanted"]).T
        return Audit(table.rename_axis("check"), probe.by_eps, probe.by_steps)


Line = tuple[str, str, str]  # verdict, measured, wanted


def _line(good: bool, measured: str, wanted: str) -> Line:
    return "pass" if good else "fail", measured, wanted


def _logits(probe: Probe) -> Line:
    low, high = probe.logits.min().item(), probe.logits.max().item()
    sums = probe.logits.sum(1)
    probabilities = low >= 0 and (sums - 1).abs().max().item() < 1e-3
    kind = "they sum to 1" if probabilities else f"they sum to {sums.min():.2f} .. {sums.max():.2f}"
    wanted = "logits: a second softmax, or a cosine without its scale, leaves no gradient to follow"
    return _line(not probabilities and max(-low, high) > 1, f"outputs {low:.2f} .. {high:.2f}, {kind}", wanted)


def _deterministic(probe: Probe) -> Line:
    random = probe.random_part > 1e-4 * (1 + probe.logits.abs().max().item())
    measured = f"two passes differ by {probe.random_part:.2g}, the attack averages {probe.attack.eot_iter}"
    return _line(not random or probe.attack.eot_iter > 1, measured, "the same answer twice, or an attack with EOT")


def _alone(probe: Probe) -> Line:
    few = probe.images[:8]
    alone = torch.cat([predict(probe.model, image[None]) for image in few])
    gap = (alone - predict(probe.model, few)).abs().max().item()
    bound = 1e-2 * (1 + alone.abs().max().item()) + 2 * probe.random_part
    return _line(
        gap <= bound, f"alone and in a batch differ by {gap:.2g}", "an image's answer without regard to its neighbours"
    )


def _gradients(probe: Probe) -> Line:
    sizes = [probe.attack.gradient(*batch).flatten(1).abs().amax(1) for batch in probe.batches(probe.right)]
    zero = (torch.cat(sizes) == 0).double().mean().item()
    return _line(zero <= probe.slack, f"zero for {zero:.0%} of the images", "hardly any, or the attack stands still")


def _budget(probe: Probe) -> Line:
    few, eps = slice(0, FEW), probe.attack.eps
    adv_images = probe.adversarial(probe.attack, few)
    size = probe.attack.norm.size(adv_images - probe.images[few])
    low, high = adv_images.min().item(), adv_images.max().item()
    good = 0.8 * eps <= size.median() and size.max() <= eps * (1 + 1e-4) + 1e-6 and -1e-6 <= low <= high <= 1 + 1e-6
    measured = f"median {size.median() / eps:.2f} eps, largest {size.max() / eps:.2f}, pixels {low:.2f} .. {high:.2f}"
    return _line(bool(good), measured, "1.00 eps in pixels of [0, 1]; of a normalised image it is another eps")


def _noise(probe: Probe) -> Line:
    top1, noise, clean = (
        probe.attacked.top1,
        probe.outcome(probe.noise(probe.attack.eps)).top1,
        probe.attacked.clean_top1,
    )
    nothing_left, harmless = top1 <= probe.slack, clean - min(top1, noise) <= probe.slack  # nothing to compare
    good = top1 < noise or nothing_left or harmless
    return _line(good, f"attack {top1:.1%}, noise {noise:.1%}", "a lower accuracy under the attack")


def _iterative(probe: Probe) -> Line:
    many, one = probe.attacked.top1, probe.single_step.top1
    return _line(
        many <= one + probe.slack,
        f"{probe.attack.steps} steps {many:.1%}, one {one:.1%}",
        "many steps no worse than one",
    )


def _converged(probe: Probe) -> Line:
    before, after = probe.attacked.top1, probe.at_best.double().mean().item()
    measured = f"{before:.1%}, with {probe.by_steps.index[-1]} steps and {RESTARTS} more restarts {after:.1%}"
    return _line(before - after <= probe.slack, measured, f"no more than {probe.slack:.1%} lower")


def _unbounded(probe: Probe) -> Line:
    curve = probe.by_eps["attack"]
    measured = f"{curve.iloc[-1]:.1%} at eps {curve.index[-1]:.2f}"
    return _line(curve.iloc[-1] <= max(0.05, probe.slack), measured, "5% or less: such a budget can erase the object")


def _gradient_free(probe: Probe) -> Line:
    wanted = f"no more than {probe.slack:.1%} of the images fall to random search alone"
    if probe.attack.norm.name != "Linf":
        return "not run", "the random search is L-inf only", wanted
    standing = probe.attacked.survived  # who fell to the attack cannot fall to the search alone
    if not standing.any():
        return "not run", "no image stands up to the attack", wanted
    square = probe.seeded(Square(probe.model, probe.attack.eps, eot_iter=probe.attack.eot_iter))
    only = (standing & ~probe.standing(square, standing)).double().mean().item()
    return _line(only <= probe.slack, f"{only:.1%}, {standing.double().mean():.1%} stand up to the attack", wanted)


def _leaking(probe: Probe) -> Line:
    """One step on all images, also on those that were wrong: a label that the perturbation betrays puts them right."""
    one = (probe.answers(probe.adversarial(probe.single)).argmax(1) == probe.labels).double().mean().item()
    clean, many = probe.attacked.clean_top1, probe.attacked.top1
    collapsed = probe.single_step.top1 > 0.7 * clean and many < probe.single_step.top1 / 3
    measured = f"clean {clean:.1%}, one step {one:.1%}, {probe.attack.steps} steps {many:.1%}"
    return _line(one <= clean + probe.slack and not collapsed, measured, "one step below clean, many not far below one")


def _transfer(probe: Probe) -> Line:
    wanted = "attacks on another model hurt less"
    if probe.transfer_from is None:
        return "not run", "no transfer_from given", wanted
    white, black = probe.attacked.top1, probe.outcome(replace(probe.attack, model=probe.transfer_from)).top1
    return _line(white <= black + probe.slack, f"white-box {white:.1%}, transfer {black:.1%}", wanted)


CHECKS: dict[str, Callable[[Probe], Line]] = {
    "outputs are logits": _logits,
    "forward is deterministic": _deterministic,
    "images are judged one by one": _alone,
    "gradients are not zero": _gradients,
    "eps is in pixels": _budget,
    "attack beats random noise": _noise,
    "iterative beats single-step": _iterative,
    "attack has converged": _converged,
    "accuracy falls to 0 as eps grows": _unbounded,
    "gradient-free does not beat it": _gradient_free,
    "no label leaking or collapse": _leaking,
    "white-box beats transfer": _transfer,
}
