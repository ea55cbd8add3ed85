"""The ResNet-20 of CIFAR-10: from a file, from the hub without its question, or one error that says what to do."""

import pytest
import torch

from helpers.models.cifar_resnet import CifarResNet
from helpers.models.pretrained_resnet20 import FILE, HUB_MEAN, HUB_STD, pretrained_resnet20
from helpers.training.checkpoints import CheckpointError, save_weights


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """The folder in which the file is looked for, empty."""
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def test_from_a_file_behind_imagenets_normalisation(weights):
    torch.manual_seed(0)
    network = CifarResNet().eval()
    save_weights(network, weights / FILE)
    model, source = pretrained_resnet20()
    assert source == f"weights/{FILE}"
    assert not any(parameter.requires_grad for parameter in model.parameters())
    images = torch.rand(2, 3, 32, 32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        wanted = network((images - mean.view(3, 1, 1)) / std.view(3, 1, 1))
        torch.testing.assert_close(model(images), wanted)


def test_from_the_hub_without_validation_and_with_its_own_normalisation(weights, monkeypatch):
    asked = {}

    def load(repository, name, **options):
        asked.update(options, repository=repository, name=name)
        return CifarResNet()

    monkeypatch.setattr(torch.hub, "load", load)
    model, source = pretrained_resnet20()
    assert (asked["name"], asked["skip_validation"]) == ("cifar10_resnet20", True)
    assert source.startswith("torch hub chenyaofo/")
    assert not model.training
    torch.testing.assert_close(model.normalize.mean.flatten(), torch.tensor(HUB_MEAN))
    torch.testing.assert_close(model.normalize.std.flatten(), torch.tensor(HUB_STD))


def test_from_a_file_that_is_none(weights):
    (weights / FILE).write_bytes(b"no weights at all")
    with pytest.raises(CheckpointError, match="no ResNet-20 of the kind known"):
        pretrained_resnet20()


def test_without_file_or_network_one_error_says_what_to_do(weights, monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(torch.hub, "load", no_network)
    with pytest.raises(CheckpointError, match=rf"{FILE} is not in .*put the file there"):
        pretrained_resnet20()
