"""Networks: sizes as the assignments give them, normalisation inside."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from helpers.models import Normalize, normalized, resnet18, small_cnn
from helpers.models.resnet import OnePositionConv2d, skip_idle_taps
from helpers.models.small import LAST_CONV


def test_resnet18_has_the_assigned_number_of_parameters():
    assert sum(p.numel() for p in resnet18(100).parameters()) == 11_227_812


@pytest.mark.parametrize(("stem", "side"), [("imagenet", 8), ("half", 16), ("small", 32)])
def test_stems(stem, side):
    network = resnet18(10, stem)
    seen = []
    network.layer1.register_forward_hook(lambda module, args, out: seen.append(out.shape))
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert seen == [(2, 64, side, side)]


def test_unknown_stem():
    with pytest.raises(ValueError, match="imagenet, half, small"):
        resnet18(10, "tiny")


@pytest.mark.parametrize(
    ("kernel", "padding", "stride", "height", "width", "skips"),
    [
        (3, 1, 1, 1, 1, True),  # the last stage of a ResNet-18 on 32 px
        (3, 1, 2, 2, 2, True),
        (3, 1, 2, 1, 2, True),
        (7, 3, 2, 2, 1, True),
        (3, 0, 1, 3, 3, True),
        (1, 0, 1, 1, 1, True),
        (3, 1, 1, 2, 2, False),  # four positions
        (3, 1, 2, 3, 3, False),
        (3, 2, 9, 2, 2, False),  # the only window does not reach the whole image
    ],
)
def test_skipped_taps_change_neither_outputs_nor_gradients(kernel, padding, stride, height, width, skips, monkeypatch):
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 5, kernel, stride, padding).double()
    ours, images = skip_idle_taps(deepcopy(plain)), torch.rand(2, 4, height, width, dtype=torch.float64)
    found = []
    for layer in (plain, ours):
        own = images.clone().requires_grad_()
        out = layer(own)
        found.append([out, *torch.autograd.grad(out.pow(2).sum(), [own, *layer.parameters()])])
    assert type(ours) is OnePositionConv2d
    for ours_is, plain_is in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours_is, plain_is, rtol=0, atol=1e-12)
    monkeypatch.setattr(nn.Conv2d, "forward", lambda *args: pytest.fail("multiplied padding"))
    if skips:
        ours(images)
    else:
        with pytest.raises(pytest.fail.Exception):
            ours(images)


def test_only_plain_convolutions_skip():
    kept = [nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3, dilation=2), nn.Conv2d(4, 4, 3, padding="same"),
            nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), nn.ConvTranspose2d(4, 4, 3)]  # fmt: skip
    network = skip_idle_taps(nn.Sequential(*kept, resnet18(10)))
    assert [type(layer) for layer in network[:-1]] == [nn.Conv2d] * 4 + [nn.ConvTranspose2d]
    assert all(type(layer) is not nn.Conv2d for layer in network[-1].modules())


def test_small_cnn_keeps_a_quarter_of_the_side():
    network, seen = small_cnn(7).eval(), []
    network[LAST_CONV].register_forward_hook(lambda module, args, out: seen.append(out.shape))
    assert network(torch.rand(2, 3, 32, 24)).shape == (2, 7)
    assert seen == [(2, 64, 8, 6)]


def test_normalize_per_channel_and_without_parameters():
    layer = Normalize((0.1, 0.2, 0.3), (0.5, 1.0, 2.0))
    images = torch.rand(2, 3, 4, 4)
    expected = torch.stack([(images[:, c] - m) / s for c, (m, s) in enumerate(((0.1, 0.5), (0.2, 1.0), (0.3, 2.0)))], 1)
    assert torch.allclose(layer(images), expected)
    assert list(layer.parameters()) == []
    assert set(layer.state_dict()) == {"mean", "std"}  # saved with the weights, moved with the model


def test_normalized_keeps_the_network_reachable():
    network = resnet18(10)
    model = normalized(network, (0.5,) * 3, (0.5,) * 3).eval()
    images = torch.rand(1, 3, 32, 32)
    assert model.network is network
    assert torch.allclose(model(images), network((images - 0.5) / 0.5))
