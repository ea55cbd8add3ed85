"""ResNet-18 and ViT in blocks. Every shape and every count is read from the model that is passed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock

from ..contract import eval_mode
from .sheet import BLUE, GREEN, GREY, ORANGE, PINK, RED, WIDTH, Sheet, count, new_sheet
from .style import closed


def resnet18_diagram(model: nn.Module, side: int = 32) -> Figure:
    """ResNet-18: stem, four stages of two basic blocks, head, and what is inside of the two kinds of block.

    Args:
        model: torchvision's ResNet of basic blocks, two a stage, with any stem; also inside another module.
        side: of the images, in pixels; decides the shapes.

    Raises:
        ValueError: `model` holds no such ResNet.
    """
    network = _inside(model, ResNet)
    stages = [getattr(network, f"layer{number}") for number in (1, 2, 3, 4)]
    if any(len(stage) != 2 or not isinstance(stage[0], BasicBlock) for stage in stages):
        raise ValueError("the diagram is of a ResNet with two basic blocks a stage: pass a ResNet-18")
    stem = nn.ModuleList([network.conv1, network.bn1, network.maxpool])
    seen = _shapes(network, {"stem": network.maxpool, **dict(network.named_children())}, side)
    pooled = "" if isinstance(network.maxpool, nn.Identity) else "\nmax-pooling"
    sheet = new_sheet(5.0, f"ResNet-18: {count(network):,} parameters, here for images of {side} × {side} pixels")
    columns = [
        ("images", 0.75, "", (3, side, side), None, GREY),
        ("stem", 1.2, f"conv {_kernel(network.conv1)}\nBN, ReLU{pooled}", seen["stem"], stem, ORANGE),
        *((f"stage {i}", 1.3, "", seen[f"layer{i}"], stage, BLUE) for i, stage in enumerate(stages, 1)),
        ("pooling", 0.8, "mean over\nH × W", seen["avgpool"], None, GREY),
        ("head", 0.8, f"linear\nto {network.fc.out_features}", seen["fc"], network.fc, GREEN),
    ]
    places = sheet.row(columns, y=3.1, height=1.15)
    for (x, width), stage in zip(places[2:6], stages, strict=True):
        _two_blocks(sheet, x, width, stage)
    plain = next(block for stage in stages for block in stage if block.downsample is None)
    _basic_block(sheet, 0.25, plain, "A block that keeps its shape: the shortcut is the identity")
    changing = [block for stage in stages for block in stage if block.downsample is not None]
    if changing:
        _basic_block(sheet, 5.7, changing[0], "A block that changes it (dashed): the shortcut is a convolution")
    return closed(sheet.axis.figure)


def vit_diagram(model: nn.Module) -> Figure:
    """A vision transformer: patches, tokens, encoder, head, and what is inside of one encoder block.

    Args:
        model: timm's VisionTransformer of pre-norm blocks, at the image size that it was built for; also inside another
            module.

    Raises:
        ValueError: `model` holds no such transformer.
    """
    network = _inside(model, VisionTransformer)
    if not all(isinstance(block, Block) for block in network.blocks):
        raise ValueError("the diagram is of a ViT with plain pre-norm blocks (timm's Block)")
    height, width = network.patch_embed.img_size
    parts = {"patches": network.patch_embed, "tokens": network.blocks[0], "head": network.head}
    seen = _shapes(network, parts, (height, width))
    added = [t for t in (network.cls_token, network.reg_token, network.pos_embed, network.norm_pre) if t is not None]
    last = [module for module in (network.norm, network.fc_norm, network.attn_pool) if module is not None]
    patch = f"conv {_kernel(network.patch_embed.proj)}:\none token a patch"
    sheet = new_sheet(5.1, f"Vision transformer: {count(network):,} parameters, images of {height} × {width} pixels")
    columns = [
        ("images", 0.95, "", (3, height, width), None, GREY),
        ("patch embedding", 1.55, patch, seen["patches"], network.patch_embed, ORANGE),
        ("tokens", 1.6, _token_text(network), seen["tokens"], added, PINK),
        ("encoder", 1.75, f"{len(network.blocks)} blocks\none after the other", seen["tokens"], network.blocks, BLUE),
        ("norm, pooling", 1.35, _pool_text(network), seen["tokens"][-1:], last, GREY),
        ("head", 1.1, _head_text(network), seen["head"], network.head, GREEN),
    ]
    places = sheet.row(columns, y=3.25, height=1.15)
    _encoder_block(sheet, network, places[3])
    return closed(sheet.axis.figure)


def _two_blocks(sheet: Sheet, x: float, width: float, stage: nn.Sequential) -> None:
    """The blocks of a stage as small boxes, each with its shortcut above."""
    y, each, tall = 3.2, 0.42, 0.42
    gap = (width - 2 * each) / 3
    for number, block in enumerate(stage):
        left = x + gap + number * (each + gap)
        sheet.box(left, y, each, tall, GREY)
        sheet.text(left + each / 2, y + tall / 2, f"{_kernel(block.conv1)}\n{_kernel(block.conv2)}", fontsize=7)
        style = "-" if block.downsample is None else (0, (2, 1.5))
        top, out = y + tall + 0.16, 0.06
        corners = [(left - out, y + 0.3), (left - out, top), (left + each + out, top), (left + each + out, y + 0.3)]
        sheet.axis.plot(*zip(*corners, strict=True), color=RED, linewidth=1.4, linestyle=style)


def _basic_block(sheet: Sheet, x: float, block: BasicBlock, title: str) -> None:
    """Two convolutions and the way around them."""
    y, tall = 0.55, 0.75
    sheet.text(x + 2.5, 2.22, title, fontweight="bold", fontsize=9)
    sheet.text(x + 0.12, y + tall / 2, "x")
    convs = [(block.conv1, block.bn1, "BN, ReLU"), (block.conv2, block.bn2, "BN")]
    for number, (conv, norm, after) in enumerate(convs):
        left = x + 0.5 + number * 1.6
        sheet.arrow((left - 0.28, y + tall / 2), (left, y + tall / 2))
        sheet.box(left, y, 1.32, tall, ORANGE)
        words = f"conv {_kernel(conv)}\n{conv.in_channels} → {conv.out_channels}\n{after}"
        sheet.text(left + 0.66, y + tall / 2, words)
        sheet.text(left + 0.66, y - 0.17, f"{count(conv) + count(norm):,} parameters", color="0.35")
    sheet.arrow((x + 3.42, y + tall / 2), (x + 3.75, y + tall / 2))
    sheet.plus(x + 3.86, y + tall / 2)
    sheet.arrow((x + 3.97, y + tall / 2), (x + 4.25, y + tall / 2))
    sheet.box(x + 4.25, y + 0.17, 0.6, 0.41, GREY)
    sheet.text(x + 4.55, y + tall / 2, "ReLU")
    over = y + tall + 0.32
    style = {"color": RED, "linestyle": "-" if block.downsample is None else (0, (3, 2))}
    sheet.path([(x + 0.32, y + tall / 2), (x + 0.32, over), (x + 3.86, over), (x + 3.86, y + tall / 2 + 0.11)], **style)
    words = "x"
    if block.downsample is not None:
        conv, norm = block.downsample
        words = f"conv {_kernel(conv)}, BN: {count(conv) + count(norm):,} parameters"
    sheet.text(x + 2.1, over + 0.13, words, color=RED)


def _encoder_block(sheet: Sheet, network: VisionTransformer, encoder: tuple[float, float]) -> None:
    """Two residual branches, and dotted lines to the encoder's box."""
    block, middle = network.blocks[0], 0.95
    for corner, end in ((encoder[0], 0.2), (sum(encoder), WIDTH - 0.2)):
        sheet.axis.plot([corner, end], [2.72, 2.4], ":", color="0.5", linewidth=1)
    title = f"One of the {len(network.blocks)} encoder blocks: {count(block):,} parameters"
    sheet.text(WIDTH / 2, 2.2, title, fontweight="bold", fontsize=9)
    attention = (block.attn, 1.6, _attention_text(block.attn), BLUE)
    mlp = (block.mlp, 1.6, _mlp_text(block.mlp), GREEN)
    branches = [
        [(norm, 0.85, "norm", GREY), inner, (scale, 0.7, "layer\nscale", PINK)]
        for norm, inner, scale in ((block.norm1, attention, block.ls1), (block.norm2, mlp, block.ls2))
    ]
    branches = [[part for part in branch if not isinstance(part[0], nn.Identity)] for branch in branches]
    x = (WIDTH - sum(0.65 + sum(0.25 + part[1] for part in branch) for branch in branches)) / 2
    sheet.text(x - 0.1, middle, "tokens", ha="right")
    for branch in branches:
        x = _branch(sheet, x, middle, branch)
    sheet.arrow((x + 0.11, middle), (x + 0.4, middle))
    sheet.text(x + 0.5, middle, "tokens", ha="left")


def _branch(
    sheet: Sheet, x: float, middle: float, parts: Sequence[tuple[nn.Module, float, str, Sequence[float]]]
) -> float:
    """Boxes in a row, their parameters below, the residual path above; returns where the plus stands."""
    start, tall, over = x + 0.25, 0.75, middle + 0.72
    sheet.axis.plot([x, start], [middle] * 2, color="0.3", linewidth=1.1, zorder=0)
    x = start
    for module, width, words, colour in parts:
        sheet.arrow((x, middle), (x + 0.25, middle))
        sheet.box(x + 0.25, middle - tall / 2, width, tall, colour)
        sheet.text(x + 0.25 + width / 2, middle, words)
        sheet.text(x + 0.25 + width / 2, middle - tall / 2 - 0.17, f"{count(module):,} parameters", color="0.35")
        x += 0.25 + width
    plus = x + 0.4
    sheet.arrow((x, middle), (plus - 0.11, middle))
    sheet.plus(plus, middle)
    sheet.path([(start, middle), (start, over), (plus, over), (plus, middle + 0.11)], color=RED)
    sheet.text((start + plus) / 2, over + 0.14, "residual path", color=RED)
    return plus


def _token_text(network: VisionTransformer) -> str:
    extra = [(network.cls_token, "class"), (network.reg_token, "register")]
    parts = [f"{token.shape[1]} {name}" for token, name in extra if token is not None]
    words = f"{' and '.join(parts)} token{'s' * (network.num_prefix_tokens > 1)} in front,\n" if parts else ""
    return words + ("+ position" if network.pos_embed is not None else "")


def _pool_text(network: VisionTransformer) -> str:
    kinds = {"token": "keep the\nclass token", "avg": "mean of the\npatch tokens"}
    return kinds.get(network.global_pool, network.global_pool or "all tokens")


def _head_text(network: VisionTransformer) -> str:
    return f"linear\nto {network.num_classes}" if isinstance(network.head, nn.Linear) else "none"


def _attention_text(attention: nn.Module) -> str:
    return f"self-attention\n{attention.num_heads} heads of {attention.head_dim}"


def _mlp_text(mlp: nn.Module) -> str:
    sizes = [layer for layer in mlp.modules() if isinstance(layer, nn.Linear)]
    return f"MLP\n{sizes[0].in_features} → {sizes[-1].in_features} → {sizes[-1].out_features}"


def _kernel(conv: nn.Conv2d) -> str:
    """`3×3`, with `/2` where it halves."""
    stride = f" /{conv.stride[0]}" if conv.stride[0] != 1 else ""
    return "×".join(map(str, conv.kernel_size)) + stride


def _inside(model: nn.Module, kind: type[nn.Module]) -> nn.Module:
    found = next((module for module in model.modules() if isinstance(module, kind)), None)
    if found is None:
        raise ValueError(f"the diagram needs a {kind.__module__}.{kind.__name__}, got {type(model).__name__}")
    return found


def _shapes(
    network: nn.Module, parts: Mapping[str, nn.Module], side: int | Sequence[int]
) -> dict[str, tuple[int, ...]]:
    """The output of each part, without the batch, seen in a run on black images."""
    seen = {}
    hooks = [
        part.register_forward_hook(lambda module, args, out, name=name: seen.update({name: tuple(out.shape[1:])}))
        for name, part in parts.items()
    ]
    like = next(network.parameters())
    try:
        with eval_mode(network), torch.no_grad():
            network(like.new_zeros(1, 3, *((side, side) if isinstance(side, int) else side)))
    finally:
        for hook in hooks:
            hook.remove()
    return seen
