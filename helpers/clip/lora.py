"""Low-rank adaptation through peft, merging it back into the weights, and weights half way between two models."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import TypeVar

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

M = TypeVar("M", bound=nn.Module)


def add_lora(
    network: nn.Module,
    rank: int = 8,
    alpha: float = 32,
    dropout: float = 0.1,
    targets: Sequence[str] = ("q_proj", "v_proj", "query", "value"),  # the last two: in an older transformers
) -> PeftModel:
    """`network` with a trainable `alpha / rank * B A` beside each linear layer of these names; all else is frozen.

    Hu et al. (arXiv 2106.09685). `B` starts at 0, so that at first nothing changes; `A` is drawn from torch's global
    generator.

    Raises:
        ValueError: no layer has one of the names.
    """
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(targets))
    return get_peft_model(network, config)


def merged(network: PeftModel) -> nn.Module:
    """A copy with each `W + alpha / rank * B A` as its weight: as fast, as large and named as before LoRA."""
    return deepcopy(network).merge_and_unload().requires_grad_(False)


def trainable(model: nn.Module) -> int:
    """How many parameters are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@torch.no_grad()
def interpolated[M: nn.Module](first: M, second: M, share: float) -> M:
    """A model with weights `(1 - share) * first + share * second`, both of the same architecture and names.

    Wortsman et al. (arXiv 2109.01903); the TeCoA paper draws the same curve between CLIP and its adapted weights.

    Raises:
        ValueError: `share` is not in 0 .. 1, or the names differ.
    """
    theirs = second.state_dict()
    if not 0 <= share <= 1 or theirs.keys() != first.state_dict().keys():
        raise ValueError(f"need a share of 0 to 1 and two models of the same parts (merge LoRA first), got {share}")
    model = deepcopy(first)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            value.lerp_(theirs[name], share)
    return model
