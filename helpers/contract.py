"""The rules of the house as code: pixels, labels, logits, a model's mode and gradients, seeds. For every room."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import TqdmWarning

if os.environ.get("TQDM_DISABLE", "0") not in ("", "0"):  # tqdm's bar for notebooks does not heed it
    from tqdm import tqdm as tqdm
else:
    with warnings.catch_warnings():  # a notebook without ipywidgets gets a bar of text, and no advice
        warnings.simplefilter("ignore", TqdmWarning)
        from tqdm.auto import tqdm as tqdm


def project_root() -> Path:
    """The repository's folder if `helpers` was installed from it (editable), else the current folder."""
    here = Path(__file__).resolve().parents[1]
    return here if (here / "pyproject.toml").exists() else Path.cwd()


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[nn.Module]:
    """`model` in eval mode; afterwards every submodule is back in its own mode (a frozen BatchNorm stays frozen)."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield model.eval()
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def gradients_on(model: nn.Module, images: Tensor) -> Iterator[Tensor]:
    """Eval mode with gradients, whatever the caller has set; gives a copy of the images that may take part in them.

    Without autocast, since small gradients round to zero in fp16.
    """
    plain, device = torch.inference_mode(False), images.device.type
    with eval_mode(model), plain, torch.enable_grad(), torch.autocast(device, enabled=False):
        yield images.detach().clone()


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """torch's global generators (dropout, first weights, random starts) seeded, and put back afterwards."""
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed of one epoch of a training: no two small seeds share one."""
    return seed * 1_000_003 + epoch


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Minus the log-probability of the label, in nats, `(N,)`; its gradient fades where the model is nearly certain."""
    return F.cross_entropy(logits, labels, reduction="none")


def check_logits(logits: Tensor, images: Tensor, highest: int = -1) -> None:
    """Raise ValueError unless `logits` are `(N, classes)` for N images; `highest` is the largest class asked for."""
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else ()
    if len(shape) != 2 or shape[0] != len(images) or shape[1] <= highest:
        raise ValueError(
            f"the model returns {shape or type(logits).__name__} for {len(images)} images: logits must be "
            f"(N, classes), with more than {max(highest, 0)} classes for these labels"
        )


def check_values(values: Tensor, logits: Tensor) -> None:
    """Raise ValueError unless a loss or score gave one number an image, `(N,)`."""
    if values.shape != logits.shape[:1]:
        raise ValueError(
            f"a loss or score must give one number for each image, not {tuple(values.shape)}: use reduction='none'"
        )


def check_labels(labels: Tensor, classes: int, images: Tensor | None = None) -> None:
    """Raise ValueError unless `labels` is int64 `(N,)`, one an image, with every value in `0 .. classes - 1`."""
    if labels.dtype != torch.int64 or labels.ndim != 1:
        raise ValueError(f"labels must be int64 (N,), got {labels.dtype} {tuple(labels.shape)}")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(
            f"labels must lie in 0 .. {classes - 1}, got {int(labels.min())} .. {int(labels.max())}: are they 1-based?"
        )
    if images is not None and len(images) != len(labels):
        raise ValueError(f"{len(images)} images but {len(labels)} labels")


def check_pixels(images: Tensor, slack: float = 1e-6) -> None:
    """Raise ValueError unless `images` is a finite float `(N, C, H, W)` in [0, 1], give or take `slack`."""
    if not images.is_floating_point() or images.ndim != 4:
        raise ValueError(f"images must be float (N, C, H, W), got {images.dtype} {tuple(images.shape)}")
    if not torch.isfinite(images).all():
        raise ValueError("images hold NaN or infinity: look at the step that made them")
    if images.numel() and (images.min() < -slack or images.max() > 1 + slack):
        span = f"{images.min():.3f} .. {images.max():.3f}"
        raise ValueError(f"images must lie in [0, 1], got {span}: put normalisation inside the model, not before it")


def to_uint8(images: Tensor) -> Tensor:
    """Float `(N, C, H, W)` in [0, 1] to bytes, rounded (truncation would shift an attack's budget)."""
    check_pixels(images)
    return (images * 255).round().clamp(0, 255).to(torch.uint8)
