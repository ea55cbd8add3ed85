"""A training step of SimpleNet with each way to write a convolution, beside torch's: time and peak memory.

    python bench/conv.py [--batch 32] [--size 128] [--network SimpleNet] [--device cpu] [--turns 7]

The goal for ours: at most 1.6 times the time (1.25 on a GPU) and 1.2 times the memory. Notebook 06 has the same table.
"""

from __future__ import annotations

import argparse

import torch

from helpers.conv.memory import side_by_side
from helpers.course.device import device_name


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="SimpleNet")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--turns", type=int, default=7)
    given = parser.parse_args()
    table = side_by_side(given.network, given.batch, given.size, given.device, given.turns)
    print(f"{given.network}, batch {given.batch}, {given.size} px, {device_name(torch.device(given.device))}")
    print(table.round(3).to_string())


if __name__ == "__main__":
    main()
