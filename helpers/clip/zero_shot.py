"""CLIP as a classifier: class names to text vectors once, pixels to logits = scale x cosine, and TeCoA's loss.

For any of transformers' dual encoders with CLIP's parts (`vision_model`, `visual_projection`, `get_text_features`,
`logit_scale`): `CLIPModel`, or a `VisionTextDualEncoderModel` as in `stand_in`.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer, CLIPImageProcessor, PreTrainedModel, PreTrainedTokenizerBase

from ..contract import check_labels
from ..models.normalize import Normalize
from ..training.checkpoints import CheckpointError, replacing

PHOTO = ("a photo of a {}",)  # the assignment's one template
MAX_SCALE = 100.0  # CLIP never multiplies a cosine by more (Radford et al. 2021, arXiv 2103.00020, section 2.5)


@dataclass(frozen=True, eq=False)
class Clip:
    """A dual encoder, its tokenizer, and the images it takes: side in pixels, mean and std of the channels."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str

    @property
    def scale(self) -> float:
        """What this CLIP multiplies a cosine by: the exponential of a learned number, at most 100."""
        return min(self.model.logit_scale.exp().item(), MAX_SCALE)


def load_clip(source: Path | str) -> Clip:
    """From a folder that `save_clip` (or transformers) wrote, or from the hub by name; frozen, in eval mode.

    Raises:
        CheckpointError: there is none, or it is something else; the message says what is needed.
    """
    try:
        model = AutoModel.from_pretrained(source).eval().requires_grad_(False)
        tokenizer, images = AutoTokenizer.from_pretrained(source), CLIPImageProcessor.from_pretrained(source)
        model.get_text_features, model.visual_projection  # noqa: B018 (AttributeError: not a dual encoder)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        said = (str(error).splitlines() or [""])[0][:160]
        raise CheckpointError(
            f"no CLIP at {Path(source).name} ({said}): connect to a network for the hub's, or give a folder with the "
            "model, its tokenizer and its preprocessor_config.json, as `save_pretrained` writes them"
        ) from error
    where = Path(source).name if Path(source).is_dir() else f"hub {source}"
    return Clip(model, tokenizer, images.crop_size["height"], tuple(images.image_mean), tuple(images.image_std), where)


def save_clip(clip: Clip, folder: Path | str) -> None:
    """Write what `load_clip` reads, in transformers' own formats; an older copy is replaced at the end."""
    side = {"height": clip.size, "width": clip.size}
    images = CLIPImageProcessor(size=side, crop_size=side, image_mean=list(clip.mean), image_std=list(clip.std))
    with replacing(Path(folder)) as temporary:
        for part in (clip.model, clip.tokenizer, images):
            part.save_pretrained(temporary)
        shutil.rmtree(folder, ignore_errors=True)  # a folder does not replace another one by itself


@torch.no_grad()
def class_vectors(clip: Clip, classes: Sequence[str], templates: Sequence[str] = PHOTO) -> Tensor:
    """One unit vector a class, `(classes, D)`: the mean direction of its name in all templates, by one encoder call."""
    texts = [template.format(name.replace("_", " ")) for name in classes for template in templates]
    tokens = clip.tokenizer(texts, padding=True, return_tensors="pt").to(clip.model.device)
    found = F.normalize(clip.model.get_text_features(**tokens).pooler_output, dim=1)
    return F.normalize(found.unflatten(0, (len(classes), len(templates))).mean(1), dim=1)


class ImageTower(nn.Module):
    """CLIP's image half as a module of its own: normalised images `(N, 3, S, S)` to unit vectors `(N, D)`.

    Adapters are put in here, so none can land in the text half, whose vectors are computed once and stay.
    """

    def __init__(self, clip: Clip) -> None:
        super().__init__()
        self.vision_model = deepcopy(clip.model.vision_model)
        self.visual_projection = deepcopy(clip.model.visual_projection)

    def forward(self, images: Tensor) -> Tensor:
        pooled = self.vision_model(pixel_values=images).pooler_output  # (N, width)
        return F.normalize(self.visual_projection(pooled), dim=1)  # (N, D)


class InputSize(nn.Module):
    """Bilinear to `size` x `size` pixels, a part of the model: an attack's budget counts in the image's own pixels."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        return F.interpolate(images, (self.size, self.size), mode="bilinear", align_corners=False)  # (N, C, S, S)

    def extra_repr(self) -> str:
        return f"size={self.size}"


class ZeroShot(nn.Module):
    """Pixels `(N, 3, H, W)` in [0, 1] to logits `(N, classes)`: scale times the cosine with each class's text vector.

    Args:
        clip: its image half is copied, so that many of these can be adapted in different ways.
        vectors: `(classes, D)` of unit length, from `class_vectors`.
        scale: None is CLIP's own; TeCoA's temperature tau is `1 / scale`. A bare cosine (`scale=1`) gives almost equal
            probabilities to all classes, and gradients to match.
    """

    def __init__(self, clip: Clip, vectors: Tensor, scale: float | None = None) -> None:
        super().__init__()
        self.scale = clip.scale if scale is None else scale
        self.pixels = nn.Sequential(InputSize(clip.size), Normalize(clip.mean, clip.std))
        self.tower = ImageTower(clip)
        self.register_buffer("vectors", vectors)

    def image_vectors(self, images: Tensor) -> Tensor:
        """Unit vectors `(N, D)`."""
        return self.tower(self.pixels(images))

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * self.image_vectors(images) @ self.vectors.T

    def extra_repr(self) -> str:
        return f"scale={self.scale:.4g}, classes={len(self.vectors)}"


class LearnedHead(nn.Module):
    """The same image vectors, but a linear layer in the place of the texts: no longer zero-shot.

    Method (2) of the TeCoA paper (section A.3.1), where the layer is first trained on clean images with the tower
    frozen. Its first weights come from torch's global generator.
    """

    def __init__(self, model: ZeroShot) -> None:
        super().__init__()
        self.pixels, self.tower, self.scale = model.pixels, model.tower, model.scale
        self.head = nn.Linear(model.vectors.shape[1], len(model.vectors))

    def features(self, images: Tensor) -> Tensor:
        """The tower's vectors, `(N, D)`, of length 10 at scale 100: unit vectors would want huge weights."""
        return self.scale**0.5 * self.tower(self.pixels(images))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def tecoa_loss(image_vectors: Tensor, vectors: Tensor, labels: Tensor, tau: float = 0.01) -> Tensor:
    """Text-guided contrastive loss over the texts of all classes, equation (3) of Mao et al. (arXiv 2212.07016).

    It is the cross-entropy of logits `cosine / tau` (their appendix A.5): robustness comes from the images it sees.

    Args:
        image_vectors: unit length `(N, D)`; vectors: of the class texts, `(classes, D)`; labels: int64 `(N,)`.

    Raises:
        ValueError: a label outside the classes, or tau is not above 0.
    """
    check_labels(labels, len(vectors))
    if tau <= 0:
        raise ValueError(f"tau must be above 0, got {tau}: 0.01 is CLIP's")
    cosines = image_vectors @ vectors.T  # (N, classes)
    log_probs = cosines / tau - torch.logsumexp(cosines / tau, 1, keepdim=True)
    return -log_probs.gather(1, labels[:, None]).mean()


def in_batch_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The same with the texts of the batch as the denominator, one an image: false negatives and all.

    Images of one class have the same text, which counts as right for its own image and as wrong for the others: with
    `m` images of a class in the batch no model gets their loss below `ln m` (see `in_batch_floor`).

    Args:
        logits: `cosine / tau` of each image with each class's text, `(N, classes)`; labels: int64 `(N,)`.
    """
    similarity = logits[:, labels]  # (N, N): column j is the text of image j
    return F.cross_entropy(similarity, torch.arange(len(labels), device=labels.device))


def in_batch_floor(labels: Tensor) -> float:
    """The least that `in_batch_loss` can be on a batch with these labels, in nats."""
    counts = torch.bincount(labels)[labels]  # (N,): how many images share this image's text
    return counts.double().log().mean().item()
