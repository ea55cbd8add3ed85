"""Attacks against the reference (torchattacks), closed forms, and the ways in which they are misused."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
import torchattacks
import torchvision
from conftest import small_net, toy_set
from torch import nn

from helpers.attacks import (
    EOT,
    FFGSM,
    FGSM,
    PGD,
    PGDL2,
    Square,
    cross_entropy,
    least_likely,
    margin,
    random_target,
    robust_accuracy,
    worst_case,
)
from helpers.data import Batches
from helpers.models import normalized, resnet18

EPS = 8 / 255


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def with_statistics(model):
    """BatchNorm with running statistics of some images, not 0 and 1."""
    for _ in range(2):
        model(torch.rand(8, 3, 32, 32))
    return model.eval()


def make(kind):
    torch.manual_seed(0)
    if kind == "vit":
        network = torchvision.models.VisionTransformer(
            32, 8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=10
        )
        nn.init.normal_(network.heads.head.weight, std=0.1)  # torchvision's is 0: no gradient
    else:
        network = small_net(10) if kind == "cnn" else resnet18(10)
    return with_statistics(normalized(network, [0.5, 0.4, 0.5], [0.25, 0.2, 0.3]))


def batch(n=4, size=32, classes=10, seed=0, dtype=torch.float32):
    g = seeded(seed)
    return torch.rand(n, 3, size, size, generator=g, dtype=dtype), torch.randint(classes, (n,), generator=g)


@pytest.fixture(scope="module", params=["cnn", "resnet", "vit"])
def model(request):
    return make(request.param)


PAIRS = {
    "FGSM": (lambda m: FGSM(m, eps=EPS), lambda m: torchattacks.FGSM(m, eps=EPS)),
    "PGD": (lambda m: PGD(m, EPS, 2 / 255, 5), lambda m: torchattacks.PGD(m, EPS, 2 / 255, 5)),
    "PGDL2": (lambda m: PGDL2(m, 1.0, 0.3, 5), lambda m: torchattacks.PGDL2(m, 1.0, 0.3, 5, eps_for_division=1e-30)),
    "FFGSM": (lambda m: FFGSM(m, eps=EPS), lambda m: torchattacks.FFGSM(m, eps=EPS)),
    "EOTPGD": (
        lambda m: EOT(PGD(m, EPS, 2 / 255, 3), 2),
        lambda m: torchattacks.EOTPGD(m, EPS, 2 / 255, 3, eot_iter=2),
    ),
}


@pytest.fixture
def same_start(monkeypatch):
    """Both attacks draw from the same seed; torchattacks' FFGSM draws, and throws away, normal numbers first."""
    monkeypatch.setattr(torch, "randn_like", torch.empty_like)

    def run(attack, *args):
        torch.manual_seed(5)
        return attack(*args)

    return run


@pytest.mark.parametrize("name", PAIRS)
def test_equals_torchattacks_in_float64(model, name, same_start):
    images, labels = batch(dtype=torch.float64)
    model = model.double()
    ours, theirs = (make_attack(model) for make_attack in PAIRS[name])
    a, b = same_start(ours, images, labels), same_start(theirs, images, labels)
    model.float()
    assert (a - images).abs().amax() > 0.5 * EPS
    assert (a - b).abs().amax() <= 1e-9


@pytest.mark.parametrize("name", PAIRS)
def test_equals_torchattacks_in_float32(model, name, same_start):
    images, labels = batch(n=6)
    ours, theirs = (make_attack(model) for make_attack in PAIRS[name])
    a, b = same_start(ours, images, labels), same_start(theirs, images, labels)
    if name != "PGDL2":  # there every pixel depends on the gradient's length: no two ways round alike
        assert ((a - b).abs() <= 1e-6).double().mean() >= 0.999
    assert (a - b).abs().mean() <= 1e-5
    losses = [F.cross_entropy(model(x), labels).item() for x in (a, b)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("targeted", ["least_likely", "random", "given"])
def test_targeted_equals_torchattacks(model, targeted, same_start):
    images, labels = batch(dtype=torch.float64)
    model = model.double()
    theirs = torchattacks.PGD(model, EPS, 2 / 255, 3, random_start=False)
    given = (labels + 1) % 10
    if targeted == "least_likely":
        theirs.set_mode_targeted_least_likely(quiet=True)
        ours, args, b_args = PGD(model, EPS, 2 / 255, 3, False, target=least_likely), (images, labels), (images, labels)
    else:
        theirs.set_mode_targeted_by_label(quiet=True)
        given = random_target(model(images), labels, seeded(3)) if targeted == "random" else given
        rule = random_target if targeted == "random" else None
        ours = PGD(model, EPS, 2 / 255, 3, False, target=rule, generator=seeded(3))
        args, b_args = (images, labels) + (() if rule else (given,)), (images, given)
    a, b = ours(*args), theirs(*b_args)
    model.float()
    assert (a - b).abs().amax() <= 1e-9


def linear(weight, bias=0.0):
    """Two classes; logit 1 minus logit 0 is the inner product with `weight`, plus `bias`."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(weight.numel(), 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.stack([-weight, weight]) / 2)
        net[1].bias.copy_(torch.tensor([-bias, bias]) / 2)
    return net


@pytest.mark.parametrize(
    ("attack", "dual", "args"),
    [
        (FGSM, 1, ()),
        (PGD, 1, (0.03, 60, False)),
        (PGD, 1, (0.03, 60, True)),
        (PGDL2, 2, (0.03, 60, False)),
        (PGDL2, 2, (0.03, 60, True)),
    ],
)
def test_reaches_the_optimum_of_a_linear_model(attack, dual, args):
    weight = torch.randn(3 * 8 * 8, generator=seeded())
    model, eps = linear(weight).double(), 0.1
    images = 0.3 + 0.4 * torch.rand(5, 3, 8, 8, generator=seeded(1), dtype=torch.float64)  # no pixel meets 0 or 1
    adv_images = attack(model, eps, *args)(images, torch.zeros(5, dtype=torch.int64))
    with torch.no_grad():
        gain = (model(adv_images) - model(images)) @ torch.tensor([-1.0, 1.0], dtype=torch.float64)
    best = eps * torch.linalg.vector_norm(weight, dual).item()
    assert gain == pytest.approx([best] * 5, rel=1e-6)


def test_l2_step_has_its_length_also_for_tiny_gradients():
    weight = torch.randn(3 * 8 * 8, generator=seeded()) * 1e-30  # squares are 0 in float32
    images = torch.full((2, 3, 8, 8), 0.5)
    adv_images = PGDL2(linear(weight), 1.0, 0.3, 2, False, loss=margin)(images, torch.tensor([0, 1]))
    assert (adv_images - images).flatten(1).norm(dim=1) == pytest.approx([0.6, 0.6], rel=1e-4)


def test_targeted_attack_raises_the_target_and_untargeted_the_loss(model):
    images, labels = batch(8)
    target = (labels + 3) % 10
    attack = PGD(model, EPS, 2 / 255, 5)
    before, after = (model(x).log_softmax(1) for x in (images, attack(images, labels, target)))
    assert (after - before).gather(1, target[:, None]).min() > 0
    after = model(attack(images, labels)).log_softmax(1)
    assert (after - before).gather(1, labels[:, None]).max() < 0


def test_target_rules():
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, 4.0, 9.0]])
    assert least_likely(logits, torch.tensor([1, 2])).tolist() == [0, 1]
    assert least_likely(logits, torch.tensor([0, 1])).tolist() == [2, 0]  # not the label, though least likely
    labels = torch.arange(5).repeat(400)
    drawn = random_target(torch.zeros(2000, 5), labels, seeded())
    counts = torch.stack([torch.bincount(drawn[labels == c], minlength=5) for c in range(5)])
    assert counts.diagonal().sum() == 0
    assert counts[~torch.eye(5, dtype=torch.bool)].min() > 60  # 100 expected


def test_margin_is_positive_where_the_model_errs():
    logits = torch.tensor([[2.0, 5.0, 1.0], [2.0, 5.0, 1.0]])
    assert margin(logits, torch.tensor([1, 0])).tolist() == [-3.0, 3.0]


def test_without_labels_the_prediction_is_attacked(model):
    images, _ = batch()
    predicted = model(images).argmax(1)
    attack = PGD(model, steps=2, random_start=False)
    assert torch.equal(attack(images), attack(images, predicted))
    assert not torch.equal(attack(images), attack(images, (predicted + 1) % 10))


def brier(logits, labels):
    return F.mse_loss(logits.softmax(1), F.one_hot(labels, 10).float(), reduction="none").sum(1)


def test_any_loss(model):
    images, labels = batch()
    for loss in (cross_entropy, margin, brier):
        adv_images = PGD(model, steps=3, loss=loss)(images, labels)
        assert loss(model(adv_images), labels).mean() > loss(model(images), labels).mean()


MISUSES = {
    "normalised images": (lambda x, y: (x * 4 - 2, y), "normalisation inside the model"),
    "NaN": (lambda x, y: (x * float("nan"), y), "NaN"),
    "bytes": (lambda x, y: ((x * 255).byte(), y), r"must be float \(N"),
    "half": (lambda x, y: (x.half(), y), "float32 or float64"),
    "one image without batch": (lambda x, y: (x[0], y), r"\(N, C, H, W\)"),
    "labels too few": (lambda x, y: (x, y[:2]), "4 images but 2 labels"),
    "float labels": (lambda x, y: (x, y.float()), "int64"),
    "label too large": (lambda x, y: (x, y + 90), "more than 9. classes"),
    "negative label": (lambda x, y: (x, y - 20), "must lie in"),
    "target is the label": (lambda x, y: (x, y, y), "label itself"),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_raises_a_clear_error(name):
    wrong, words = MISUSES[name]
    with pytest.raises(ValueError, match=words):
        PGD(make("cnn"), steps=1)(*wrong(*batch()))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"eps": 8}, "8 / 255"),
        ({"eps": -0.1}, "8 / 255"),
        ({"alpha": -1.0}, "alpha"),
        ({"steps": 0}, "steps"),
        ({"eot_iter": 0}, "eot_iter"),
        ({"restarts": 2, "random_start": False}, "random_start"),
    ],
)
def test_wrong_arguments_raise(arguments, words):
    with pytest.raises(ValueError, match=words):
        PGD(nn.Identity(), **arguments)


def test_wrong_models_and_losses_raise():
    images, labels = batch(2)
    net = make("cnn")
    detached = nn.Sequential(net, nn.Identity())
    detached[1].forward = lambda x: x.detach()
    with pytest.raises(ValueError, match="no gradient"):
        PGD(detached)(images, labels)
    with pytest.raises(ValueError, match="each image"):
        PGD(net, loss=F.cross_entropy)(images, labels)
    with pytest.raises(ValueError, match="logits must be"):
        PGD(nn.Conv2d(3, 10, 3))(images, labels)
    with pytest.raises(FloatingPointError, match="NaN"):  # sqrt has an infinite gradient at 0, times 0 is NaN
        PGD(nn.Sequential(linear(torch.zeros(3072)), SqrtAbs()), random_start=False)(images, labels % 2)


class SqrtAbs(nn.Module):
    def forward(self, logits):
        return logits.abs().sqrt()


@pytest.mark.parametrize("rule", [least_likely, random_target])
def test_a_rule_is_not_asked_about_labels_that_the_model_has_no_output_for(rule):
    images, labels = batch()
    with pytest.raises(ValueError, match=r"must lie in 0 .. 9, got"):
        PGD(make("cnn"), target=rule)(images, labels + 90)


def test_square_says_when_the_loss_is_nan():
    images, labels = batch(2)
    broken = nn.Sequential(linear(torch.zeros(3072)), ZeroByZero())
    with pytest.raises(FloatingPointError, match="loss is NaN"):
        Square(broken, steps=3)(images, labels % 2)


class ZeroByZero(nn.Module):
    def forward(self, logits):
        return logits * 0 / (logits * 0)


def test_an_empty_batch_comes_back_empty():
    images, labels = batch()
    attack = PGD(NoEmptyBatch())
    assert attack(images[:0], labels[:0]).shape == (0, 3, 32, 32)
    assert worst_case([attack])(images[:0]).shape == (0, 3, 32, 32)


def test_robust_accuracy_of_no_batches_says_so():
    with pytest.raises(ValueError, match="no batches"):
        robust_accuracy(make("cnn"), [], PGD(make("cnn")))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_robust_accuracy_answers_in_full_precision_under_autocast(model, dtype):
    seen = []
    watch = model.register_forward_hook(lambda module, _, logits: seen.append(logits.dtype))
    with watch, torch.autocast("cpu", dtype=dtype):
        robust_accuracy(model, [batch()], lambda images, labels: images)
    assert set(seen) == {torch.float32}


class NoEmptyBatch(nn.Module):
    """Like many models, this one cannot be asked about no images."""

    def forward(self, images):
        return images.reshape(len(images), -1)


def test_works_where_the_caller_has_switched_gradients_off(model):
    images, labels = batch()
    attack = PGD(model, steps=2, random_start=False)
    expected = attack(images, labels)
    with torch.no_grad():
        assert torch.equal(attack(images, labels), expected)
    with torch.inference_mode():
        assert torch.equal(attack(images + 0, labels + 0), expected)
    assert not expected.requires_grad


def test_does_not_change_its_arguments(model):
    images, labels = batch()
    kept, kept_labels = images.clone(), labels.clone()
    for attack in (
        FGSM(model),
        PGD(model, steps=2, restarts=2, early_stop=True),
        PGDL2(model, steps=2),
        Square(model, steps=3),
    ):
        attack(images, labels)
        assert torch.equal(images, kept)
        assert torch.equal(labels, kept_labels)


class Half(nn.Module):
    """Runs `network` in a lower precision, as Accelerate makes a model do."""

    def __init__(self, network, dtype):
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, images):
        with torch.autocast("cpu", dtype=self.dtype):
            return self.network(images)


class Confident(nn.Module):
    """A linear model so sure of its answer that the unscaled gradient is below what fp16 can hold."""

    def __init__(self):
        super().__init__()
        self.net = linear(torch.randn(3072, generator=seeded()) * 0.01, bias=12.0)

    def forward(self, images):
        return self.net(images)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradient_survives_autocast_around_the_attack(model, dtype):
    images, labels = batch()
    attack = PGD(model, steps=3, random_start=False)
    expected = attack(images, labels)
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(attack(images, labels), expected)


def test_gradient_survives_fp16_inside_the_model():
    images = 0.5 + torch.randn(4, 3, 32, 32, generator=seeded(1)) * 0.01
    labels = torch.ones(4, dtype=torch.int64)
    full, half = (FGSM(m)(images, labels) - images for m in (Confident(), Half(Confident(), torch.float16)))
    assert (full.sign() == half.sign()).double().mean() > 0.97


def test_gradient_does_not_shrink_with_the_batch():
    """Summed, not averaged: in fp16 an image in a batch of 512 moves like the image alone."""
    model = Half(Confident(), torch.float16)
    images = (0.5 + torch.randn(1, 3, 32, 32, generator=seeded(1)) * 0.01).repeat(512, 1, 1, 1)
    labels = torch.ones(512, dtype=torch.int64)
    alone, among = FGSM(model)(images[:1], labels[:1]), FGSM(model)(images, labels)
    assert (alone[0] == among[0]).double().mean() > 0.99


class Noisy(nn.Module):
    """Adds noise to the image in eval mode too, a randomised defence."""

    def __init__(self, network, sigma):
        super().__init__()
        self.network, self.sigma = network, sigma

    def forward(self, images):
        return self.network(images + torch.randn_like(images) * self.sigma)


def test_eot_averages_the_gradient_of_a_random_model():
    network = make("cnn")
    images, labels = batch(2)
    model = Noisy(network, 0.3)

    def gradient(samples, seed):
        torch.manual_seed(seed)
        return EOT(FGSM(model), samples).gradient(images, labels)

    def agreement(samples):
        return F.cosine_similarity(gradient(samples, 0).flatten(1), gradient(samples, 1).flatten(1)).mean()

    assert agreement(32) > agreement(1) + 0.2
    assert EOT(PGD(model), 7) is not model
    assert EOT(PGD(model, steps=3), 7).eot_iter == 7


@pytest.fixture(scope="module")
def trained():
    """A small network that knows its training images, and some of these."""
    data, epochs = toy_set(600), 16
    model = small_net()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=6 * epochs)
    for epoch in range(epochs):
        for images, labels in Batches(data, 100, shuffle=True).epoch(epoch):
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
            schedule.step()
    return model.eval(), data[:96]


def whole(data):
    return next(iter(Batches(data, len(data))))


def right(model, images, labels):
    with torch.no_grad():
        return model(images).argmax(1) == labels


WEAK = 3 / 255  # here about half of the images stand


@pytest.mark.trains
def test_robust_accuracy_equals_torchattacks_restarts(trained, same_start):
    """Image by image, though fallen images are dropped between restarts and steps."""
    model, data = trained
    images, labels = whole(data)
    torch.manual_seed(0)
    starts = torch.empty(3, *images.shape).uniform_(-WEAK, WEAK)
    stands = right(model, images, labels)
    clean = stands.clone()
    for start in starts:
        adv_images = (images + start).clamp(0, 1)
        theirs = torchattacks.PGD(model, WEAK, WEAK / 4, 1, random_start=False)
        for _ in range(6):
            stands &= right(model, adv_images, labels)
            adv_images = step_of(theirs, adv_images, images, labels)
        stands &= right(model, adv_images, labels)
    outcome = run_from(PGD(model, WEAK, WEAK / 4, 6, restarts=3), starts, model, [(images, labels)], clean)
    assert torch.equal(outcome.clean_correct, clean)
    assert torch.equal(outcome.survived, stands)
    assert 0.1 < outcome.top1 < clean.double().mean() - 0.1
    assert outcome.top1 == pytest.approx(stands.double().mean().item())


def step_of(theirs, adv_images, images, labels):
    """One step of torchattacks' PGD from `adv_images` within the ball around `images`."""
    delta = theirs(adv_images, labels)  # one step of alpha around adv_images itself, which lies within eps of it
    return (images + (delta - images).clamp(-theirs.eps, theirs.eps)).clamp(0, 1)


def run_from(attack, starts, model, data, kept):
    """`robust_accuracy` with the given random starts, one a restart, of the images in `kept`."""
    given = iter(starts)
    norm = type(attack.norm)()
    norm.start = lambda images, eps, generator: next(given)[kept]
    fixed = type("Fixed", (PGD,), {"norm": norm})
    fields = {name: getattr(attack, name) for name in ("eps", "alpha", "steps", "restarts")}
    return robust_accuracy(model, data, fixed(attack.model, **fields))


@pytest.mark.trains
def test_robust_accuracy_counts_forward_passes(trained):
    """Images that were wrong, or have fallen, cost nothing any more."""
    model, data = trained
    seen = []
    hook = model.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    outcome = robust_accuracy(model, [whole(data)], PGD(model, 8 / 255, steps=10, restarts=3))
    hook.remove()
    assert outcome.top1 < 0.1
    right_ones = int(outcome.clean_correct.sum())
    assert sum(seen) < len(data) + 0.3 * 30 * right_ones


@pytest.mark.trains
def test_robust_accuracy_of_a_transfer_attack_does_not_stop_early(trained):
    model, data = trained
    other = small_net(seed=1).eval()
    images, labels = whole(data)
    attack = PGD(other, 8 / 255, random_start=False)
    assert hasattr(attack, "stopping_early")
    clean = right(model, images, labels)
    adv_images = attack(images[clean], labels[clean])
    outcome = robust_accuracy(model, [(images, labels)], attack)
    assert outcome.top1 == pytest.approx(right(model, adv_images, labels[clean]).sum().item() / len(images))
    assert outcome.linf[clean].min() > 7.9 / 255  # all of them went all the way
    assert (outcome.linf[~clean] == 0).all()


@pytest.mark.trains
def test_robust_accuracy_takes_any_callable_and_batches(trained):
    model, data = trained
    outcome = robust_accuracy(model, Batches(data, 40), lambda images, labels: images)
    assert outcome.top1 == outcome.clean_top1
    assert torch.equal(outcome.labels, data.labels)
    attack = PGD(model, WEAK, generator=seeded())
    parts = robust_accuracy(model, Batches(data, 40), PGD(model, WEAK, random_start=False))
    one = robust_accuracy(model, Batches(data, 96), PGD(model, WEAK, random_start=False))
    assert torch.equal(parts.survived, one.survived)  # the batch size plays no part
    assert robust_accuracy(model, Batches(data, 40), attack).l2.max() > 0


@pytest.mark.trains
def test_restarts_keep_the_worst(trained):
    model, data = trained
    images, labels = whole(data)
    one, five = (PGD(model, WEAK, WEAK / 2, 2, restarts=n, generator=seeded(2)) for n in (1, 5))
    a, b = one(images, labels), five(images, labels)
    stands_a, stands_b = right(model, a, labels), right(model, b, labels)
    assert not (stands_b & ~stands_a).any()
    same = stands_a == stands_b
    with torch.no_grad():
        gain = cross_entropy(model(b), labels) - cross_entropy(model(a), labels)
    assert gain[same].min() >= -1e-5
    assert (gain > 1e-4).double().mean() > 0.5


@pytest.mark.trains
def test_early_stop_fells_at_least_what_the_last_step_fells(trained):
    model, data = trained
    images, labels = whole(data)
    last = PGD(model, WEAK, WEAK / 4, 8, random_start=False)
    stopped = last.stopping_early()(images, labels)
    assert stopped.sub(images).norm() < last(images, labels).sub(images).norm()
    assert not (right(model, stopped, labels) & ~right(model, last(images, labels), labels)).any()


@pytest.mark.trains
def test_worst_case_runs_each_attack_on_those_that_stand(trained):
    model, data = trained
    images, labels = whole(data)
    sizes = []

    class Counting:
        def __init__(self, attack):
            self.attack, self.model = attack, model

        def __call__(self, x, y):
            sizes.append(len(x))
            return self.attack(x, y)

    # the second fells more
    parts = [FGSM(model, WEAK), PGD(model, 1.5 * WEAK, WEAK / 4, 8, random_start=False), Square(model, WEAK, 20)]
    both = worst_case([Counting(a) for a in parts])
    stands = right(model, both(images, labels), labels)
    assert sizes[0] == len(images) > sizes[1] > sizes[2] > 0
    fgsm = right(model, parts[0](images, labels), labels)
    assert sizes[1] == fgsm.sum()
    assert not (stands & ~fgsm).any()
    with pytest.raises(ValueError, match="same model"):
        worst_case([FGSM(model), FGSM(small_net())])
    outcome = robust_accuracy(model, [(images, labels)], worst_case(parts))
    assert outcome.top1 <= stands.double().mean() + 0.05  # the few tries of Square differ
    assert worst_case(parts).stopping_early().attacks[1].early_stop


@pytest.mark.trains
def test_square_finds_what_has_no_gradient(trained):
    model, data = trained
    quantised = nn.Sequential(Quantise(), model)
    images, labels = whole(data)
    pgd = robust_accuracy(quantised, [(images, labels)], PGD(quantised, 8 / 255, random_start=False))
    square = robust_accuracy(quantised, [(images, labels)], Square(quantised, 8 / 255, 300, generator=seeded()))
    assert pgd.top1 == pgd.clean_top1  # no gradient, no step
    assert square.top1 < 0.8 * square.clean_top1
    assert square.linf.max() <= 8 / 255 + 1e-6


class Quantise(nn.Module):
    def forward(self, images):
        return (images * 31).round() / 31


@pytest.mark.trains
def test_square_only_climbs(trained):
    model, data = trained
    images, labels = whole(data)
    values = []
    for steps in (1, 10, 40):
        adv_images = Square(model, 4 / 255, steps, generator=seeded())(images, labels)
        with torch.no_grad():
            values.append(margin(model(adv_images), labels).mean().item())
    assert values[0] < values[1] < values[2]


def test_repr_is_what_one_would_type_and_the_same_in_another_process():
    code = (
        "from torch import nn, Generator; from helpers.attacks import *; m = nn.Linear(1, 1);"
        "print([PGD(m), PGD(m, eps=0.1, target=least_likely, restarts=3, loss=nn.MSELoss(reduction='none')),"
        "FGSM(m, 4/255), PGDL2(m), FFGSM(m), Square(m), EOT(PGD(m), 5),"
        "PGD(m, 1.5/255, generator=Generator().manual_seed(7)),"
        "PGD(m, loss=lambda a, b: a), worst_case([FGSM(m), PGD(m)]), PGD(m, 1/7, early_stop=True)])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    ).stdout
    pgd = "alpha=2/255, steps=10, random_start=True"
    assert said.strip() == (
        f"[PGD(eps=8/255, {pgd}), PGD(eps=0.1, {pgd}, loss=MSELoss(), target=least_likely, restarts=3), "
        f"FGSM(eps=4/255), PGDL2(eps=1.0, alpha=0.2, steps=10, random_start=True), FFGSM(eps=8/255, alpha=10/255), "
        f"Square(eps=8/255, steps=200, share=0.8), PGD(eps=8/255, {pgd}, eot_iter=5), "
        f"PGD(eps=1.5/255, {pgd}, generator=seed 7), PGD(eps=8/255, {pgd}, loss=<lambda>), "
        f"worst_case([FGSM(eps=8/255), PGD(eps=8/255, {pgd})]), PGD(eps=0.14285714285714285, {pgd}, early_stop=True)]"
    )


@pytest.mark.parametrize("attack", [FGSM, PGD, PGDL2, FFGSM, Square])
def test_docstring_has_its_five_blocks(attack):
    assert "arXiv" in attack.__doc__.splitlines()[0]
    for block in ("Distance measure:", "Arguments:", "Shape:", "Examples:"):
        assert f"\n    {block}" in attack.__doc__
    for name in ("eps", "alpha", "steps", "random_start", "share"):
        if name in attack.__dataclass_fields__:
            assert f"{name} (" in attack.__doc__
