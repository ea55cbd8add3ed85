"""APGD and its targeted form against torchattacks, step for step, and what has to hold of any attack."""

import pytest
import torch
import torchattacks
from attacks.test_gradient import batch, make

from helpers.attacks import APGD, APGDT, PGD, dlr, dlr_targeted, margin, robust_accuracy
from helpers.attacks.apgd import _checks

EPS = 2 / 255


def wide(values):
    return values[:, None, None, None]


def theirs(attack, images, labels):
    """The reference's outcome of one run: where the model errs, else of highest loss."""
    torch.manual_seed(5)
    best, right, _, fooling = attack.attack_single_run(images, labels)
    return torch.where(wide(right == 0), fooling, best), right == 0


@pytest.fixture(scope="module", params=["cnn", "vit"])
def case(request):
    model = make(request.param)
    images, _ = batch(12)
    return model, images, model(images).argmax(1)


@pytest.mark.parametrize("eps", [1 / 255, 4 / 255])
@pytest.mark.parametrize("steps", [1, 10, 30])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_it_is_the_reference_step_for_step(case, loss, steps, eps):
    model, images, labels = case
    expected, _ = theirs(torchattacks.APGD(model, eps=eps, steps=steps, loss=loss), images, labels)
    torch.manual_seed(5)
    attack = APGD(model, eps, steps, **({"loss": dlr} if loss == "dlr" else {}))
    assert torch.equal(attack(images, labels), expected)


@pytest.mark.parametrize("rank", [2, 4])
def test_one_target_is_the_reference_step_for_step(case, rank):
    model, images, labels = case
    reference = torchattacks.APGDT(model, eps=1 / 255, steps=20, n_classes=10)
    reference.target_class = rank
    expected, _ = theirs(reference, images, labels)
    goal = model(images).sort(1)[1][:, -rank]
    torch.manual_seed(5)
    attack = APGDT(model, 1 / 255, 20)
    task = attack._task(images, labels, None)
    with torch.no_grad():
        start = attack._start(images)
    found = attack._climb(start, type(task)(images, labels, goal, 1.0, 9))
    assert torch.equal(found, expected)


def test_all_targets_fell_what_any_single_one_fells(case):
    model, images, labels = case
    generator = torch.Generator().manual_seed(0)
    found = APGDT(model, 1 / 255, 10, targets=3, generator=generator)(images, labels)
    fallen = model(found).argmax(1) != labels
    task_of, generator = APGDT(model, 1 / 255, 10), torch.Generator().manual_seed(0)
    others = model(images).scatter(1, labels[:, None], -torch.inf).argsort(1, descending=True)
    any_of = torch.zeros_like(fallen)
    for k in range(3):
        attack = APGDT(model, 1 / 255, 10, generator=generator)
        start = attack._start(images)
        task = task_of._task(images, labels, None)
        adv_images = attack._climb(start, type(task)(images, labels, others[:, k], 1.0, 9))
        any_of |= model(adv_images).argmax(1) != labels
    assert torch.equal(fallen, any_of)
    assert fallen.any()


@pytest.mark.parametrize("kind", [APGD, APGDT])
def test_it_stays_in_the_ball_and_among_images(case, kind):
    model, images, labels = case
    found = kind(model, EPS, 7)(images, labels)
    assert (found - images).abs().max() <= EPS + 1e-6
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize("kind", [APGD, APGDT])
def test_stopping_early_fells_the_same_images_by_fewer_passes(case, kind):
    model, images, labels = case
    seen = []
    counted = model.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    fallen, passes = [], []
    for early in (False, True):
        seen.clear()
        attack = kind(model, 1 / 255, 20, generator=torch.Generator().manual_seed(3), early_stop=early)
        found = attack(images, labels)
        passes.append(sum(seen))
        fallen.append(model(found).argmax(1) != labels)
    counted.remove()
    assert torch.equal(*fallen)
    assert passes[1] < 0.8 * passes[0]


def test_the_same_generator_gives_the_same_images(case):
    model, images, labels = case
    one, two = (APGD(model, EPS, 5, generator=torch.Generator().manual_seed(1))(images, labels) for _ in range(2))
    assert torch.equal(one, two)


def test_it_counts_like_any_attack(case):
    model, images, labels = case
    found = robust_accuracy(model, [(images, labels)], APGD(model, 0.0, 2))
    assert found.top1 == found.clean_top1 == 1
    assert found.linf.max() == 0


def test_a_wrong_step_size_cannot_be_chosen_and_pgd_s_can(case):
    """A step of a tenth of a level never uses the budget; APGD does without being told."""
    model, images, labels = case
    timid = PGD(model, 4 / 255, 0.1 / 255, 10, random_start=False)(images, labels)
    own = APGD(model, 4 / 255, 10)(images, labels)
    assert (timid - images).abs().max() < 1.1 / 255
    assert (own - images).abs().amax((1, 2, 3)).min() > 3.9 / 255


@pytest.mark.parametrize(("steps", "expected"), [
    (100, [22, 41, 57, 70, 80, 87, 93, 99]), (10, [2, 3, 4, 5, 6, 7, 8, 9, 10]), (1, [1]),
])  # fmt: skip
def test_the_checks_are_where_the_paper_has_them(steps, expected):
    places, gaps = zip(*_checks(steps), strict=True)
    assert list(places) == expected
    assert sum(gaps) == places[-1]


def test_dlr_is_scale_free_and_has_the_sign_of_the_margin():
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(50) % 7
    torch.testing.assert_close(dlr(10 * logits, labels), dlr(logits, labels))
    assert torch.equal(dlr(logits, labels) > 0, margin(logits, labels) > 0)
    expected = torchattacks.APGD(torch.nn.Identity()).dlr_loss(logits, labels)
    torch.testing.assert_close(dlr(logits, labels), expected)
    targets = (labels + 3) % 7
    expected = torchattacks.APGDT(torch.nn.Identity()).dlr_loss_targeted(logits, labels, targets)
    torch.testing.assert_close(dlr_targeted(logits, labels, targets), expected)


def test_too_few_classes_and_nan_are_said():
    with pytest.raises(ValueError, match="3 classes or more, the model has 2"):
        dlr(torch.rand(4, 2), torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match="4 classes or more, the model has 3"):
        dlr_targeted(torch.rand(4, 3), torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.long))
    with pytest.raises(ValueError, match="targets must be 1 or more"):
        APGDT(torch.nn.Identity(), targets=0)
    model, (images, labels) = make("cnn"), batch(2)
    with pytest.raises(ValueError, match="chooses its targets itself"):
        APGDT(model, EPS, 1)(images, labels, (labels + 1) % 10)
    broken = torch.nn.Sequential(model, torch.nn.Module())
    broken[1].forward = lambda logits: logits * (logits - logits.detach()).sqrt()
    with pytest.raises(FloatingPointError, match="NaN or infinite"):
        APGD(broken, EPS, 3)(images, labels)


def test_its_text_tells_what_it_does():
    model = torch.nn.Identity()
    assert repr(APGD(model, 8 / 255)) == "APGD(eps=8/255, steps=50, rho=0.75)"
    assert "loss=dlr" in repr(APGD(model, loss=dlr))
    assert "targets=9" in repr(APGDT(model))
