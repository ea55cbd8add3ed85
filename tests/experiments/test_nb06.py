"""Notebook 06's recipes: the schedule, what is compared starts alike, and where pre-trained weights come from."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from helpers.course.run import Run
from helpers.experiments import nb06 as scenes
from helpers.models import resnet18


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.setenv("CHECKPOINT_DIR", str(tmp_path))
    return Run("06_custom_conv", "toy", seed=0)


def test_schedule_climbs_to_its_rate_and_falls_to_nothing():
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.5)
    schedule = scenes.warmed_cosine(optimizer, 120)
    rates = []
    for _ in range(120):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:10] == pytest.approx([0.05 * n for n in range(1, 11)])  # a twelfth
    assert max(rates) == pytest.approx(0.5)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[65] == pytest.approx(0.25)  # half-way down
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0)


def start_of(run, monkeypatch, name):
    """The first weights that a rival's training is given."""
    seen = {}
    monkeypatch.setattr(scenes, "learn", lambda run, title, start, **options: seen.update(start=start, **options))
    scenes.rival(run, name)
    return seen


def test_either_convolution_starts_from_the_same_weights(run, monkeypatch):
    theirs, ours = (start_of(run, monkeypatch, name) for name in ("SimpleNet", "SimpleNet, our convolution"))
    assert type(ours["start"].network[0]).__name__ == "CustomConv2d"
    state = theirs["start"].state_dict()
    assert all(torch.equal(value, state[key]) for key, value in ours["start"].state_dict().items())
    assert (theirs["epochs"], theirs["images"]) == (ours["epochs"], ours["images"])


def test_hardening_attacks_the_model_that_learns(run, monkeypatch):
    seen = {}
    trained = scenes.Trained(scenes.scene_model(nn.Flatten()), None)
    monkeypatch.setattr(scenes, "simple_net", lambda run: trained)
    monkeypatch.setattr(scenes, "learn", lambda run, title, start, **options: seen.update({title: (start, options)}))
    for kind in scenes.HARDENING:
        scenes.hardened(run, kind)
    (_, options), half, everything, wide = seen.values()
    assert options["attack"] is None
    assert half[1]["attack"].attack.model is half[0] is trained.model
    assert everything[1]["attack"].model is everything[0]
    assert (half[1]["attack"].attack.steps, everything[1]["attack"].steps) == (5, 3)
    assert wide[1]["attack"].attack.eps == 4 * everything[1]["attack"].eps == pytest.approx(8 / 255)


def test_imagenet_weights_from_the_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    state = resnet18(1000).state_dict()
    (tmp_path / "weights").mkdir()
    save_file(state, tmp_path / "weights" / "resnet18.safetensors")
    found, source = scenes._imagenet_state()
    assert source == "weights/resnet18.safetensors"
    assert torch.equal(found["conv1.weight"], state["conv1.weight"])


def test_without_a_network_there_are_no_imagenet_weights(monkeypatch, tmp_path):
    def unreachable(*arguments, **options):
        raise OSError("no network")

    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", unreachable)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    assert scenes._imagenet_state() == (None, "")


def test_a_pretrained_resnet_keeps_everything_but_the_head(run, monkeypatch):
    state = resnet18(7).state_dict()
    run.profile = "lite"
    toy = scenes.scenes(Run("06_custom_conv", "toy", seed=0))
    monkeypatch.setattr(scenes, "scenes", lambda run: toy)
    monkeypatch.setattr(scenes, "_imagenet_state", lambda: (state, "somewhere"))
    model, source = scenes.pretrained_resnet(run)
    assert source == "somewhere"
    assert torch.equal(model.network.layer3[0].conv1.weight, state["layer3.0.conv1.weight"])
    assert model.network.fc.out_features == len(toy.train.classes)


@pytest.mark.trains
def test_a_rival_is_trained_and_loaded(run):
    trained = scenes.rival(run, "SimpleNet")
    again = scenes.rival(run, "SimpleNet")
    assert {"val_top1", "val_top5"} <= set(trained.history)
    assert trained.history.equals(again.history)
    weights = zip(trained.model.parameters(), again.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in weights)
