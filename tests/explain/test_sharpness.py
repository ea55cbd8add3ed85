"""The loss around the weights: against closed forms, and nothing of the model is moved."""

import math
from dataclasses import astuple

import pytest
import torch
import torch.nn.functional as F
from conftest import small_net, toy_set
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.autograd.functional import hessian
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from helpers.data import Batches
from helpers.explain import sharpness as landscape
from helpers.training.evaluation import evaluate

N, D = 30, 4


def squares(outputs, labels):
    return (outputs.squeeze(1) - labels).square().mean()


def regression(bias=False):
    """A linear regression at its minimum, its batches (of unequal sizes) and its Hessian."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N, D, generator=generator, dtype=torch.float64) * torch.tensor([3.0, 1, 0.5, 0.2])
    y = x.sum(1) + 2 + torch.randn(N, generator=generator, dtype=torch.float64)
    design = torch.cat([x, torch.ones(N, 1)], 1) if bias else x
    solution = torch.linalg.lstsq(design, y[:, None]).solution[:, 0]
    model = nn.Linear(D, 1, bias=bias, dtype=torch.float64)
    model.load_state_dict({"weight": solution[None, :D]} | ({"bias": solution[D:]} if bias else {}))
    batches = [(x[:20], y[:20]), (x[20:27], y[20:27]), (x[27:], y[27:])]
    return model, batches, 2 / N * design.T @ design


class Quadratic(nn.Module):
    """Half of w'Aw, whatever the image."""

    def __init__(self, eigenvalues):
        super().__init__()
        self.w = nn.Parameter(torch.ones(1, len(eigenvalues), dtype=torch.float64))
        turn = torch.linalg.qr(torch.randn(len(eigenvalues), len(eigenvalues), dtype=torch.float64))[0]
        self.register_buffer("a", turn @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ turn.T)

    def forward(self, images):
        return (self.w @ self.a @ self.w.T / 2).expand(len(images), 1)


def toy_batches(count=24, batch_size=10, **options):
    return Batches(toy_set(count, 8), batch_size, **options)


def vit(seed=0):
    torch.manual_seed(seed)
    model = VisionTransformer(img_size=8, patch_size=4, embed_dim=4, depth=1, num_heads=2, mlp_ratio=1, num_classes=3)
    return model.double().eval()


def vit_batches():
    images = torch.rand(7, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(7) % 3
    return [(images[:4], labels[:4]), (images[4:], labels[4:])]


def filters(tensor):
    return tensor.flatten(1).norm(dim=1)


def test_a_direction_is_as_long_as_the_model_filter_by_filter():
    model = small_net()
    with torch.no_grad():
        model[0].weight[3] = 0
    direction = landscape.filter_normalised_direction(model, 0)
    weights = dict(model.named_parameters())
    assert list(direction) == list(weights)
    for name, weight in weights.items():
        if weight.ndim == 1:
            assert not direction[name].any()
        else:
            torch.testing.assert_close(filters(direction[name]), filters(weight.detach()))
    assert direction["0.weight"][3].abs().sum() == 0
    assert direction["4.weight"].flatten().std() > 0


def test_the_same_seed_gives_the_same_direction():
    one, again, other = (landscape.filter_normalised_direction(small_net(), seed) for seed in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    cosine = F.cosine_similarity(one["4.weight"].flatten(), other["4.weight"].flatten(), dim=0)
    assert abs(cosine) < 0.1  # 4,608 values: a standard deviation of 0.015


def test_loss_along_a_line_is_the_parabola():
    model, batches, h = regression()
    direction = landscape.filter_normalised_direction(model, 3)
    amounts = [-1.0, 0.0, 0.5, 2.0]
    seen = landscape.loss_along(model, direction, batches, amounts, loss=squares)
    d = direction["weight"][0]
    least = squares(model(torch.cat([x for x, _ in batches])), torch.cat([y for _, y in batches])).item()
    assert seen.loss.tolist() == pytest.approx([least + a * a / 2 * (d @ h @ d).item() for a in amounts], rel=1e-10)
    assert (seen.index.name, seen.index.tolist()) == ("amount", amounts)


def test_amount_0_is_the_model_itself():
    model, batches = small_net(), toy_batches()
    known = evaluate(model, batches)
    seen = landscape.loss_along(model, landscape.filter_normalised_direction(model, 0), batches, [0.0, 0.5])
    assert seen.loss[0.0] == pytest.approx(known.loss, rel=1e-6)
    assert seen.top1[0.0] == pytest.approx(known.top1)
    assert seen.loss[0.5] != pytest.approx(known.loss, rel=1e-5)


def trained_a_little(seed):
    """With BatchNorm figures of its own."""
    model = small_net(seed=seed)
    for images, _ in toy_batches(seed=seed, shuffle=True):
        model(images * (1 + seed))
    return model


@pytest.mark.trains
def test_both_ends_of_a_line_are_the_two_models():
    one, other, batches = trained_a_little(0), trained_a_little(1), toy_batches()
    seen = landscape.loss_along(one, landscape.between(one, other), batches, [0.0, 0.5, 1.0])
    for amount, model in ((0.0, one), (1.0, other)):
        known = evaluate(model, batches)
        assert seen.loss[amount] == pytest.approx(known.loss, rel=1e-5)
        assert seen.top1[amount] == pytest.approx(known.top1)
    middle = {n: (a + b) / 2 for (n, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True)}
    half = small_net()
    half.load_state_dict(middle)
    assert seen.loss[0.5] == pytest.approx(evaluate(half, batches).loss, rel=1e-5)


def test_no_line_between_different_architectures():
    with pytest.raises(ValueError, match=r"14\.weight is \(20, 64\) in one and \(10, 64\).*same arguments"):
        landscape.between(small_net(20), small_net(10))
    with pytest.raises(ValueError, match=r"0\.bias is missing in one and \(1,\) in the other"):
        landscape.between(nn.Sequential(nn.Linear(2, 1, bias=False)), nn.Sequential(nn.Linear(2, 1)))


@pytest.mark.parametrize("name", ["14.weight", "nowhere"])
def test_a_direction_of_another_model_does_not_fit(name):
    with pytest.raises(ValueError, match=f"does not fit the model at {name}"):
        landscape.loss_along(small_net(), {name: torch.zeros(10, 64)}, toy_batches(), [0.0])


def test_sharpness_of_a_parabola_at_its_minimum():
    model, batches, h = regression()
    radius = 0.3
    seen = landscape.sharpness(model, batches, radius, steps=60, draws=600, loss=squares)
    scale = radius**2 * model.weight.detach().square().sum().item() / 2
    assert seen.largest == pytest.approx(scale * torch.linalg.eigvalsh(h)[-1].item(), rel=1e-3)
    assert seen.random == pytest.approx(scale * h.trace().item() / D, rel=0.15)  # 600 draws
    least = squares(model(torch.cat([x for x, _ in batches])), torch.cat([y for _, y in batches])).item()
    assert seen.loss == pytest.approx(least)


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_sharpness_of_a_slope_is_the_sum_over_the_filters(steps):
    torch.manual_seed(0)
    model = nn.Linear(D, 3, bias=True, dtype=torch.float64)
    slope, images = torch.randn(3, dtype=torch.float64), torch.rand(5, D, dtype=torch.float64)
    seen = landscape.sharpness(
        model, [(images, torch.zeros(5))], 0.2, steps, loss=lambda outputs, labels: (outputs @ slope).mean()
    )
    gradient = slope[:, None] * images.mean(0)
    best = 0.2 * (filters(model.weight.detach()) * filters(gradient)).sum().item()
    assert seen.largest == pytest.approx(best, rel=1e-3)  # less, because the start is random
    assert 0 < seen.largest <= best * (1 + 1e-9)


def test_no_place_tried_lies_outside_of_the_ball():
    model, radius, tried = small_net(), 0.1, []
    home = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    model.register_forward_pre_hook(
        lambda module, args: tried.append({n: p.detach().clone() for n, p in module.named_parameters()})
    )
    landscape.sharpness(model, toy_batches(), radius, steps=5, draws=2)
    assert len(tried) == 3 * (5 + 2 + 2)  # batches times passes
    share = []
    for place in tried:
        for name, weight in home.items():
            if weight.ndim == 1:
                assert torch.equal(place[name], weight)
            else:
                share.append((filters(place[name] - weight) / filters(weight)).max())
    assert max(share) == pytest.approx(radius, rel=1e-3)


@pytest.mark.trains
def test_ascent_finds_more_than_chance_and_more_in_a_larger_ball():
    model, batches = trained_a_little(0), toy_batches()
    small, large = (landscape.sharpness(model, batches, radius, steps=6) for radius in (0.02, 0.1))
    assert 0 < small.largest < large.largest
    assert small.random < small.largest / 3
    assert landscape.sharpness(model, batches, 0.02, steps=6) == small
    assert landscape.sharpness(model, batches, 0.02, steps=6, seed=1) != small


def test_rescaled_layers_change_the_eigenvalue_and_not_the_sharpness():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(D, 6, bias=False), nn.ReLU(), nn.Linear(6, 3, bias=False)).double()
    batches = [(torch.randn(20, D, dtype=torch.float64), torch.arange(20) % 3)]

    def measured():
        direction = landscape.filter_normalised_direction(model, 0)
        line = landscape.loss_along(model, direction, batches, [-0.5, 0.5]).loss.tolist()
        curvature = landscape.top_eigenvalue(model, batches).value
        return [*astuple(landscape.sharpness(model, batches, 0.1)), *line], curvature

    before, curvature = measured()
    with torch.no_grad():
        model[0].weight *= 8
        model[2].weight /= 8
    after, other_curvature = measured()
    assert after == pytest.approx(before, rel=1e-9)
    assert other_curvature > 3 * curvature


@pytest.mark.parametrize("bias", [False, True])
def test_top_eigenvalue_of_a_regression(bias):
    model, batches, h = regression(bias)
    seen = landscape.top_eigenvalue(model, batches, 100, tolerance=1e-12, loss=squares)
    assert seen.value == pytest.approx(torch.linalg.eigvalsh(h)[-1].item(), rel=1e-9)
    assert seen.error < 1e-4 * seen.value
    assert seen.iterations < 100


@pytest.mark.parametrize(("eigenvalues", "top"), [([1.0, 2, -5], -5), ([4.0, 1, -3], 4), ([0.0, 0], 0)])
def test_top_eigenvalue_is_the_one_of_largest_size(eigenvalues, top):
    torch.manual_seed(0)
    one = [(torch.zeros(2, 1), torch.zeros(2))]
    seen = landscape.top_eigenvalue(Quadratic(eigenvalues), one, 200, tolerance=1e-10, loss=lambda out, y: out.mean())
    assert seen.value == pytest.approx(top, rel=1e-6)


def test_too_few_iterations_show_in_the_error():
    torch.manual_seed(1)
    spectrum = [1.0, 0.9, 0.8, -0.7]
    model, one = Quadratic(spectrum), [(torch.zeros(2, 1), torch.zeros(2))]
    seen = landscape.top_eigenvalue(model, one, 3, loss=lambda out, y: out.mean())
    assert seen.iterations == 3
    assert seen.error > 0.01
    assert min(abs(seen.value - known) for known in spectrum) <= seen.error


def test_top_eigenvalue_of_a_vit_is_that_of_its_whole_hessian():
    model, batches = vit(), vit_batches()
    names, weights = zip(*((n, p.detach()) for n, p in model.named_parameters()), strict=True)
    images, labels = (torch.cat(part) for part in zip(*batches, strict=True))

    def loss(flat):
        parts = flat.split([w.numel() for w in weights])
        place = {n: p.view_as(w) for n, p, w in zip(names, parts, weights, strict=True)}
        return F.cross_entropy(functional_call(model, place, (images,)), labels)

    with sdpa_kernel(SDPBackend.MATH):
        whole = hessian(loss, torch.cat([w.flatten() for w in weights]))
    known = torch.linalg.eigvalsh(whole)  # torch.func.hessian would give one that is not symmetric, by 2 %
    seen = landscape.top_eigenvalue(model, batches, 100, tolerance=1e-6)
    assert seen.value == pytest.approx(known[known.abs().argmax()].item(), rel=1e-4)


def broken_loss(after):
    """Cross-entropy that fails at call number `after`."""
    calls = iter(range(after))

    def loss(logits, labels):
        if next(calls, None) is None:
            raise ArithmeticError("planned")
        return F.cross_entropy(logits, labels)

    return loss


MEASURES = {
    "line": lambda m, b, **o: landscape.loss_along(m, landscape.filter_normalised_direction(m, 0), b, [0.5, 1.0], **o),
    "sharpness": lambda m, b, **o: landscape.sharpness(m, b, 0.1, 2, draws=2, **o),
    "eigenvalue": lambda m, b, **o: landscape.top_eigenvalue(m, b, 2, **o),
}


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("name", MEASURES)
def test_the_model_is_left_as_it_was(name, fails):
    model = trained_a_little(0).train()
    model[1].eval()
    model[4].weight.requires_grad_(False)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = {n: (id(t), t.clone()) for n, t in model.state_dict(keep_vars=True).items()}
    modes = [module.training for module in model.modules()]
    after = {"line": 4, "plane": 5, "sharpness": 10, "eigenvalue": 4}[name]
    if fails:
        with pytest.raises(ArithmeticError, match="planned"):
            MEASURES[name](model, toy_batches(), loss=broken_loss(after))
    else:
        MEASURES[name](model, toy_batches())
    for n, tensor in model.state_dict(keep_vars=True).items():
        assert id(tensor) == before[n][0]
        assert torch.equal(tensor, before[n][1])
    assert [module.training for module in model.modules()] == modes
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["4.weight"]
    assert [n for n, p in model.named_parameters() if p.grad is not None] == ["0.weight"]
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))


@pytest.mark.parametrize("name", MEASURES)
def test_an_iterator_serves_as_well_as_a_list(name):
    model, batches = trained_a_little(0).eval(), toy_batches()
    with torch.no_grad():  # and who calls may have gradients off
        assert repr(MEASURES[name](model, iter(batches))) == repr(MEASURES[name](model, list(batches)))
    with pytest.raises(ValueError, match="no batches"):
        MEASURES[name](model, iter([]))


def test_shared_weights_move_once():
    first = nn.Linear(3, 3, bias=False)
    model, other = (nn.Sequential(layer, nn.ReLU(), layer) for layer in (first, nn.Linear(3, 3, bias=False)))
    batches = [(torch.rand(4, 3), torch.arange(4) % 3)]
    seen = landscape.loss_along(model, landscape.between(model, other), batches, [1.0])
    assert seen.loss[1.0] == pytest.approx(F.cross_entropy(other(batches[0][0]), batches[0][1]).item(), rel=1e-5)


@pytest.mark.parametrize("bad", [{"radius": 0}, {"radius": math.inf}, {"steps": 0}, {"draws": 0}])
def test_bad_settings(bad):
    with pytest.raises(ValueError, match="need radius > 0, steps and draws of 1 or more"):
        landscape.sharpness(small_net(), toy_batches(), **({"radius": 0.1} | bad))
    with pytest.raises(ValueError, match="need 1 iteration or more, got 0"):
        landscape.top_eigenvalue(small_net(), toy_batches(), 0)


def test_a_loss_that_is_not_finite_is_an_error():
    model = small_net()
    with torch.no_grad():
        model[14].bias[0] = torch.nan
    with pytest.raises(FloatingPointError, match="own weights is nan"):
        landscape.sharpness(model, toy_batches(), 0.1)
