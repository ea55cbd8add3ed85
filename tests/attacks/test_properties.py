"""What holds for every attack, whatever the shapes and budgets (hypothesis)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from helpers.attacks import EOT, FFGSM, FGSM, PGD, PGDL2, Square, cross_entropy, least_likely, random_target, worst_case

CLASSES = 4
fast = settings(max_examples=25, deadline=None)


class Tiny(nn.Module):
    """Any number of channels and any size; BatchNorm and dropout, so that modes matter."""

    def __init__(self, channels):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES))

    def forward(self, images):
        return self.head(self.body(images))


def tiny(channels=3, seed=0):
    torch.manual_seed(seed)
    return Tiny(channels)


@st.composite
def cases(draw):
    """Images that also touch 0 and 1, their labels, and a model for them."""
    n, c = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    images = (torch.rand(n, c, height, width, generator=generator) * 1.6 - 0.3).clamp(0, 1)
    return tiny(c, draw(st.integers(0, 9))), images, torch.randint(CLASSES, (n,), generator=generator)


budgets = st.floats(0, 0.6)
counts = st.integers(1, 4)


@st.composite
def attacks(draw, model):
    """Any attack with any arguments."""
    seed = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    common = {"generator": seed, "target": draw(st.sampled_from([None, least_likely, random_target]))}
    if draw(st.booleans()):
        common |= {"early_stop": True}
    eps = draw(budgets)
    kind = draw(st.sampled_from([FGSM, PGD, PGDL2, FFGSM, Square]))
    if kind is FGSM:
        return FGSM(model, eps, **common)
    if kind is FFGSM:
        return FFGSM(model, eps, draw(budgets), restarts=draw(counts), **common)
    if kind is Square:
        return Square(model, eps, draw(counts), restarts=draw(counts), **common)
    start = draw(st.booleans())
    common |= {"restarts": draw(counts) if start else 1, "eot_iter": draw(st.integers(1, 2))}
    return kind(model, eps, draw(budgets), draw(counts), start, **common)


@fast
@given(st.data(), cases())
def test_stays_within_eps_and_the_pixel_range(data, case):
    model, images, labels = case
    attack = data.draw(attacks(model))
    adv_images = attack(images, labels)
    assert adv_images.shape == images.shape
    assert adv_images.dtype == images.dtype
    assert attack.norm.size(adv_images - images).max() <= attack.eps + 1e-6
    assert adv_images.min() >= 0
    assert adv_images.max() <= 1


@fast
@given(st.data(), cases())
def test_the_same_generator_gives_the_same_images(data, case):
    model, images, labels = case
    attack = data.draw(attacks(model))
    seed = attack.generator.initial_seed()
    attack.generator.manual_seed(seed)
    first = attack(images, labels)
    torch.rand(3)  # the global generator plays no part
    attack.generator.manual_seed(seed)
    assert torch.equal(attack(images, labels), first)


@fast
@given(cases(), st.floats(0.01, 0.3))
def test_a_small_step_does_not_lower_the_loss_on_average(case, eps):
    model, images, labels = case
    before = cross_entropy(model.eval()(images), labels).mean().item()
    for attack in (PGD(model, eps / 20, eps / 80, 4, False), PGDL2(model, eps / 20, eps / 80, 4, False)):
        assert cross_entropy(model(attack(images, labels)), labels).mean().item() >= before - 1e-5
        reached = cross_entropy(model(attack(images, labels, (labels + 1) % CLASSES)), (labels + 1) % CLASSES)
        assert reached.mean() <= cross_entropy(model(images), (labels + 1) % CLASSES).mean() + 1e-5


@fast
@given(st.data())
def test_an_image_fares_the_same_alone_and_in_a_batch(data):
    """A batch of 1 included; without a random start there is nothing else that could differ."""
    model, images, labels = data.draw(cases())
    kind = data.draw(st.sampled_from([PGD, PGDL2]))
    attack = kind(model.double(), data.draw(st.floats(0.01, 0.5)), 0.05, data.draw(counts), False)
    images = images.double()
    together = attack(images, labels)
    alone = torch.cat([attack(images[i : i + 1], labels[i : i + 1]) for i in range(len(images))])
    assert (together - alone).abs().max() <= 1e-6


def state(model):
    """Everything an attack must leave as it found it."""
    modes = {name: module.training for name, module in model.named_modules()}
    grads = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    return modes, grads, {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(before, after):
    assert before[0] == after[0]
    for old, new in zip(before[1:], after[1:], strict=True):
        for name in old:
            assert (old[name] is None and new[name] is None) or torch.equal(old[name], new[name]), name


def mixed_model(with_grad):
    """In training mode, but for one BatchNorm that somebody has frozen; with gradients half accumulated."""
    model = tiny()
    model.train()
    model.body[1].eval()
    for parameter in model.body[1].parameters():
        parameter.requires_grad_(False)
    if with_grad:
        model(torch.rand(2, 3, 5, 5)).sum().backward()
    return model


EVERY = {
    "FGSM": FGSM,
    "PGD": lambda m: PGD(m, steps=2, restarts=2),
    "PGDL2": lambda m: PGDL2(m, steps=2),
    "FFGSM": FFGSM,
    "Square": lambda m: Square(m, steps=2),
    "EOT": lambda m: EOT(PGD(m, steps=2), 2),
    "worst_case": lambda m: worst_case([FGSM(m), PGD(m, steps=2)]),
    "least likely": lambda m: PGD(m, steps=2, target=least_likely),
}


@pytest.mark.parametrize("with_grad", [False, True])
@pytest.mark.parametrize("name", EVERY)
def test_leaves_the_model_as_it_was(name, with_grad):
    model = mixed_model(with_grad)
    before = state(model)
    EVERY[name](model)(torch.rand(3, 3, 5, 5))
    assert_same(before, state(model))


class Bomb(RuntimeError):
    pass


@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("name", EVERY)
def test_leaves_the_model_as_it_was_when_an_exception_passes(name, after):
    model = mixed_model(with_grad=True)
    before, calls = state(model), []

    def explode(module, args):
        calls.append(1)
        if len(calls) > after:
            raise Bomb

    hook = model.head.register_forward_pre_hook(explode)
    with pytest.raises(Bomb):
        for _ in range(3):
            EVERY[name](model)(torch.rand(3, 3, 5, 5))
    hook.remove()
    assert_same(before, state(model))
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", EVERY)
def test_attacks_in_eval_mode(name):
    model, modes = mixed_model(with_grad=False), []
    model.body[3].register_forward_hook(lambda module, args, output: modes.append(module.training))
    EVERY[name](model)(torch.rand(3, 3, 5, 5))
    assert modes
    assert not any(modes)


@fast
@given(cases(), st.integers(0, 99))
def test_early_stop_and_dropping_change_no_survivor(case, seed):
    """The same images stand as when all restarts and steps are done for all images, and each point is looked at."""
    model, images, labels = case
    model = model.double().eval()
    images, eps, alpha, steps, restarts = images.double(), 0.1, 0.04, 3, 3
    generator = torch.Generator().manual_seed(seed)
    stands = torch.ones(len(labels), dtype=torch.bool)
    for _ in range(restarts):
        adv_images = (images + torch.empty_like(images).uniform_(-eps, eps, generator=generator)).clamp(0, 1)
        for step in range(steps + 1):
            stands &= model(adv_images).argmax(1) == labels
            if step < steps:
                moved = adv_images + alpha * FGSM(model).gradient(adv_images, labels).sign()
                adv_images = (images + (moved - images).clamp(-eps, eps)).clamp(0, 1)
    attack = PGD(model, eps, alpha, steps, restarts=restarts, early_stop=True, generator=generator.manual_seed(seed))
    assert torch.equal(model(attack(images, labels)).argmax(1) == labels, stands)
