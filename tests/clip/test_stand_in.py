"""The stand-in's parts: timm's weights in transformers' Dinov2, the tokenizer, and where the text tower pools."""

from __future__ import annotations

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from helpers.clip.stand_in import dinov2_tower, new_clip, text_tower, word_tokenizer
from helpers.models.weights import Weights

TEXTS = ("a photo of a cat", "a photo of a small dog")


@pytest.fixture(scope="module")
def timm_vit() -> VisionTransformer:
    torch.manual_seed(0)
    network = VisionTransformer(
        img_size=28, patch_size=14, embed_dim=128, depth=2, num_heads=2, num_classes=5, init_values=0.5
    )
    with torch.no_grad():  # biases and positions start at or near 0, where a mix-up would not show
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


def test_timms_weights_give_transformers_the_same_tokens(timm_vit: VisionTransformer) -> None:
    weights = Weights("tiny", timm_vit.state_dict(), (0.5,) * 3, (0.5,) * 3, "made")
    tower = dinov2_tower(weights, 28).eval()
    images = torch.rand(3, 3, 28, 28)
    with torch.no_grad():
        found = tower(pixel_values=images)
        torch.testing.assert_close(found.last_hidden_state, timm_vit.forward_features(images), rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(found.pooler_output, found.last_hidden_state[:, 0])


def test_positions_fit_another_size(timm_vit: VisionTransformer) -> None:
    tower = dinov2_tower(Weights("tiny", timm_vit.state_dict(), (0.5,) * 3, (0.5,) * 3, "made"), 56)
    assert tower.embeddings.position_embeddings.shape == (1, 17, 128)
    assert tower(pixel_values=torch.rand(1, 3, 56, 56)).last_hidden_state.shape == (1, 17, 128)


def test_tokenizer_knows_whole_words_and_ends_highest() -> None:
    tokenizer = word_tokenizer(TEXTS)
    ids = tokenizer(["A photo of a DOG", "a wolf"], padding=True).input_ids
    assert tokenizer.eos_token_id == len(tokenizer) - 1 != 2
    assert ids[0][0] == tokenizer.bos_token_id
    assert ids[0][-1] == tokenizer.eos_token_id
    assert ids[1][2] == tokenizer.unk_token_id
    assert ids[1][-1] == tokenizer.pad_token_id
    assert tokenizer.decode(ids[0][1:-1]) == "a photo of a dog"


def test_the_text_tower_pools_at_the_end_token() -> None:
    tokenizer = word_tokenizer(TEXTS)
    torch.manual_seed(0)
    tower = text_tower(tokenizer).eval()
    short, long = (tokenizer(["a cat"], padding="max_length", max_length=n, return_tensors="pt") for n in (4, 12))
    with torch.no_grad():
        first = tower(**short)
        torch.testing.assert_close(first.pooler_output, first.last_hidden_state[:, 3])
        torch.testing.assert_close(first.pooler_output, tower(**long).pooler_output, rtol=1e-4, atol=1e-5)


def test_two_texts_have_two_vectors_from_the_start(timm_vit: VisionTransformer) -> None:
    tower = dinov2_tower(Weights("tiny", timm_vit.state_dict(), (0.5,) * 3, (0.5,) * 3, "made"), 28)
    clip = new_clip(tower, TEXTS, (0.5,) * 3, (0.5,) * 3)
    assert clip.size == 28
    names = {name.rpartition(".")[2] for name, _ in clip.model.vision_model.named_modules()}
    assert {"q_proj", "v_proj"} <= names or {"query", "value"} <= names  # what LoRA looks for
    tokens = clip.tokenizer(list(TEXTS), padding=True, return_tensors="pt")
    first, second = clip.model.get_text_features(**tokens).pooler_output
    assert not torch.allclose(first, second, atol=1e-2)
