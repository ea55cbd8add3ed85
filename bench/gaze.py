"""The retinal warp: five gazes in one call against a loop, and its share of a training step.

    python bench/gaze.py [--size 64] [--batch 32] [--turns 9]

The goals: one call at least 1.2 times as fast as the loop; the warp less than a tenth of a step.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
import torch.nn.functional as F
from torchvision.models import resnet18

from helpers.course.device import device_name
from helpers.gaze import averaged, fixed_gazes, look
from helpers.models.cifar_resnet import CifarResNet


def seconds(work):
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--turns", type=int, default=9)
    given = parser.parse_args()
    torch.manual_seed(0)
    images = torch.rand(given.batch, 3, given.size, given.size)
    labels = torch.randint(10, (given.batch,))
    places = (fixed_gazes(given.size / 8) + torch.randn(given.batch, 5, 2)).requires_grad_()
    attention, branch = resnet18(num_classes=10), CifarResNet(blocks=1)

    def one_call():
        torch.autograd.grad(look(images, places).sum(), places)

    def loop():
        views = [look(images, places[:, k : k + 1]) for k in range(5)]
        torch.autograd.grad(torch.cat(views, 1).sum(), places)

    def step():
        gazes = places + 0.0 * attention(images).view(-1, 5, 2)
        loss = F.cross_entropy(averaged(branch, look(images, gazes)), labels)
        torch.autograd.grad(loss, [*attention.parameters(), *branch.parameters()])

    for work in (one_call, loop, step):
        work()
    turns = [(seconds(one_call), seconds(loop), seconds(step)) for _ in range(given.turns)]
    print(f"{given.batch} images of {given.size} px, five gazes, {device_name(torch.device('cpu'))}")
    print(f"loop / one call: {statistics.median(loop / call for call, loop, _ in turns):.2f}")
    print(f"warp / step:     {statistics.median(call / step for call, _, step in turns):.1%}")


if __name__ == "__main__":
    main()
