"""Drawings say what the model and the mathematics say: counts, shapes, dual norms."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.text import Text
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from helpers import plotting
from helpers.models import normalized, resnet18
from helpers.plotting import diagrams


@pytest.fixture(autouse=True)
def _style():
    plotting.use_style()


def words(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def counts(figure):
    """The numbers in the row named `parameters`."""
    row = next(text for text in figure.findobj(Text) if text.get_text() == "parameters").get_position()[1]
    found = [text.get_text() for text in figure.findobj(Text) if text.get_position()[1] == row]
    return [int(word.replace(",", "")) for word in found if re.fullmatch(r"[\d,]+", word)]


def tiny(**arguments):
    settings = {"img_size": 24, "patch_size": 8, "embed_dim": 12, "depth": 3, "num_heads": 2, "num_classes": 7}
    return VisionTransformer(**settings | arguments)


@pytest.mark.parametrize("p", [0.5, 1, 1.5, 2, 3, 10])
def test_best_in_ball_is_the_best_of_all_directions(p):
    gradient = np.array([0.3, -0.8])
    best = diagrams.best_in_ball(gradient, p)
    assert (np.abs(best) ** p).sum() ** (1 / p) == pytest.approx(1)
    angle = np.linspace(0, 2 * np.pi, 100_001)
    around = np.stack([np.cos(angle), np.sin(angle)])
    around /= (np.abs(around) ** p).sum(0) ** (1 / p)
    assert gradient @ best == pytest.approx((gradient @ around).max(), abs=1e-6)


def test_balls_are_unit_balls_and_name_the_dual_norm():
    figure = diagrams.lp_balls((1, 2, 100))
    for axis, order in zip(figure.axes, (1, 2, np.inf), strict=True):
        edge = axis.patches[0].get_xy()
        np.testing.assert_allclose(np.linalg.norm(edge, order, axis=1), 1, atol=1e-9)
    labels = [axis.get_xlabel() for axis in figure.axes]
    duals = [np.linalg.norm(diagrams.GRADIENT, order) for order in (np.inf, 2, 1)]
    for label, value, name in zip(labels, duals, ("\\infty", "2", "1"), strict=True):
        assert f"= {value:.2f}" in label
        assert f"\\|g\\|_{{{name}}}" in label
    assert "not a norm" in diagrams.lp_balls((0.5,)).axes[0].get_xlabel()


@pytest.mark.parametrize("ps", [(), (0,), (1, -2)])
def test_balls_need_a_positive_p(ps):
    with pytest.raises(ValueError, match="above 0"):
        diagrams.lp_balls(ps)


def test_sharp_minimum_has_the_larger_gap():
    axis = diagrams.sharp_and_flat().axes[0]
    gaps = [np.ptp(line.get_ydata()) for line in axis.lines if len(line.get_ydata()) == 2]
    assert gaps[0] > 5 * gaps[1] > 0
    assert [word.split()[-2] for word in words(axis.figure) if "gap" in word] == ["large", "small"]


@pytest.mark.parametrize(("stem", "first"), [("imagenet", "64 × 8 × 8"), ("small", "64 × 32 × 32")])
def test_resnet_diagram_counts_every_parameter_once_and_shows_shapes(stem, first):
    model = resnet18(10, stem)
    figure = diagrams.resnet18_diagram(normalized(model, [0.5] * 3, [0.2] * 3), side=32)
    total = sum(p.numel() for p in model.parameters())
    assert sum(counts(figure)) == total
    said = words(figure)
    assert any(f"{total:,} parameters" in word for word in said)
    assert said.count(first) == 2  # stem and stage 1
    assert {"3 × 32 × 32", "512 × 1 × 1", "linear\nto 10"} <= set(said)


def test_vit_diagram_counts_every_parameter_once_and_shows_shapes():
    for arguments, tokens in (({}, 10), ({"reg_tokens": 4}, 14)):
        model = tiny(**arguments)
        figure = diagrams.vit_diagram(model)
        assert sum(counts(figure)) == sum(p.numel() for p in model.parameters())
        said = words(figure)
        assert said.count(f"{tokens} × 12") == 2  # tokens, and the encoder's output
        assert "self-attention\n2 heads of 6" in said
        assert "9 × 12" in said  # patches
        assert any("3 encoder blocks" in word for word in said)


def test_layer_scale_is_drawn_where_the_model_has_it():
    assert "layer\nscale" not in words(diagrams.vit_diagram(tiny()))
    assert words(diagrams.vit_diagram(tiny(init_values=0.1))).count("layer\nscale") == 2


def test_a_diagram_leaves_the_model_as_it_was():
    model = resnet18(10).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    diagrams.resnet18_diagram(model)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("draw", [diagrams.resnet18_diagram, diagrams.vit_diagram])
def test_other_models_raise(draw):
    with pytest.raises(ValueError, match="diagram needs"):
        draw(nn.Linear(2, 2))


def test_deeper_resnets_raise():
    from torchvision.models import resnet34

    with pytest.raises(ValueError, match="ResNet-18"):
        diagrams.resnet18_diagram(resnet34())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_diagrams_are_saved_without_a_warning(name, tmp_path):
    figure = diagrams.resnet18_diagram(resnet18(10)) if name == "resnet" else diagrams.vit_diagram(tiny())
    for _ in range(2):  # a notebook saves a figure and then shows it
        figure.savefig(tmp_path / "a.png", bbox_inches="tight")


def test_figures_are_closed():
    before = plt.get_fignums()
    diagrams.lp_balls()
    diagrams.sharp_and_flat()
    diagrams.vit_diagram(tiny())
    assert plt.get_fignums() == before
