"""The audit: an honest model passes every line, and each planted fault is caught by the line that is there for it."""

import pytest
import torch
import torch.nn.functional as F
from conftest import SEED, small_net
from matplotlib.figure import Figure
from torch import nn

from helpers.attacks import EOT, FGSM, PGD, PGDL2, robust_accuracy
from helpers.attacks.audit import CHECKS, audit
from helpers.attacks.audit_probe import Probe
from helpers.data import Batches, ImageSet, toy
from helpers.plotting import audit_curves

pytestmark = pytest.mark.trains
EPS, LARGE = 16 / 255, 24 / 255
COUNT = 60
SURE = {"steps": 20, "restarts": 3}


def colours(count, seed):
    """Small scenes labelled by the colour of their object."""
    scenes = toy.draw(count, 16, seed + SEED)
    return ImageSet(scenes.images, scenes.attributes["colour"], tuple(toy.COLOURS), "colours")


class Hues(nn.Module):
    """Honest by construction, not by training: how red, yellow, blue, purple and white the pixels are, smoothly pooled.

    A change of eps moves no hue of a pixel by more than 2 eps, and so no logit by more than `SCALE * 2 * eps`; the
    gradient reaches every pixel, and nothing is hidden from an attack.
    """

    SCALE, SHARP = 20, 8

    def forward(self, images):
        r, g, b = images.unbind(1)
        least, most = torch.minimum, torch.maximum
        white = least(least(r, g), b) - 0.25  # a light ground is not yet white
        hues = [r - most(g, b), least(r, g) - b, b - most(r, g), least(r, b) - g, white]
        return self.SCALE * (self.SHARP * torch.stack(hues, 1)).flatten(2).exp().mean(2).log() / self.SHARP

    @classmethod
    def certain(cls, logits, labels, eps):
        """bool `(N,)`: right under every change of at most eps."""
        others = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
        return logits.gather(1, labels[:, None])[:, 0] - others > cls.SCALE * 4 * eps


@pytest.fixture(scope="module")
def honest():
    return Hues().eval()


@pytest.fixture(scope="module")
def undefended():
    model = small_net(5)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for epoch in range(8):
        for images, labels in Batches(colours(800, 0), 100, shuffle=True).epoch(epoch):
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def batch():
    return next(iter(Batches(colours(100, 1)[:COUNT], COUNT)))


def pgd(model, eps=EPS, **arguments):
    return PGD(model, **{"eps": eps, "alpha": eps / 4, "steps": 10} | arguments)


def verdict(check, batch, attack, transfer_from=None):
    """One line of the audit."""
    return CHECKS[check](Probe(attack.model, *batch, attack, transfer_from, 64, 0))[0]


@pytest.fixture(scope="module")
def report(honest, undefended, batch):
    """At a budget that fells many images, but not all; with restarts, so that more of them find hardly anything."""
    return audit(honest, *batch, pgd(honest, LARGE, **SURE), transfer_from=undefended)


def test_an_honest_model_passes_every_line(report):
    assert (report.table.verdict == "pass").all(), report.table.to_string()
    assert report.passed
    assert list(report.table.index) == list(CHECKS)
    assert list(report.table.columns) == ["verdict", "measured", "wanted"]


def test_curves_fall_from_clean_accuracy_to_0(report, honest, batch):
    images, labels = batch
    clean = (honest(images).argmax(1) == labels).double().mean().item()
    by_eps, by_steps = report.by_eps, report.by_steps
    assert by_eps.loc[0.0].tolist() == pytest.approx([clean, clean])
    assert by_eps["attack"].is_monotonic_decreasing
    assert by_eps.index[-1] == pytest.approx(0.5)
    assert (by_eps["random noise"] >= by_eps["attack"]).all()
    assert by_steps.index.tolist() == [1, 2, 5, 10, 20, 50]
    assert by_steps["attack"].is_monotonic_decreasing
    assert by_steps.loc[20, "attack"] == pytest.approx(by_eps.loc[LARGE, "attack"])


def test_an_undefended_model_that_falls_altogether_passes_every_line(undefended, batch):
    """Nothing is left to compare there: no false alarm."""
    found = audit(undefended, *batch, pgd(undefended, 3 * EPS, steps=20))
    assert found.by_steps.loc[20, "attack"] == 0
    assert found.passed, found.table.to_string()
    assert found.table.verdict["gradient-free does not beat it"] == "not run"


def test_no_attack_fells_what_nothing_can_fell(report, honest, batch):
    """The curve never lies below the share of images that the construction of `Hues` makes certain."""
    logits = honest(batch[0])
    for eps, top1 in report.by_eps["attack"].items():
        assert top1 >= Hues.certain(logits, batch[1], eps).double().mean()
    assert 0.3 < Hues.certain(logits, batch[1], EPS / 2).double().mean() < 1


def test_curves_equal_attacks_on_all_images(report, honest, batch):
    """What `_chain` leaves out would have changed nothing."""
    for eps in (LARGE / 2, 2 * LARGE):
        whole = robust_accuracy(honest, [batch], pgd(honest, eps, **SURE)).top1
        assert report.by_eps.loc[eps, "attack"] == pytest.approx(whole, abs=0.06)
    for steps in (1, 50):
        whole = robust_accuracy(honest, [batch], pgd(honest, LARGE, **SURE | {"steps": steps})).top1
        assert report.by_steps.loc[steps, "attack"] == pytest.approx(whole, abs=0.06)


def test_figures_draw_the_curves(report):
    over_eps, over_steps = audit_curves(report.by_eps, report.by_steps)
    assert isinstance(over_eps, Figure)
    assert over_eps.axes[0].lines[0].get_xdata()[-1] == pytest.approx(0.5 * 255)
    assert over_steps.axes[0].lines[0].get_ydata()[0] == report.by_steps["attack"].iloc[0]


def test_the_same_seed_gives_the_same_table(honest, batch):
    images, labels = batch[0][:20], batch[1][:20]
    first, again = (audit(honest, images, labels, pgd(honest, steps=2)).table for _ in range(2))
    assert first.equals(again)


def test_transfer_is_not_run_without_another_model_and_square_not_in_l2(honest, batch):
    assert verdict("white-box beats transfer", batch, pgd(honest)) == "not run"
    assert verdict("gradient-free does not beat it", batch, PGDL2(honest)) == "not run"


def test_refuses_what_it_cannot_audit(honest, undefended, batch):
    images, labels = batch
    for attack in (FGSM(honest), pgd(undefended), pgd(honest, 0.0)):
        with pytest.raises(ValueError, match="PGD"):
            audit(honest, images, labels, attack)
    with pytest.raises(ValueError, match="inside the model"):
        audit(honest, images * 4 - 2, labels)
    with pytest.raises(ValueError, match="none of these images right"):
        audit(honest, images, (honest(images).argmax(1) + 1) % 5)
    with pytest.raises(ValueError, match="NaN"):
        broken = After(honest, behind=lambda logits: logits * torch.nan)
        audit(broken, images, labels)
    with pytest.raises(ValueError, match="1-based"):
        audit(honest, images, labels + 1)


class After(nn.Module):
    """`network` with a function before and one behind it."""

    def __init__(self, network, before=lambda x: x, behind=lambda x: x):
        super().__init__()
        self.network, self.before, self.behind = network, before, behind

    def forward(self, images):
        return self.behind(self.network(self.before(images)))


def saturated(model):
    return After(model, behind=lambda logits: (100 * logits).softmax(1))


def cosine(model):
    return After(model, behind=lambda logits: logits / 1000)


def quantised(model):
    return After(model, before=lambda images: (images * 15).round() / 15)


def noisy(model):
    return After(model, before=lambda images: images + 0.2 * torch.randn_like(images))


def batch_dependent(model):
    return After(model, before=lambda images: images - 0.5 * images.mean(0))


def collapsed(model):
    """What training by plain FGSM can lead to, drawn: one whole step ends where it began, half a step far away."""
    return After(model, before=lambda images: images + 0.18 * torch.sin(2 * torch.pi / EPS * images))


class Brittle(After):
    """Always wrong as soon as pixels leave the 256 levels."""

    def forward(self, images):
        off = ((images * 255).round() / 255 - images).abs().amax((1, 2, 3), keepdim=True).flatten(1) > 1e-3
        return self.network(images) * (1 - 2 * off.float())


class NormalisedPGD(PGD):
    """Measures eps after division by a standard deviation of 0.25: in pixels it is a quarter of what it says."""

    def __call__(self, images, labels=None, target=None):
        weak = PGD(self.model, self.eps / 4, self.alpha / 4, self.steps, self.random_start)
        return weak(images, labels, target)


class TwicePGD(PGD):
    """Forgets to project: twice the perturbation."""

    def __call__(self, images, labels=None, target=None):
        adv_images = super().__call__(images, labels, target)
        return (images + 2 * (adv_images - images)).clamp(0, 1)


class UnclippedPGD(PGD):
    """Forgets that pixels end at 0 and 1."""

    def __call__(self, images, labels=None, target=None):
        return images + self.eps * (super().__call__(images, labels, target) - images).sign()


ONE_START = {"random_start": False}
FAULTS = [
    ("outputs are logits", "honest", saturated, {}),
    ("gradients are not zero", "honest", saturated, {}),
    ("outputs are logits", "honest", cosine, {}),
    ("gradients are not zero", "honest", quantised, {}),
    ("gradient-free does not beat it", "honest", quantised, {"eps": LARGE}),
    ("attack beats random noise", "undefended", quantised, {"eps": 64 / 255} | ONE_START),
    ("accuracy falls to 0 as eps grows", "honest", quantised, ONE_START),
    ("forward is deterministic", "honest", noisy, {}),
    ("images are judged one by one", "honest", batch_dependent, {}),
    ("no label leaking or collapse", "honest", collapsed, {"alpha": EPS / 8, "steps": 50}),
    ("iterative beats single-step", "undefended", After, {"alpha": EPS / 1000} | ONE_START),
    ("attack has converged", "undefended", After, {"eps": 2 * EPS, "alpha": EPS / 20, "steps": 4} | ONE_START),
]


@pytest.mark.parametrize(("check", "network", "fault", "arguments"), FAULTS)
def test_a_planted_fault_is_caught(check, network, fault, arguments, batch, request):
    model = request.getfixturevalue(network)
    enough = {"steps": 30} if check == "attack has converged" else {}
    assert verdict(check, batch, pgd(model, arguments.get("eps", EPS), **enough)) == "pass"
    assert verdict(check, batch, pgd(fault(model), **arguments)) == "fail"


@pytest.mark.parametrize("fault", [NormalisedPGD, TwicePGD, UnclippedPGD])
def test_an_attack_with_another_eps_is_caught(fault, honest, batch):
    bright = batch[0].clamp_min(0.999 * (batch[0] > 0.6)), batch[1]  # some pixels near 1, so that clipping matters
    assert verdict("eps is in pixels", bright, PGD(honest, EPS, EPS / 4, 5)) == "pass"
    assert verdict("eps is in pixels", bright, fault(honest, EPS, EPS / 4, 5)) == "fail"


def test_a_masked_model_that_falls_to_transfer_is_caught(undefended, batch):
    masked = pgd(quantised(undefended), **ONE_START)
    assert verdict("white-box beats transfer", batch, masked, undefended) == "fail"


def test_noise_that_fells_all_images_leaves_nothing_to_compare(honest, batch):
    assert verdict("attack beats random noise", batch, pgd(Brittle(honest), 8.5 / 255)) == "pass"


def test_eot_makes_peace_with_a_random_model(honest, batch):
    assert verdict("forward is deterministic", batch, EOT(pgd(noisy(honest)), 5)) == "pass"


def test_one_call_finds_the_fault_of_a_saturated_model(honest, batch):
    masked = saturated(honest)
    found = audit(masked, batch[0][:20], batch[1][:20], pgd(masked, steps=2))
    assert not found.passed
    assert found.table.verdict[["outputs are logits", "gradients are not zero"]].tolist() == ["fail", "fail"]
