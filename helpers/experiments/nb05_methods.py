"""Ways to adapt a CLIP to attacked images: LoRA, visual prompts, losses, temperatures, and what an epoch costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
import torchattacks
from torch import Tensor, nn

from ..attacks import PGD
from ..clip import LearnedHead, ZeroShot, class_vectors, in_batch_loss
from ..clip.head import fit_head
from ..clip.lora import add_lora
from ..clip.prompts import PixelFrame, PromptedEmbeddings
from ..contract import seeded
from ..course.run import Run
from ..data import Batches, ImageSet
from ..training import fit
from .nb02 import Trained, load_or_train
from .nb05 import NOTEBOOK, STEPS, attacked, budget, clip, surrogate, ten_classes

Adapter = Callable[[ZeroShot], nn.Module]


def lora(model: ZeroShot) -> nn.Module:
    """Rank 8, alpha 32, dropout 0.1 on the queries and values of the image tower."""
    model.tower = add_lora(model.tower)
    return model


def learned_head(model: ZeroShot) -> nn.Module:
    """LoRA, and a learned linear layer in the place of the texts."""
    return LearnedHead(lora(model))


def tokens(model: ZeroShot) -> nn.Module:
    """Five prompt tokens after the patches."""
    vision = model.tower.vision_model
    vision.embeddings = PromptedEmbeddings(vision.embeddings, 5, vision.config.hidden_size)
    return model


def frame(model: ZeroShot) -> nn.Module:
    """A frame of learned pixels, as wide for its image as 30 pixels are for 224."""
    resize, normalize = model.pixels
    model.pixels = nn.Sequential(resize, PixelFrame(resize.size, round(resize.size * 30 / 224)), normalize)
    return model


@dataclass(frozen=True)
class Method:
    """How a CLIP is adapted.

    Args:
        adapter: puts what is learned into the model.
        tau: temperature of the logits; None is CLIP's own.
        lr: of SGD with momentum 0.9; `full_lr`: with OpenAI's CLIP, if another (its prompts want far larger steps).
        images: `"attacked"` on the surrogate, `"clean"`, or `"white-box"`: attacked on the model itself as it learns.
        loss: of logits and labels.
    """

    adapter: Adapter
    tau: float | None = 0.01
    lr: float = 1e-3
    images: str = "attacked"
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    full_lr: float | None = None


METHODS = {
    "LoRA + CE": Method(lora, tau=1.0),
    "LoRA + CE, larger steps": Method(lora, tau=1.0, lr=0.1),
    "LoRA + CE, CLIP's scale": Method(lora, tau=None),
    "LoRA + TeCoA": Method(lora),
    "LoRA + TeCoA, tau 0.1": Method(lora, tau=0.1),
    "LoRA + TeCoA, in-batch texts": Method(lora, loss=in_batch_loss),
    "LoRA + learned head": Method(learned_head),
    "LoRA, clean images": Method(lora, images="clean"),
    "LoRA + TeCoA, white-box": Method(lora, images="white-box"),
    "VPT tokens + TeCoA": Method(tokens, lr=5e-3, full_lr=40.0),
    "VPT tokens + TeCoA, assigned lr": Method(tokens),
    "VPT tokens + TeCoA, paper's lr": Method(tokens, lr=40.0),
    "VPT frame + TeCoA": Method(frame, lr=3e-3, full_lr=40.0),
}


def zero_shot(run: Run, tau: float | None = None, classes: tuple[str, ...] | None = None) -> ZeroShot:
    """The unadapted CLIP as a classifier of the ten classes, or of others."""
    model, names = clip(run), classes or ten_classes(run).train.classes
    scale = None if tau is None else 1 / tau
    return ZeroShot(model, class_vectors(model, names), scale).eval().requires_grad_(False).to(run.device)


def start(run: Run, name: str) -> nn.Module:
    """The model that `METHODS[name]` starts from, always with the same first weights."""
    method = METHODS[name]
    model = zero_shot(run, method.tau)
    with seeded(run.seed):
        model = method.adapter(model).to(run.device)
    if isinstance(model, LearnedHead):
        fit_head(model, Batches(ten_classes(run).train, 100, device=run.device))
    return model


def adapted(run: Run, name: str) -> Trained:
    """The CLIP after one of `METHODS`, with the weights of the epoch that did best on attacked validation images."""
    epochs = run.pick(toy=2, lite=5, full=10)
    clean, hit = ten_classes(run), attacked(run)

    def train(model: nn.Module, folder: Path) -> pd.DataFrame:
        batches = _batches(run, hit.train if METHODS[name].images == "attacked" else clean.train)
        watched = {"val": Batches(clean.val, 128, device=run.device), "adv": Batches(hit.val, 128, device=run.device)}
        attack = _training_attack(model) if METHODS[name].images == "white-box" else None
        return fit(model, batches, watched, epochs=epochs, optimizer=_sgd(run, model, METHODS[name]), attack=attack,
                   loss=METHODS[name].loss, folder=folder, monitor="adv_top1", precision=run.precision,
                   description=name)  # fmt: skip

    return load_or_train(run, NOTEBOOK, name, start(run, name), train)


def _batches(run: Run, images: ImageSet) -> Batches:
    return Batches(images, run.pick(toy=32, lite=64, full=64), shuffle=True, device=run.device, seed=run.seed)


def _training_attack(model: nn.Module) -> PGD:
    """The TeCoA paper's: two steps of 1/255 within 1/255."""
    return PGD(model, 1 / 255, 1 / 255, 2)


def _sgd(run: Run, model: nn.Module, method: Method) -> torch.optim.Optimizer:
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decay = 1e-4 if method.adapter in (lora, learned_head) else 0.0  # a prompt has no size to go back to
    return torch.optim.SGD(learned, lr=learning_rate(run, method), momentum=0.9, weight_decay=decay)


def learning_rate(run: Run, method: Method) -> float:
    """Of the method in this profile."""
    return method.full_lr if run.profile == "full" and method.full_lr else method.lr


def epoch_costs(run: Run, steps: int = 3, rounds: int = 3) -> pd.DataFrame:
    """What an epoch of LoRA + TeCoA costs by where its attacked images come from, in multiples of one on clean images.

    `rounds` times `steps` batches of each kind by turns, so that what else the machine does hits all alike; the median.
    """
    name = "LoRA + TeCoA"
    clean, hit, model = ten_classes(run), attacked(run), start(run, name)
    white, source = _training_attack(model), surrogate(run)[0]
    anew = torchattacks.PGD(source, eps=budget(run), alpha=budget(run) / 4, steps=STEPS)
    kinds = {
        "clean images": (clean.train, None),
        "attacked once, from disk": (hit.train, None),
        "attacked anew on the surrogate": (clean.train, anew),
        "attacked on itself (2 steps)": (clean.train, white),
    }
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    sgd = _sgd(run, model, METHODS[name])
    for _ in range(rounds + 1):
        for kind, (images, attack) in kinds.items():
            seconds[kind].append(_seconds(model, list(islice(_batches(run, images), steps)), attack, sgd))
    median = {kind: statistics.median(times[1:]) for kind, times in seconds.items()}  # the first round warms up
    first = median["clean images"]
    return pd.DataFrame({"times": {kind: value / first for kind, value in median.items()}}).rename_axis("images")


def _seconds(model: nn.Module, batches: list[tuple[Tensor, Tensor]], attack: Callable | None,
             sgd: torch.optim.Optimizer) -> float:  # fmt: skip
    """Of training steps on these batches; that the model learns a little meanwhile changes no time."""
    began = time.perf_counter()
    model.train()
    for images, labels in batches:
        loss = F.cross_entropy(model(images if attack is None else attack(images, labels)), labels)
        sgd.zero_grad()
        loss.backward()
        sgd.step()
    loss.item()  # waits for a GPU
    return time.perf_counter() - began
