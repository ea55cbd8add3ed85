"""Recipes of notebook 05: the images, the CLIP or its stand-in, the surrogate, and the images that are made for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
import torchattacks
from torch import nn
from transformers import Dinov2Config, Dinov2Model

from ..attacks.transfer import transfer_images
from ..clip import Clip, load_clip, save_clip
from ..clip.stand_in import TEMPLATES, Matching, dinov2_tower, new_clip
from ..contract import seeded
from ..course.run import Run
from ..data import Batches, ImageSet, RandomFlip, load, toy
from ..data.joined import joined
from ..data.toy_pairs import CONTRAST, OTHERS, PAIRS, TEN
from ..models import normalized, small_cnn
from ..models.pretrained_resnet20 import pretrained_resnet20
from ..models.weights import find_weights
from ..training import fit
from . import once_a_run
from .nb02 import Split, load_or_train

NOTEBOOK, OPENAI = "05_clip_tecoa", "openai/clip-vit-base-patch32"
STEPS = 7  # of the assignment's transfer attack


@once_a_run
def ten_classes(run: Run) -> Split:
    """CIFAR-10 (or ten toy classes): images to adapt to, to choose by, to report on; none of them tuned a CLIP."""
    if run.profile == "toy":
        return Split(*(_toy(TEN, split, count) for split, count in (("train", 320), ("val", 80), ("test", 200))))
    train, val = run.pick(toy=(320, 80), lite=(3_600, 900), full=(8_000, 2_000))
    kept = _halves(run)[1] if run.profile == "lite" else load("cifar10", "train")
    learn, choose = kept.take(train + val, run.seed).divide(train, run.seed)
    return Split(learn, choose, load("cifar10", "test"))


@once_a_run
def other_classes(run: Run) -> ImageSet:
    """Images of a hundred (toy: fifty) other classes, to see what an adaptation to ten costs."""
    if run.profile == "toy":
        return _toy(OTHERS, "test", 200)
    return load("cifar100", "test").take(run.pick(toy=200, lite=1_000, full=10_000), run.seed)


def _toy(classes: tuple[int, ...], split: str, count: int) -> ImageSet:
    """Drawn scenes of these pairs of colour and ground, the same number of each split for the same count."""
    scenes = toy.draw(4 * count, 32, 20 + toy.SPLITS[split][1])
    pairs = scenes.attributes["colour"] * len(toy.GROUNDS) + scenes.attributes["ground"]
    kept = torch.isin(pairs, torch.tensor(classes)).nonzero().squeeze(1)[:count]
    labels = torch.searchsorted(torch.tensor(classes), pairs[kept])
    names = tuple(PAIRS[pair] for pair in classes)
    pale = (127.5 + CONTRAST * (scenes.images[kept] - 127.5)).round().to(torch.uint8)
    return ImageSet(pale, labels, names, f"toy, {len(names)} classes", split, "drawn", scenes.masks[kept])


def _halves(run: Run) -> tuple[ImageSet, ImageSet]:
    """CIFAR-10's training images: those that tune the stand-in, and the others."""
    return load("cifar10", "train").divide(4_500, run.seed)


@once_a_run
def clip(run: Run) -> Clip:
    """The CLIP of the profile: OpenAI's ViT-B/32 (full), or the stand-in, from where its tuning saved it."""
    if run.profile == "full":
        return load_clip(OPENAI)
    return stand_in(run)[0]


def stand_in(run: Run, seen: bool = True) -> tuple[Clip, pd.DataFrame]:
    """The stand-in for CLIP, tuned on images and texts of other classes, and the tuning's history.

    Args:
        seen: whether the tuning images hold some of the ten classes too (none that anything later uses).
    """
    ours, others = _tuning_images(run)
    images = joined(others, ours) if seen else others.take(run.pick(toy=1_000, lite=20_000, full=50_000), run.seed)
    name = "stand-in" if seen else "stand-in, ten classes unseen"
    start = _untrained(run, others.classes + ours.classes)
    model = Matching(start, images.classes).to(run.device)
    epochs = run.pick(toy=8 if seen else 4, lite=2 if seen else 1, full=2)

    def tune(model: nn.Module, folder: Path) -> pd.DataFrame:
        return _tune(run, model, images, folder, epochs)

    tuned = load_or_train(run, NOTEBOOK, name, model, tune)
    start.model.eval().requires_grad_(False)
    save_clip(start, run.folder(name) / "saved")
    return replace(load_clip(run.folder(name) / "saved"), source=f"{name}, tuned here"), tuned.history


def _tuning_images(run: Run) -> tuple[ImageSet, ImageSet]:
    """Some of the ten classes' images, and those of other classes."""
    if run.profile == "toy":
        return _toy(TEN, "train", 520)[320:], _toy(OTHERS, "train", 1_000)
    return _halves(run)[0], load("cifar100", "train")


def _untrained(run: Run, classes: tuple[str, ...]) -> Clip:
    texts = [template.format(name.replace("_", " ")) for template in TEMPLATES for name in classes]
    with seeded(run.seed):
        return _drawn_clip(run, texts)


def _drawn_clip(run: Run, texts: list[str]) -> Clip:
    """With first weights from torch's global generator, but for the image tower's pre-trained ones."""
    if run.profile == "toy":
        tiny = Dinov2Config(image_size=32, patch_size=8, hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
                            use_mask_token=False)  # fmt: skip
        text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
        return new_clip(Dinov2Model(tiny), texts, (0.5,) * 3, (0.5,) * 3, projection=64, **text)
    weights = find_weights("vit_small_patch14")
    return new_clip(dinov2_tower(weights, 56), texts, weights.mean, weights.std)


def _tune(run: Run, model: nn.Module, images: ImageSet, folder: Path, epochs: int) -> pd.DataFrame:
    """AdamW and one cycle: 1e-4 for the pre-trained image tower, 1e-3 for all that starts at random."""
    size = run.pick(toy=32, lite=64, full=64)
    batches = Batches(images, size, shuffle=True, transforms=[RandomFlip()], device=run.device, seed=run.seed)
    tower = list(model.model.vision_model.parameters())
    known = {id(p) for p in tower}
    fresh = [p for p in model.parameters() if id(p) not in known]
    adamw = torch.optim.AdamW([{"params": tower}, {"params": fresh}], lr=1e-3, fused=True)
    rates = run.pick(toy=[2e-3, 2e-3], lite=[1e-4, 1e-3], full=[1e-4, 1e-3])
    cycle = torch.optim.lr_scheduler.OneCycleLR(adamw, rates, epochs * len(batches), pct_start=0.2)
    return fit(model, batches, epochs=epochs, optimizer=adamw, scheduler=cycle, max_norm=1.0, folder=folder,
               monitor="epoch", precision=run.precision, description=folder.name)  # fmt: skip


@once_a_run
def surrogate(run: Run) -> tuple[nn.Module, str]:
    """The model that the transfer attack sees, in eval mode, and where it comes from.

    ResNet-20: `$DATA_ROOT/weights/resnet20_cifar10.safetensors`, else the hub's; in `toy` a small network trained here.
    """
    if run.profile == "toy":
        return _toy_surrogate(run).eval(), "small_cnn, trained here"
    network, source = pretrained_resnet20()
    return network.to(run.device), source


def _toy_surrogate(run: Run) -> nn.Module:
    split = ten_classes(run)
    with seeded(run.seed):
        start = normalized(small_cnn(len(split.train.classes)), (0.5,) * 3, (0.25,) * 3)

    def learn(model: nn.Module, folder: Path) -> pd.DataFrame:
        batches = Batches(split.train, 32, shuffle=True, device=run.device, seed=run.seed)
        adam = torch.optim.Adam(model.parameters(), lr=3e-3)
        return fit(model, batches, epochs=15, optimizer=adam, folder=folder, monitor="epoch", description="surrogate")

    return load_or_train(run, NOTEBOOK, "surrogate", start, learn).model


def budget(run: Run) -> float:
    """Of the transfer attack, in pixels of [0, 1]: the assignment's 8/255; flat toy scenes need more."""
    return run.pick(toy=24 / 255, lite=8 / 255, full=8 / 255)


def transfer(run: Run, images: ImageSet) -> ImageSet:
    """`images` after the assignment's attack on the surrogate: torchattacks' PGD, 7 steps of a quarter of it."""
    attack = torchattacks.PGD(surrogate(run)[0], eps=budget(run), alpha=budget(run) / 4, steps=STEPS)
    return transfer_images(images, attack, run.folder("transfer images"), device=run.device, seed=run.seed)


@once_a_run
def attacked(run: Run) -> Split:
    """`ten_classes`, attacked on the surrogate."""
    return Split(*(transfer(run, part) for part in ten_classes(run)))
