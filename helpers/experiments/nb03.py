"""The four models after adversarial training: the assignment's way, and ways whose robustness survives an audit.

Kept here because notebook 03 measures these models and notebook 04 looks into them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import nn

from ..attacks import FFGSM, FGSM, PGD, Attack
from ..attacks.audit import Audit
from ..attacks.audit import audit as check
from ..attacks.defences import TRADES
from ..course.models import trained
from ..course.run import Run
from ..data import Batches, ImageSet, RandomCrop, RandomFlip, load
from ..models import normalized, resnet18
from ..plotting import audit_curves
from ..training import fit
from . import Split, Trained, load_or_train, once_a_run

NOTEBOOK = "03_attacks_and_defense"
ASSIGNED_EPS = 0.1  # in pixels of [0, 1]: 25.5 levels of 255
EPS = 8 / 255  # the community's budget on CIFAR
CIFAR_MEAN, CIFAR_STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)  # CIFAR-100's training images


@once_a_run
def cifar(run: Run) -> Split:
    """Notebook 01's split: CIFAR-100, or the toy world; read once a run."""
    real = ("cifar100", 45_000, 5_000, 10_000)
    name, train, val, test = run.pick(toy=("toy", 1_600, 400, 500), lite=real, full=real)
    learn, choose = load(name, "train").take(train + val, run.seed).divide(train, run.seed)
    return Split(learn, choose, load(name, "test").take(test, run.seed))


@once_a_run
def flowers(run: Run) -> Split:
    """Notebook 02's split: Flowers-102's official one, or toy classes that no pre-training saw; read once a run."""
    name, size = run.pick(toy=("toy-flowers", 32), lite=("flowers-102", 112), full=("flowers-102", 224))
    train, val, test = (load(name, split, size=size) for split in ("train", "val", "test"))
    return Split(train, val, test.take(run.pick(toy=1_000, lite=len(test), full=len(test)), run.seed))


def new_resnet(run: Run, classes: int, stem: str = "imagenet") -> nn.Module:
    """ResNet-18 behind its normalisation, always with the same first weights."""
    torch.manual_seed(run.seed)
    return normalized(resnet18(classes, stem), CIFAR_MEAN, CIFAR_STD).to(run.device)


def resnet(run: Run, noisy: bool) -> Trained:
    """Notebook 01's ResNet-18; its history stays there."""
    return Trained(trained(run, "01_noisy_resnet", "noisy" if noisy else "clean"), pd.DataFrame())


def vit(run: Run, name: str) -> Trained:
    """Notebook 02's ViT, `"fine-tuned"` or `"scratch"`; its history stays there."""
    return Trained(trained(run, "02_vit_transfer", name), pd.DataFrame())


RESNETS: dict[str, Callable[[Run], Trained]] = {  # of CIFAR's small images, and quick to train
    "ResNet-18": partial(resnet, noisy=False),
    "noisy ResNet-18": partial(resnet, noisy=True),
}
UNDEFENDED = RESNETS | {"ViT scratch": partial(vit, name="scratch"), "ViT pre-trained": partial(vit, name="fine-tuned")}


def split_of(run: Run, name: str) -> Split:
    """The images that the model `name` learnt from."""
    return cifar(run) if name in RESNETS else flowers(run)


def assigned_attacks(model: nn.Module) -> dict[str, Attack]:
    """The assignment's two attacks: FGSM, and PGD with 7 steps of 0.02, both without a random start."""
    return {"FGSM": FGSM(model, ASSIGNED_EPS), "PGD": PGD(model, ASSIGNED_EPS, 0.02, 7, random_start=False)}


def assigned(run: Run, name: str, kind: str) -> Trained:
    """The model `name`, trained on from its checkpoint on attacked images only, as the assignment asks.

    Args:
        kind: `"FGSM"`, or `"PGD"` (in `lite` with 3 steps of 0.05 instead of 7 of 0.02, and on the ViTs fewer epochs).

    The weights are those of the last epoch. The history's `val_adv_top1` is measured under the assignment's PGD.
    """
    split, small = split_of(run, name), name in RESNETS
    model = UNDEFENDED[name](run).model
    if kind == "PGD" and run.profile != "full":
        attack: Attack = PGD(model, ASSIGNED_EPS, 0.05, 3, random_start=False)
    else:
        attack = assigned_attacks(model)[kind]
    cut = {"FGSM": 3, "PGD": 2}[kind]
    epochs = run.pick(toy=2, lite=10 if small else cut, full=10)
    images = split.train.take(run.pick(toy=100, lite=5_000 if small else 510, full=8_000), run.seed)
    size = 64 if small or run.profile == "toy" else 16

    def train(model: nn.Module, folder: Path) -> pd.DataFrame:
        batches = Batches(images, size, shuffle=True, device=run.device, seed=run.seed)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3 if small else 2e-5)  # 1e-4 undid the ViT
        watched = Batches(_watched(run, split.val, 500 if small else 102, 500), 128, device=run.device)
        return fit(model, batches, watched, epochs=epochs, optimizer=optimizer, attack=attack, folder=folder,
                   val_attack=assigned_attacks(model)["PGD"], monitor="epoch", description=folder.name,
                   precision=run.precision)  # fmt: skip

    return load_or_train(run, NOTEBOOK, f"{name} {kind}", model, train)


Arguments = dict[str, Any]  # of `fit`
METHODS: dict[str, Callable[[nn.Module, int, float], Arguments]] = {
    "none": lambda model, steps, alpha: {},
    "FGSM": lambda model, steps, alpha: {"attack": FGSM(model, EPS)},
    "FFGSM": lambda model, steps, alpha: {"attack": FFGSM(model, EPS, 1.25 * EPS)},
    "PGD": lambda model, steps, alpha: {"attack": PGD(model, EPS, alpha, steps)},
    "TRADES": lambda model, steps, alpha: {"objective": TRADES(PGD(model, EPS, alpha, steps), beta=6.0)},
}


def arguments(run: Run, method: str, model: nn.Module) -> Arguments:
    """What `fit` is given so that `model` trains by one of `METHODS` in this profile."""
    steps, alpha = run.pick(toy=(2, EPS / 2), lite=(3, EPS / 2), full=(7, EPS / 4))
    return METHODS[method](model, steps, alpha)


def compared(run: Run, method: str) -> Trained:
    """The clean ResNet-18, trained on by one of `METHODS` at 8/255: same start, images, epochs and schedule for all.

    The weights are those of the epoch with the best accuracy under PGD on validation images (early stopping).
    """
    split, model = cifar(run), resnet(run, noisy=False).model
    epochs = run.pick(toy=2, lite=6, full=10)
    images = split.train.take(run.pick(toy=100, lite=6_000, full=45_000), run.seed)
    options = arguments(run, method, model)

    def train(model: nn.Module, folder: Path) -> pd.DataFrame:
        return _augmented(run, model, split._replace(train=images), folder, epochs, 0.05, options)

    return load_or_train(run, NOTEBOOK, f"compared {method}", model, train)


def fast(run: Run) -> Trained:
    """A ResNet-18 from scratch on all images by FFGSM training at 8/255: "Fast is better than free" (arXiv 2001.03994).

    With a stem that keeps more of a 32-px image, and early stopping on accuracy under PGD.
    """
    split = cifar(run)
    model = new_resnet(run, len(split.train.classes), run.pick(toy="imagenet", lite="half", full="small"))
    epochs = run.pick(toy=2, lite=9, full=30)
    images = split.train.take(run.pick(toy=100, lite=45_000, full=45_000), run.seed)
    options = {"attack": FFGSM(model, EPS, 10 / 255)}

    def train(model: nn.Module, folder: Path) -> pd.DataFrame:
        return _augmented(run, model, split._replace(train=images), folder, epochs, 0.1, options)

    return load_or_train(run, NOTEBOOK, "fast", model, train)


def _watched(run: Run, val: ImageSet, lite: int, full: int) -> ImageSet:
    """The validation images that a training is watched on; in `toy` too few for one of each class."""
    if run.profile == "toy":
        return val[:: len(val) // 12]
    return val.take(run.pick(toy=0, lite=lite, full=full), run.seed)


def _augmented(run: Run, model: nn.Module, split: Split, folder: Path, epochs: int, lr: float,
               options: Arguments) -> pd.DataFrame:  # fmt: skip
    """SGD with one cycle of the learning rate, flips and shifts; watched under PGD-10."""
    size = run.pick(toy=40, lite=128, full=128)
    batches = Batches(split.train, size, shuffle=True, transforms=[RandomFlip(), RandomCrop(4)], device=run.device,
                      seed=run.seed)  # fmt: skip
    sgd = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
    cycle = torch.optim.lr_scheduler.OneCycleLR(sgd, max_lr=lr, total_steps=epochs * len(batches), pct_start=0.25)
    watched = Batches(_watched(run, split.val, 500, 2_000), 500, device=run.device)
    return fit(model, batches, watched, epochs=epochs, optimizer=sgd, scheduler=cycle, folder=folder,
               val_attack=PGD(model, EPS, EPS / 4, 10), monitor="val_adv_top1", precision=run.precision,
               description=folder.name, **options)  # fmt: skip


class DrawnAudit(Audit):
    """An audit that draws its own curves, as the notebook's code asks for them."""

    def figures(self) -> tuple[Figure, Figure]:
        """Accuracy over eps (in 1/255), and over steps."""
        return audit_curves(self.by_eps, self.by_steps)


def audit(*arguments: Any, **options: Any) -> DrawnAudit:
    """`attacks.audit.audit`, with `figures`."""
    return DrawnAudit(**vars(check(*arguments, **options)))
