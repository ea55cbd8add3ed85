"""A model and its card: what is read is what was written, or one clear line."""

import json

import pytest
import torch

from helpers.models import load_model, normalized, save_model, small_cnn
from helpers.models.saved import BUILDS
from helpers.training.checkpoints import CheckpointError, weights_checksum

MEAN, STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
SMALL = ("small_cnn", {"classes": 4}, {"lr": 1e-3, "epochs": 3})


def small(seed=0):
    torch.manual_seed(seed)
    return normalized(small_cnn(4), MEAN, STD)


@pytest.fixture
def folder(tmp_path):
    save_model(small(), tmp_path / "01_owner.toy/clean", *SMALL, notebook="01_owner")
    return tmp_path / "01_owner.toy/clean"


ARGUMENTS = {
    "resnet18": {"classes": 5, "stem": "half"},
    "small_cnn": {"classes": 5, "dropout": 0.5},
    "VisionTransformer": {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 24,
        "depth": 1,
        "num_heads": 2,
        "num_classes": 5,
    },
    "load_vit": {"name": "vit_small_patch14", "img_size": 28, "num_classes": 5},
    "SimpleViT": {"classes": 5, "image_size": 32, "patch_size": 8, "dim": 48},
} | {build: {"classes": 5} for build in ("CifarResNet", "SimpleNet", "CustomNet", "CustomNet2", "MyNet")}


@pytest.mark.parametrize("build", BUILDS)
def test_a_model_comes_back_as_it_was(build, tmp_path):
    torch.manual_seed(1)
    model = normalized(BUILDS[build](**ARGUMENTS[build]), MEAN, STD)
    save_model(model, tmp_path / "net", build, ARGUMENTS[build], {})
    torch.manual_seed(2)
    expected = torch.rand(1)
    torch.manual_seed(2)
    loaded = load_model(tmp_path / "net").model
    assert torch.equal(torch.rand(1), expected)  # loading draws nothing from the caller's generator
    side = ARGUMENTS[build].get("img_size", 32)
    images = torch.rand(2, 3, side, side)
    with torch.no_grad():
        assert torch.equal(loaded(images), model.eval()(images))


def test_the_card(folder):
    card = json.loads((folder / "model.json").read_text())
    assert card == {
        "build": "small_cnn",
        "arguments": {"classes": 4},
        "mean": [*MEAN],
        "std": [*STD],
        "settings": {"lr": 1e-3, "epochs": 3},
        "notebook": "01_owner",
        "checksum": weights_checksum(small()),
    }
    assert load_model(folder).card == card


def test_what_could_not_be_loaded_again_is_not_saved(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    faults = {
        "behind its normalisation": (small().network, *SMALL),
        "not what small_cnn": (small(), "small_cnn", {"classes": 5}, {}),
        "unknown constructor 'eval': it is none of resnet18, small_cnn": (small(), "eval", {"classes": 4}, {}),
    }
    for said, arguments in faults.items():
        with pytest.raises(ValueError, match=said):
            save_model(arguments[0], folder, *arguments[1:])
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_model(small(seed=1), folder, "small_cnn", {"classes": 4}, {"loss": torch.nn.functional.cross_entropy})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def edited(folder, **changes):
    card = json.loads((folder / "model.json").read_text()) | changes
    (folder / "model.json").write_text(json.dumps(card))


FAULTS = {
    "no model was saved in 01_owner.toy/clean": lambda folder: (folder / "model.json").unlink(),
    "no weights at clean/model.safetensors": lambda folder: (folder / "model.safetensors").unlink(),
    "clean/model.json is damaged: Expecting": lambda folder: (folder / "model.json").write_text('{"build": '),
    "clean/model.json is damaged: it is no card": lambda folder: (folder / "model.json").write_text("[1]"),
    "model.safetensors does not fit this model or is damaged": lambda folder: (
        folder / "model.safetensors"
    ).write_bytes((folder / "model.safetensors").read_bytes()[:1000]),
    "describes no model known here: unknown constructor '__import__'": lambda folder: edited(
        folder, build="__import__", arguments={"name": "os"}
    ),
    "describes no model known here: .*unexpected keyword": lambda folder: edited(folder, arguments={"sizes": 4}),
    "does not fit this model": lambda folder: edited(folder, arguments={"classes": 5}),
    "model.safetensors is not the file that model.json was written with": lambda folder: edited(folder, checksum="0"),
}


@pytest.mark.parametrize("said", FAULTS)
def test_each_fault_is_one_clear_error(said, folder):
    FAULTS[said](folder)
    with pytest.raises(CheckpointError, match=said):
        load_model(folder)


def test_weights_without_their_card_are_noticed(folder, tmp_path):
    """As after a kill between the two files: new weights beside the card of the old ones."""
    save_model(small(seed=1), tmp_path / "other", *SMALL)
    (folder / "model.safetensors").write_bytes((tmp_path / "other/model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="not the file that"):
        load_model(folder)
