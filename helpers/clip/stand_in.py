"""A small CLIP out of transformers' own classes, for places where OpenAI's weights cannot be had.

A `VisionTextDualEncoderModel` with a `Dinov2Model` as image tower (pre-trained ViT-S/14, or a tiny one) and a small
`CLIPTextModel` from scratch. It is no CLIP until `Matching` has been trained on pairs of images and class texts, and it
knows only the words that it was trained on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    Dinov2Config,
    Dinov2Model,
    PreTrainedTokenizerFast,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
)

from ..models.normalize import Normalize
from ..models.weights import Weights, resize_positions
from .zero_shot import MAX_SCALE, Clip, InputSize

# timm's names and transformers'.
RENAMED = (
    (r"^patch_embed\.proj", "embeddings.patch_embeddings.projection"),
    (r"^cls_token", "embeddings.cls_token"),
    (r"^pos_embed", "embeddings.position_embeddings"),
    (r"^blocks\.", "encoder.layer."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"\.ls(\d)\.gamma", r".layer_scale\1.lambda1"),
    (r"^norm\.", "layernorm."),
)
# An older transformers 5 names the layers of attention differently.
BEFORE = (
    (r"attention\.q_proj", "attention.attention.query"),
    (r"attention\.k_proj", "attention.attention.key"),
    (r"attention\.v_proj", "attention.attention.value"),
    (r"attention\.o_proj", "attention.output.dense"),
)
# Ways to say what is seen; the text tower learns from all of them.
TEMPLATES = (
    "a photo of a {}",
    "a picture of a {}",
    "an image of a {}",
    "a small photo of the {}",
    "there is a {}",
    "{}",
)
SMALL = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4}


def word_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words, those of `texts`; the end token has the highest id, as in CLIP."""
    words = sorted({word for text in texts for word in re.findall(r"\w+", text.lower())})
    names = ["<pad>", "<unk>", "<start>", *words, "<end>"]
    ids = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[(name, ids[name]) for name in ("<start>", "<end>")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<start>", eos_token="<end>"
    )


def text_tower(tokenizer: PreTrainedTokenizerFast, **sizes: int) -> CLIPTextModel:
    """A `CLIPTextModel` with random weights for this tokenizer.

    `eos_token_id` must be said, and must not be 2: then transformers would pool at the highest id, CLIP's old way.
    """
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    return CLIPTextModel(CLIPTextConfig(vocab_size=len(tokenizer), max_position_embeddings=24, **SMALL | sizes | ids))


def dinov2_tower(weights: Weights, size: int, **config: Any) -> Dinov2Model:
    """`Dinov2Model` for images of `size` pixels, with timm's weights of a DINOv2 (`find_weights`)."""
    width, patch = weights.state["cls_token"].shape[-1], weights.state["patch_embed.proj.weight"].shape[-1]
    layers = 1 + max(int(key.split(".")[1]) for key in weights.state if key.startswith("blocks."))
    sizes = {"hidden_size": width, "num_attention_heads": width // 64, "num_hidden_layers": layers}
    network = Dinov2Model(Dinov2Config(image_size=size, patch_size=patch, use_mask_token=False, **sizes | config))
    state = dinov2_state(weights.state, size // patch)
    if state.keys() != network.state_dict().keys():
        for pattern, old in BEFORE:
            state = {re.sub(pattern, old, key): value for key, value in state.items()}
    network.load_state_dict(state)
    return network


def dinov2_state(state: Mapping[str, Tensor], side: int) -> dict[str, Tensor]:
    """timm's state dict of a DINOv2 under transformers' names, with positions for a grid of `side` x `side` patches."""
    found = {}
    for key, value in (state | {"pos_embed": resize_positions(state["pos_embed"], side)}).items():
        for pattern, new in RENAMED:
            key = re.sub(pattern, new, key)
        if ".attn.qkv." in key:  # one matrix there, three here
            for name, part in zip("qkv", value.chunk(3), strict=True):
                found[key.replace("attn.qkv", f"attention.{name}_proj")] = part
        elif not key.startswith("head."):
            found[key] = value
    return found


def new_clip(
    vision: Dinov2Model,
    texts: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    projection: int = 256,
    **sizes: int,
) -> Clip:
    """An untrained text half beside `vision`, for the words of `texts`; weights from torch's global generator."""
    tokenizer = word_tokenizer(texts)
    text = text_tower(tokenizer, **sizes)
    config = VisionTextDualEncoderConfig.from_vision_text_configs(vision.config, text.config, projection_dim=projection)
    model = VisionTextDualEncoderModel(config, vision, text)
    return Clip(model, tokenizer, vision.config.image_size, tuple(mean), tuple(std), "stand-in, untrained")


class Matching(nn.Module):
    """Both towers in training: pixels to logits over the texts of all classes, each time in another template.

    CLIP compares an image with the texts of its batch. Where images share their texts, that counts some right answers
    as wrong (see `clip.in_batch_loss`), so here the denominator is the texts of all classes, once each.
    """

    def __init__(self, clip: Clip, classes: Sequence[str], templates: Sequence[str] = TEMPLATES) -> None:
        super().__init__()
        self.model = clip.model.requires_grad_(True)
        self.pixels = nn.Sequential(InputSize(clip.size), Normalize(clip.mean, clip.std))
        tokens = [
            clip.tokenizer([template.format(name.replace("_", " ")) for name in classes],
                           padding="max_length", max_length=16, return_tensors="pt")
            for template in templates
        ]  # fmt: skip
        self.register_buffer("ids", torch.stack([batch.input_ids for batch in tokens]))  # (templates, classes, T)
        self.register_buffer("mask", torch.stack([batch.attention_mask for batch in tokens]))

    def forward(self, images: Tensor) -> Tensor:
        pick = int(torch.randint(len(self.ids), ())) if self.training else 0
        texts = self.model.get_text_features(input_ids=self.ids[pick], attention_mask=self.mask[pick]).pooler_output
        found = self.model.get_image_features(pixel_values=self.pixels(images)).pooler_output
        scale = self.model.logit_scale.exp().clamp(max=MAX_SCALE)
        return scale * normalize(found, dim=1) @ normalize(texts, dim=1).T
