"""Frozen encoders: always in evaluation mode, regions row by row; features are computed once and never mixed up."""

import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from helpers.captions import encoder as encoder_module
from helpers.captions import features
from helpers.captions.encoder import GridEncoder, load_encoder, toy_network
from helpers.captions.features import cached_features
from helpers.data import toy
from helpers.data.captions import toy_captions
from helpers.data.folders import DataError
from helpers.training.checkpoints import CheckpointError


def body():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 4, 4), nn.BatchNorm2d(5), nn.Dropout(0.5))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "features"


def encoder(size=16, grid=None):
    return GridEncoder(body(), size, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), grid)


def scenes(count=10, seed=0):
    return toy_captions(toy.draw(count, 16, seed))


def test_regions_are_the_map_row_by_row():
    found, images = encoder(), torch.rand(2, 3, 16, 16)
    expected = found.body(
        (images - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    )
    regions = found(images)
    assert regions.shape == (2, 16, 5)
    assert torch.allclose(regions[1, 4 * 2 + 3], expected[1, :, 2, 3], atol=1e-6)
    pooled = encoder(grid=2)(images)
    assert torch.allclose(pooled[0, 1], expected[0, :, :2, 2:].mean((1, 2)), atol=1e-6)


def test_training_mode_does_not_reach_it():
    model = nn.Sequential(encoder(), nn.Dropout())
    model.train()
    images = torch.rand(4, 3, 16, 16)
    first = model[0](images)
    assert torch.equal(first, model[0](images))  # no dropout
    assert torch.equal(model[0].body[1].running_mean, torch.zeros(5))  # no drift
    assert not model[0].training
    assert not any(parameter.requires_grad for parameter in model[0].parameters())


def test_images_of_any_size():
    assert encoder()(torch.rand(1, 3, 40, 23)).shape == (1, 16, 5)
    assert encoder().resized(torch.ones(1, 3, 9, 31)).max() <= 1


def test_features_are_computed_once_and_are_the_encoders(folder, monkeypatch):
    images, calls = scenes(), []
    run = features.encode
    monkeypatch.setattr(features, "encode", lambda *args: calls.append(args) or run(*args))
    found = cached_features(encoder(), images, folder, batch=4)
    assert found.shape == (10, 16, 5)
    assert found.dtype == np.float16
    assert isinstance(found, np.memmap)
    expected = encoder()(torch.stack([images.image(n) for n in range(10)]) / 255)
    assert torch.allclose(torch.from_numpy(np.array(found)).float(), expected, atol=2e-3)
    assert len(calls) == 3
    assert np.array_equal(cached_features(encoder(), images, folder, batch=4), found)
    assert len(calls) == 3


@pytest.mark.parametrize("other", ["weights", "size", "grid", "images", "order"])
def test_other_features_go_to_another_file(folder, other):
    cached_features(encoder(), scenes(), folder)
    changed = encoder(size=32 if other == "size" else 16, grid=2 if other == "grid" else None)
    if other == "weights":
        changed.body[0].bias.data[0] += 1
    images = scenes(seed=1) if other == "images" else scenes()[range(9, -1, -1)] if other == "order" else scenes()
    cached_features(changed, images, folder)
    assert len(list(folder.iterdir())) == 2


def test_nothing_is_left_half_done(folder, monkeypatch):
    run = features.encode

    def stopped(model, images, places):
        if places.start > 0:
            raise KeyboardInterrupt
        return run(model, images, places)

    monkeypatch.setattr(features, "encode", stopped)
    with pytest.raises(KeyboardInterrupt):
        cached_features(encoder(), scenes(), folder, batch=4)
    assert not list(folder.iterdir())


def test_features_that_float16_cannot_hold(folder):
    broken = encoder()
    broken.body[0].bias.data[:] = 1e6
    with pytest.raises(FloatingPointError, match=r"^features of scene_0000.png to scene_0003.png are NaN"):
        cached_features(broken, scenes(), folder, batch=4)
    with pytest.raises(FloatingPointError, match=r"^features of scene_0000.png are NaN"):
        cached_features(broken, scenes(), folder, batch=1)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("fails", [False, True])
def test_the_encoder_goes_back_to_its_device(folder, monkeypatch, fails):
    moves, model = [], encoder()
    monkeypatch.setattr(model, "to", lambda device: moves.append(str(device)) or model)
    if fails:
        model.body[0].bias.data[:] = torch.nan
        with pytest.raises(FloatingPointError):
            cached_features(model, scenes(), folder, device="cuda:1")
    else:
        cached_features(model, scenes(), folder, device="cuda:1")
    assert moves == ["cuda:1", "cpu"]


def test_a_broken_image_is_named(folder):
    images = scenes()
    object.__setattr__(images, "read", lambda name: b"no image")
    with pytest.raises(DataError, match=r"scene_0000.png is not an image"):
        cached_features(encoder(), images, folder)


def test_toy_encoder_is_the_network_without_its_head():
    network = toy_network().eval()
    images = torch.rand(2, 3, 32, 32)
    regions = load_encoder("toy", network=network)(images)
    assert regions.shape == (2, 64, 64)
    pooled = regions.amax(1)  # the network's head takes the largest value of each channel
    assert torch.allclose(network[-1](pooled), network((images - 0.5) / 0.5), atol=1e-5)


def test_lite_encoder_has_the_weights_of_the_file(data_root):
    import timm

    torch.manual_seed(3)
    network = timm.create_model("tf_efficientnet_lite0").eval()
    (data_root / "weights").mkdir()
    save_file(network.state_dict(), data_root / "weights" / "efficientnet_lite0.safetensors")
    images = torch.rand(1, 3, 64, 64)
    found = load_encoder("efficientnet_lite0", size=64)
    assert found.size == 64
    with torch.no_grad():
        expected = network.forward_features((images - 0.5) / 0.5)
    assert torch.allclose(found(images), expected.flatten(2).transpose(1, 2), atol=1e-5)


def test_torchvisions_network_without_its_head(monkeypatch):
    from torchvision.models import efficientnet_b0

    network = efficientnet_b0().eval()
    monkeypatch.setattr(encoder_module, "_torchvision", lambda name: network)
    images = torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(part).view(3, 1, 1) for part in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    regions = load_encoder("efficientnet_b0", size=64)(images)
    with torch.no_grad():
        assert torch.allclose(network.classifier(regions.mean(1)), network((images - mean) / std), atol=1e-4)


def test_a_download_says_nothing_of_this_machine(monkeypatch, capsys):
    monkeypatch.setattr(
        encoder_module, "get_model", lambda *args, **options: sys.stdout.write("to /home/me") and "network"
    )
    assert encoder_module._torchvision("efficientnet_b7") == "network"
    assert capsys.readouterr().out == ""


def test_no_encoder(monkeypatch):
    with pytest.raises(ValueError, match="unknown encoder 'resnet'"):
        load_encoder("resnet")

    def refuse(*args, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(encoder_module, "get_model", refuse)
    with pytest.raises(CheckpointError, match=r"efficientnet_b7 .*no route.*efficientnet_lite0"):
        load_encoder("efficientnet_b7")
