"""What `fit` costs over a bare PyTorch loop on the same batches, and how long a small CNN takes to learn the toy world.

Ratios from interleaved repetitions in one run: on a busy machine the ratio holds where seconds do not.
"""

import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from helpers.data import Batches, load
from helpers.models import resnet18
from helpers.models.weights import load_vit
from helpers.training import evaluate, fit

REPEATS = 5
data = load("toy", "train")[:1_600]
batches = Batches(data, 64, shuffle=True)


def new():
    torch.manual_seed(0)
    model = resnet18(100)
    return model, torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)


def bare():
    """The loop everybody writes, with the same running figures."""
    model, optimizer = new()
    model.train()
    total = correct = 0.0
    for images, labels in batches.epoch(0):
        logits = model(images)
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
        correct += (logits.argmax(1) == labels).sum().item()


def ours():
    model, optimizer = new()
    fit(model, batches, epochs=1, optimizer=optimizer)


def seconds(work):
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def learn_toy_world():
    """Seconds and test accuracy of a small CNN on the 100 toy classes."""
    layers = []
    for before, after in ((3, 16), (16, 32), (32, 64)):
        layers += [
            nn.Conv2d(before, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    model = nn.Sequential(*layers[:-1], nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(64, 100))
    started = time.perf_counter()
    train = Batches(load("toy", "train"), 64, shuffle=True)
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=5 * len(train))
    fit(model, train, epochs=5, optimizer=optimizer, scheduler=schedule)
    return time.perf_counter() - started, evaluate(model, Batches(load("toy", "test"), 500)).top1


def attention(size, kernel):
    """A step of a ViT-S/14 in bf16 with torch's fused attention for the CPU, or with the plain one of `fit`."""
    vit = load_vit("vit_small_patch14", size, 100).train()
    images, labels = torch.rand(32, 3, size, size), torch.arange(32)

    def step():
        with sdpa_kernel(kernel), torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(vit(images), labels)
        loss.backward()

    return step


if __name__ == "__main__":
    ours(), bare()  # warm up
    pairs = [(seconds(ours), seconds(bare)) for _ in range(REPEATS)]
    ratios = sorted(a / b for a, b in pairs)
    print(
        f"fit / bare loop, ResNet-18, batch 64, 32 px, an epoch of 1,600: median {statistics.median(ratios):.3f} "
        f"(lowest {ratios[0]:.3f}, highest {ratios[-1]:.3f}, n = {REPEATS}); goal 1.05 or less"
    )
    taken, top1 = learn_toy_world()
    print(
        f"small CNN, 100 toy classes, drawing included: {top1:.1%} after {taken:.0f} s "
        f"on {torch.get_num_threads()} threads; goal 80 % in 30 s"
    )
    for size in (56, 112):
        fused, plain = (attention(size, kernel) for kernel in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH))
        fused(), plain()
        ratios = sorted(seconds(fused) / seconds(plain) for _ in range(REPEATS))
        print(
            f"fused / plain attention, ViT-S/14, bf16, batch 32, {size} px: median {statistics.median(ratios):.2f} "
            f"(lowest {ratios[0]:.2f}, highest {ratios[-1]:.2f}, n = {REPEATS})"
        )
