"""CLIP as a classifier: against transformers' own logits, TeCoA's formula, and what must be computed once."""

from __future__ import annotations

import shutil

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel

from helpers.attacks import PGD, robust_accuracy
from helpers.clip import (
    Clip,
    ImageTower,
    LearnedHead,
    ZeroShot,
    class_vectors,
    in_batch_floor,
    in_batch_loss,
    load_clip,
    save_clip,
    tecoa_loss,
)
from helpers.clip.head import fit_head
from helpers.clip.lora import add_lora, interpolated, merged, trainable
from helpers.clip.prompts import PixelFrame, PromptedEmbeddings
from helpers.clip.stand_in import TEMPLATES, Matching, word_tokenizer
from helpers.data import Batches, ImageSet
from helpers.training.checkpoints import CheckpointError, load_weights, save_weights

NAMES = ("cat", "dog", "sweet_pepper")


def made_clip(**vision: int) -> Clip:
    """A CLIPModel with random weights; tiny, or OpenAI's ViT-B/32 in all its sizes where `vision` is empty."""
    tokenizer = word_tokenizer([template.format(name.replace("_", " ")) for template in TEMPLATES for name in NAMES])
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    tiny = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config=(tiny | {"vocab_size": len(tokenizer)} if vision else {}) | ids,
        vision_config=tiny | vision if vision else {},
        **({"projection_dim": 16} if vision else {}),
    )
    model = CLIPModel(config).eval().requires_grad_(False)
    size = config.vision_config.image_size
    return Clip(model, tokenizer, size, (0.48, 0.46, 0.41), (0.27, 0.26, 0.28), "made")


@pytest.fixture(scope="module")
def clip() -> Clip:
    return made_clip(image_size=32, patch_size=16)


@pytest.fixture(scope="module")
def zero_shot(clip: Clip) -> ZeroShot:
    return ZeroShot(clip, class_vectors(clip, NAMES)).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(20, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_logits_are_those_of_transformers(clip: Clip, zero_shot: ZeroShot, images: Tensor) -> None:
    tokens = clip.tokenizer([f"a photo of a {name}" for name in ("cat", "dog", "sweet pepper")], padding=True,
                            return_tensors="pt")  # fmt: skip
    pixels = (images - torch.tensor(clip.mean).view(3, 1, 1)) / torch.tensor(clip.std).view(3, 1, 1)
    with torch.no_grad():
        theirs = clip.model(pixel_values=pixels, **tokens).logits_per_image
        torch.testing.assert_close(zero_shot(images), theirs, rtol=1e-5, atol=1e-5)


def test_images_of_another_size_are_enlarged_inside_the_model(clip: Clip, zero_shot: ZeroShot, images: Tensor) -> None:
    small = images[:, :, ::2, ::2].requires_grad_()
    larger = F.interpolate(small.detach(), (32, 32), mode="bilinear", align_corners=False)
    torch.testing.assert_close(zero_shot(small), zero_shot(larger))
    (grad,) = torch.autograd.grad(zero_shot(small).sum(), small)
    assert grad.shape == (20, 3, 16, 16)


def test_text_vectors_are_computed_once(clip: Clip, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    encode = clip.model.get_text_features
    monkeypatch.setattr(clip.model, "get_text_features", lambda **tokens: calls.append(1) or encode(**tokens))
    model = ZeroShot(clip, class_vectors(clip, NAMES, TEMPLATES)).eval()
    model(images), PGD(model, steps=3)(images, torch.zeros(20, dtype=torch.int64))
    assert len(calls) == 1
    assert not any("text" in name for name, _ in model.named_parameters())


def test_class_vectors_are_mean_directions(clip: Clip) -> None:
    several = torch.stack([class_vectors(clip, NAMES, [template]) for template in TEMPLATES[:3]])
    torch.testing.assert_close(class_vectors(clip, NAMES, TEMPLATES[:3]), F.normalize(several.mean(0), dim=1))


def test_scale_is_capped_and_can_be_given(clip: Clip) -> None:
    vectors = class_vectors(clip, NAMES)
    assert ZeroShot(clip, vectors).scale == pytest.approx(clip.model.logit_scale.exp().item())
    assert ZeroShot(clip, vectors, 100.0).scale == 100.0
    steep = made_clip(image_size=32, patch_size=16)
    steep.model.logit_scale.fill_(9.0)
    assert steep.scale == 100.0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.01, 0.1, 1.0]), st.integers(1, 9), st.integers(2, 6))
def test_tecoa_is_cross_entropy_of_cosines_by_tau(seed: int, tau: float, count: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    found, texts = (F.normalize(torch.randn(n, 8, generator=generator), dim=1) for n in (count, classes))
    labels = torch.randint(classes, (count,), generator=generator)
    loss = tecoa_loss(found, texts, labels, tau)
    torch.testing.assert_close(loss, F.cross_entropy(found @ texts.T / tau, labels), rtol=1e-4, atol=1e-5)
    # equation (3), word by word
    shares = torch.exp((found @ texts.T).double() / tau)
    shares /= shares.sum(1, keepdim=True)
    wanted = -(F.one_hot(labels, classes) * shares.log()).sum(1).mean()
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-4, atol=1e-4)


def test_tecoa_refuses_what_cannot_be(zero_shot: ZeroShot) -> None:
    vectors = zero_shot.vectors
    with pytest.raises(ValueError, match="tau must be above 0"):
        tecoa_loss(vectors, vectors, torch.arange(3), 0.0)
    with pytest.raises(ValueError, match="labels must lie in 0 .. 2"):
        tecoa_loss(vectors, vectors, torch.tensor([0, 1, 3]))


def test_in_batch_loss_counts_equal_texts_as_wrong() -> None:
    labels = torch.tensor([0, 0, 1, 2, 2, 2])
    perfect = 1e4 * F.one_hot(labels, 3).float()
    assert in_batch_loss(perfect, labels).item() == pytest.approx(in_batch_floor(labels), abs=1e-5)
    assert in_batch_floor(labels) == pytest.approx(
        (2 * torch.log(torch.tensor(2.0)) + 3 * torch.log(torch.tensor(3.0))).item() / 6
    )
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    by_hand = torch.stack([torch.logsumexp(logits[i, labels], 0) - logits[i, labels[i]] for i in range(6)]).mean()
    torch.testing.assert_close(in_batch_loss(logits, labels), by_hand)


def test_in_batch_is_tecoa_where_no_text_is_double() -> None:
    logits = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([2, 0, 1])
    torch.testing.assert_close(in_batch_loss(logits, labels), F.cross_entropy(logits, labels))


def test_saved_and_loaded_from_a_local_folder(clip: Clip, zero_shot: ZeroShot, images: Tensor, tmp_path) -> None:
    for _ in range(2):  # the second takes the first one's place
        save_clip(clip, tmp_path / "saved")
    found = load_clip(tmp_path / "saved")
    assert (found.size, found.mean, found.std, found.source) == (32, clip.mean, clip.std, "saved")
    assert not any(parameter.requires_grad for parameter in found.model.parameters())
    again = ZeroShot(found, class_vectors(found, NAMES)).eval()
    torch.testing.assert_close(again(images), zero_shot(images), rtol=0, atol=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data_root", "saved"]


def test_what_is_no_clip_is_refused(clip: Clip, tmp_path) -> None:
    with pytest.raises(CheckpointError, match="no CLIP at nothing"):
        load_clip(tmp_path / "nothing")
    save_clip(clip, tmp_path / "half")
    (tmp_path / "half" / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match="preprocessor_config.json"):
        load_clip(tmp_path / "half")
    save_clip(clip, tmp_path / "other")
    shutil.rmtree(tmp_path / "half")
    CLIPTextModel(
        CLIPTextConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=1, vocab_size=9)
    ).save_pretrained(tmp_path / "other")
    with pytest.raises(CheckpointError, match="no CLIP at other"):
        load_clip(tmp_path / "other")


def test_robust_accuracy_does_not_depend_on_the_batch(zero_shot: ZeroShot) -> None:
    pixels = torch.randint(0, 256, (128, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        labels = zero_shot(pixels / 255).argmax(1)
    data = ImageSet(pixels, labels, NAMES)
    attack = PGD(zero_shot, 2 / 255, 1 / 255, 2, random_start=False)
    found = [robust_accuracy(zero_shot, Batches(data, size), attack).survived for size in (16, 128)]
    assert torch.equal(*found)
    assert 0 < found[0].float().mean() < 1  # else the test would say nothing


def put_lora(model: ZeroShot) -> nn.Module:
    """On queries and values of the image tower, as notebook 05 does it."""
    model.tower = add_lora(model.tower)
    return model


def put_head(model: ZeroShot) -> nn.Module:
    return LearnedHead(put_lora(model))


def put_tokens(model: ZeroShot) -> nn.Module:
    vision = model.tower.vision_model
    vision.embeddings = PromptedEmbeddings(vision.embeddings, 5, vision.config.hidden_size)
    return model


def put_frame(model: ZeroShot) -> nn.Module:
    resize, normalize = model.pixels
    model.pixels = nn.Sequential(resize, PixelFrame(resize.size, round(resize.size * 30 / 224)), normalize)
    return model


def frozen(clip: Clip, scale: float | None = None) -> ZeroShot:
    return ZeroShot(clip, class_vectors(clip, NAMES), scale).requires_grad_(False)


def with_lora(clip: Clip) -> ZeroShot:
    return put_lora(frozen(clip))


def learn_a_little(model: nn.Module, images: Tensor, lr: float) -> dict[str, Tensor]:
    """One step; the parameters as they were."""
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    sgd = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr)
    F.cross_entropy(model(images), torch.zeros(len(images), dtype=torch.int64)).backward()
    sgd.step()
    return before


@pytest.mark.trains
def test_lora_starts_as_the_base_model_and_merges(clip: Clip, zero_shot: ZeroShot, images: Tensor) -> None:
    model = with_lora(clip)
    with torch.no_grad():
        assert torch.equal(model.eval()(images), zero_shot(images))
    model.train()
    for _ in range(2):  # after one step only B has moved
        before = learn_a_little(model, images, 0.5)
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert changed
    assert all("lora_" in name and ("q_proj" in name or "v_proj" in name) for name in changed)
    assert any("lora_A" in name for name in changed)
    assert any("lora_B" in name for name in changed)
    one = merged(model.tower)
    pixels = model.pixels(images)
    with torch.no_grad():
        torch.testing.assert_close(one(pixels), model.eval().tower(pixels), rtol=0, atol=1e-5)
        assert not torch.allclose(one(pixels), zero_shot.tower(pixels), atol=1e-3)
    assert one.state_dict().keys() == zero_shot.tower.state_dict().keys()
    assert any("lora_" in name for name, _ in model.tower.named_parameters())  # the original is as it was


@pytest.mark.trains
def test_merged_weights_are_kept_as_safetensors(clip: Clip, images: Tensor, tmp_path) -> None:
    model = with_lora(clip)
    for _ in range(2):
        learn_a_little(model, images, 0.5)
    one = merged(model.tower)
    save_weights(one, tmp_path / "adapted.safetensors")
    again = load_weights(ImageTower(clip), tmp_path / "adapted.safetensors").eval()
    with torch.no_grad():
        pixels = model.pixels(images)
        torch.testing.assert_close(again(pixels), one.eval()(pixels), rtol=0, atol=0)
        assert not torch.allclose(again(pixels), ImageTower(clip).eval()(pixels), atol=1e-3)


def test_lora_needs_a_layer_of_that_name() -> None:
    with pytest.raises(ValueError, match="nothing"):
        add_lora(nn.Sequential(nn.Linear(3, 3)), targets=["nothing"])


def test_interpolated_weights(clip: Clip) -> None:
    first, second = ImageTower(clip), ImageTower(made_clip(image_size=32, patch_size=16))
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.add_(1.0)
    for share in (0.0, 0.25, 1.0):
        found = dict(interpolated(first, second, share).named_parameters())
        for name, value in first.named_parameters():
            torch.testing.assert_close(found[name], value + share)
    with pytest.raises(ValueError, match="merge LoRA first"):
        interpolated(first, add_lora(ImageTower(clip)), 0.5)
    with pytest.raises(ValueError, match="share of 0 to 1"):
        interpolated(first, second, 1.5)


@pytest.mark.trains
def test_prompt_tokens_come_after_the_patches_and_learn_alone(clip: Clip, images: Tensor) -> None:
    model = put_tokens(frozen(clip))
    pixels = model.pixels(images)
    embeddings = model.tower.vision_model.embeddings
    found, base = embeddings(pixels), embeddings.embeddings(pixels)
    assert found.shape == (20, 1 + 4 + 5, 32)
    torch.testing.assert_close(found[:, :5], base, rtol=0, atol=0)
    torch.testing.assert_close(found[:, 5:], embeddings.prompts.expand(20, -1, -1))
    before = learn_a_little(model, images, 1.0)
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {"tower.vision_model.embeddings.prompts"}
    assert trainable(model) == 5 * 32
    with pytest.raises(ValueError, match="one prompt or more"):
        PromptedEmbeddings(nn.Identity(), 0, 4)


@pytest.mark.trains
def test_pixel_frame_leaves_the_inside_alone(clip: Clip, zero_shot: ZeroShot, images: Tensor) -> None:
    model = put_frame(frozen(clip))
    with torch.no_grad():
        assert torch.equal(model(images), zero_shot(images))  # it starts at zero
    before = learn_a_little(model, images, 1.0)
    assert {n for n, v in model.named_parameters() if not torch.equal(v, before[n])} == {"pixels.1.values"}
    frame = PixelFrame(8, 2)
    assert frame.values.shape == (3, 8 * 8 - 4 * 4)
    with torch.no_grad():
        frame.values.copy_(1 + torch.arange(144.0).view(3, 48))
    changed = frame(torch.zeros(2, 3, 8, 8))
    assert torch.equal(changed[0], changed[1])
    assert (changed[:, :, 2:6, 2:6] == 0).all()
    assert (changed != 0).sum() == 2 * 3 * 48
    assert changed[0, 1, 0, 0] == 49  # each channel has its own values
    with pytest.raises(ValueError, match="1 to 4 pixels wide"):
        PixelFrame(8, 5)


@pytest.mark.trains
def test_the_learned_head_starts_as_logistic_regression(clip: Clip) -> None:
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(60) % 3
    pixels = torch.randint(0, 100, (60, 3, 32, 32), dtype=torch.uint8, generator=generator)
    pixels[torch.arange(60), labels] += 120  # another channel is bright in each class
    model = put_head(frozen(clip, 100.0))
    assert isinstance(model, LearnedHead)
    fit_head(model, Batches(ImageSet(pixels, labels, NAMES), 20))
    with torch.no_grad():
        assert (model(pixels / 255).argmax(1) == labels).float().mean() > 0.9
    assert model.head.weight.requires_grad


@pytest.mark.trains
def test_matching_trains_both_halves(clip: Clip, images: Tensor) -> None:
    ours = made_clip(image_size=32, patch_size=16)
    model = Matching(ours, NAMES)
    model.eval()
    with torch.no_grad():
        wanted = ZeroShot(ours, class_vectors(ours, NAMES)).eval()(images)
        torch.testing.assert_close(model(images), wanted, rtol=1e-4, atol=1e-4)
    before = learn_a_little(model.train(), images, 1.0)
    changed = {name.split(".")[1] for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert changed >= {"text_model", "vision_model", "visual_projection", "text_projection", "logit_scale"}


@pytest.mark.trains
@pytest.mark.parametrize("loss", [F.cross_entropy, in_batch_loss])
@pytest.mark.parametrize("adapter", [put_lora, put_head, put_tokens, put_frame])
@pytest.mark.parametrize("own", [False, True])
def test_every_adapter_takes_a_step_on_the_real_configuration(real: Clip, adapter, own: bool, loss) -> None:
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(3)
    model = adapter(frozen(real, 100.0)).train()
    before = {key: value.detach().clone() for key, value in model.named_parameters() if value.requires_grad}
    if own:
        images = PGD(model, 1 / 255, 1 / 255, 2)(images, labels)
    loss(model(images), labels).backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1).step()
    after = dict(model.named_parameters())
    assert any(not torch.equal(after[key], value) for key, value in before.items())


@pytest.fixture(scope="module")
def real() -> Clip:
    return made_clip()


def test_lora_on_the_real_configuration_has_the_papers_size(real: Clip) -> None:
    assert sum(p.numel() for p in real.model.vision_model.parameters()) == 87_456_000  # ViT-B/32
    assert trainable(put_lora(frozen(real))) == 294_912
