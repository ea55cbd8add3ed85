"""Grad-CAM of 64 images (ResNet-18, 32 px), scaled to [0, 1]: ours against pytorch-grad-cam, in turns, in one run."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from helpers.explain import grad_cam, scale_maps
from helpers.models import resnet18


def contenders(device: str) -> dict[str, Callable[[], object]]:
    """Both on the same model, layer, images and targets; the forward pass alone is the floor."""
    torch.manual_seed(0)
    model = resnet18(100, stem="half").eval().to(device)  # layer3: 4 x 4 cells
    images, targets = torch.rand(64, 3, 32, 32, device=device), torch.randint(100, (64,), device=device)
    peer, wanted = GradCAM(model, [model.layer3]), [ClassifierOutputTarget(int(target)) for target in targets]
    return {
        "pytorch-grad-cam": lambda: peer(images, wanted),
        "helpers.explain": lambda: scale_maps(grad_cam(model, model.layer3, images, targets)),
        "forward alone": torch.no_grad()(lambda: model(images)),
    }


def seconds(call: Callable[[], object], device: str) -> float:
    started = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main(repeats: int) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    calls = contenders(device)
    for call in calls.values():  # warm-up
        seconds(call, device)
    turns = [{name: seconds(call, device) for name, call in calls.items()} for _ in range(repeats)]
    print(f"Grad-CAM, batch 64, ResNet-18 at 32 px, {device}, {torch.get_num_threads()} threads, {repeats} turns")
    print(f"{'':18} {'median ms':>10} {'ratio to peer: median':>22} {'lowest':>7} {'highest':>8}")
    for name in calls:
        ratios = [turn[name] / turn["pytorch-grad-cam"] for turn in turns]
        median = 1000 * statistics.median(turn[name] for turn in turns)
        print(f"{name:18} {median:10.1f} {statistics.median(ratios):22.2f} {min(ratios):7.2f} {max(ratios):8.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
