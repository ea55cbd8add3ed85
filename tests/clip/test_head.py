"""A learned head starts as logistic regression on clean images."""

from types import SimpleNamespace

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from helpers.clip import LearnedHead
from helpers.clip.head import fit_head
from helpers.data import Batches, ImageSet


class Bright(nn.Module):
    """An image tower: the mean of each channel, at length 1."""

    def forward(self, images):
        return nn.functional.normalize(images.mean((2, 3)), dim=1)


@pytest.mark.trains
def test_the_head_starts_as_logistic_regression():
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(60) % 3
    pixels = torch.randint(0, 100, (60, 3, 8, 8), dtype=torch.uint8, generator=generator)
    pixels[torch.arange(60), labels] += 120  # another channel is bright in each class
    base = SimpleNamespace(pixels=nn.Identity(), tower=Bright(), scale=100.0, vectors=torch.eye(3))
    model = LearnedHead(base)
    fit_head(model, Batches(ImageSet(pixels, labels, ("a", "b", "c")), 20))
    with torch.no_grad():
        assert (model(pixels / 255).argmax(1) == labels).float().mean() > 0.9
    vectors = 10 * Bright()(pixels / 255).numpy()  # at scale 100
    wanted = LogisticRegression(max_iter=1_000).fit(vectors, labels.numpy())
    torch.testing.assert_close(model.head.weight.detach(), torch.from_numpy(wanted.coef_).float())
    torch.testing.assert_close(model.head.bias.detach(), torch.from_numpy(wanted.intercept_).float())
    assert model.head.weight.requires_grad
