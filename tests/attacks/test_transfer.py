"""Images attacked once: cached, within the budget, told apart; and the surrogate they are made on."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchattacks
from torch import Tensor, nn

from helpers.attacks.transfer import resampled, transfer_images
from helpers.data import ImageSet
from helpers.models.cifar_resnet import Block, CifarResNet
from helpers.training.checkpoints import CheckpointError


@pytest.fixture
def data() -> ImageSet:
    pixels = torch.randint(0, 256, (30, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ImageSet(pixels, torch.arange(30) % 3, ("a", "b", "c"), "made", "test", "memory")


@pytest.fixture
def surrogate() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).eval()


class Counting:
    """Any attack, counting its calls."""

    def __init__(self, attack) -> None:
        self.attack, self.model, self.calls = attack, attack.model, 0

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        self.calls += 1
        return self.attack(images, labels)

    def __str__(self) -> str:
        return str(self.attack)


def test_made_once_and_within_the_budget(data: ImageSet, surrogate: nn.Module, tmp_path) -> None:
    attack = Counting(torchattacks.PGD(surrogate, eps=8 / 255, alpha=2 / 255, steps=7))
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = transfer_images(data, attack, tmp_path / "made", batch=10)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert attack.calls == 3
    again = transfer_images(data, attack, tmp_path / "made", batch=10)
    assert attack.calls == 3
    assert torch.equal(first.images, again.images)
    gap = (first.images.int() - data.images.int()).abs()
    assert gap.max() == 8
    loss = [F.cross_entropy(surrogate(part.images / 255), data.labels) for part in (data, first)]
    assert loss[1] > loss[0]
    assert torch.equal(first.labels, data.labels)
    assert first.source == "memory, attacked"
    assert len(list((tmp_path / "made").iterdir())) == 1


def test_another_attack_model_or_set_makes_another_file(data: ImageSet, surrogate: nn.Module, tmp_path) -> None:
    make = lambda eps: torchattacks.PGD(surrogate, eps=eps / 255, alpha=2 / 255, steps=2)  # noqa: E731
    transfer_images(data, make(8), tmp_path / "made")
    transfer_images(data, make(4), tmp_path / "made")
    transfer_images(data[:20], make(8), tmp_path / "made")
    transfer_images(data, make(8), tmp_path / "made", seed=1)
    with torch.no_grad():
        surrogate[1].bias.add_(1.0)
    transfer_images(data, make(8), tmp_path / "made")
    assert len(list((tmp_path / "made").iterdir())) == 5


def test_a_damaged_file_is_named(data: ImageSet, surrogate: nn.Module, tmp_path) -> None:
    attack = torchattacks.PGD(surrogate, steps=1)
    transfer_images(data, attack, tmp_path / "made")
    (path,) = (tmp_path / "made").iterdir()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=f"{path.name} is damaged"):
        transfer_images(data, attack, tmp_path / "made")


def test_resampled(data: ImageSet) -> None:
    assert torch.equal(resampled(data, 8).images, data.images)
    flat = ImageSet(torch.full_like(data.images, 77), data.labels, data.classes)
    assert torch.equal(resampled(flat, 20).images, flat.images)
    larger = F.interpolate(data.images / 255, (20, 20), mode="bilinear", align_corners=False)
    wanted = F.interpolate(larger, (8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(resampled(data, 20).images / 255, wanted, rtol=0, atol=0.51 / 255)


def test_resnet20_is_the_papers(data: ImageSet) -> None:
    network = CifarResNet().eval()
    assert sum(parameter.numel() for parameter in network.parameters()) == 269_722
    assert network(data.images / 255).shape == (30, 10)
    x = torch.randn(2, 16, 6, 6)
    shortcut = Block(16, 32)._shortcut(x)
    assert shortcut.shape == (2, 32, 3, 3)
    assert torch.equal(shortcut[:, 8:24], x[:, :, ::2, ::2])
    assert (shortcut[:, :8] == 0).all()
    assert (shortcut[:, 24:] == 0).all()
    assert torch.equal(Block(16, 16)._shortcut(x), x)
