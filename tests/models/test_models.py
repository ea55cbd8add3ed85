"""Networks: sizes as the assignments give them, normalisation inside."""

import pytest
import torch

from helpers.models import Normalize, normalized, resnet18, small_cnn
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
