"""What a training step costs: seconds, taken by turns so that a busy machine hits all alike, and peak memory.

Memory is measured in a process of its own, because a process remembers only its largest moment.
`python -m helpers.conv.memory SimpleNet "nn.Conv2d" --batch 32 --size 128` prints one such measurement as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import psutil
import torch
import torch.nn.functional as F
from torch import nn

from .. import models
from .designs import DESIGNS

Step = Callable[[], None]


def training_step(network: nn.Module, batch: int, size: int, device: torch.device | str = "cpu") -> Step:
    """One step of SGD on random images `(batch, 3, size, size)`: forward, backward, update."""
    network = network.to(device).train()
    images = torch.rand(batch, 3, size, size, device=device)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)
    labels = torch.zeros(batch, dtype=torch.long, device=device)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
        if images.is_cuda:
            torch.cuda.synchronize()

    return step


def seconds_by_turns(steps: Mapping[str, Step], turns: int = 7) -> pd.DataFrame:
    """Seconds of each step, a column each, a row for each turn; the first, which warms up, is left out."""
    rows = [{name: _seconds(step) for name, step in steps.items()} for _ in range(turns + 1)]
    return pd.DataFrame(rows[1:])


def ratios(seconds: pd.DataFrame, to: str) -> pd.DataFrame:
    """Median, smallest and largest ratio to the column `to` within a turn; a row for each column."""
    shares = seconds.div(seconds[to], axis=0)
    return pd.DataFrame({"time": shares.median(), "lowest": shares.min(), "highest": shares.max()})


def peak_megabytes(network: str, design: str, batch: int, size: int, device: str = "cpu") -> float:
    """The most memory that three training steps need beyond what the process held before, in MB.

    Args:
        network: a class in `helpers.models` that takes `classes` and `conv`.
        design: one of `designs.DESIGNS`.

    Raises:
        RuntimeError: the process that measures failed; its last line says why.
    """
    command = [sys.executable, "-m", "helpers.conv.memory", network, design, f"--batch={batch}", f"--size={size}"]
    found = subprocess.run([*command, f"--device={device}"], capture_output=True, text=True, check=False)
    if found.returncode:
        raise RuntimeError(f"no memory figure for {network} with {design}: {(found.stderr.splitlines() or ['?'])[-1]}")
    return json.loads(found.stdout)["megabytes"]


def side_by_side(network: str, batch: int, size: int, device: str = "cpu", turns: int = 7,
                 designs: Sequence[str] = tuple(DESIGNS)) -> pd.DataFrame:  # fmt: skip
    """A training step of `network` with each of `designs`: seconds, ratio of time (with its range), memory, its ratio.

    Ratios are to the first design; the other arguments are as in `peak_megabytes`.
    """
    make, first = getattr(models, network), designs[0]
    steps = {name: training_step(make(100, DESIGNS[name]), batch, size, device) for name in designs}
    seconds = seconds_by_turns(steps, turns)
    table = pd.DataFrame({"seconds": seconds.median()}).join(ratios(seconds, first))
    with ThreadPoolExecutor(2) as pool:  # memory, unlike time, does not mind company
        table["MB"] = list(pool.map(lambda name: peak_megabytes(network, name, batch, size, device), designs))
    return table.assign(memory=table.MB / table.MB[first]).rename_axis("convolution")


def _seconds(step: Step) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def _measure_memory(network: str, design: str, batch: int, size: int, device: str) -> float:
    step = training_step(getattr(models, network)(100, DESIGNS[design]), batch, size, device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before, largest = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated
    else:
        before, largest = psutil.Process().memory_info().rss, _largest_rss
    for _ in range(3):
        step()
    return (largest() - before) / 1e6


def _largest_rss() -> float:
    """The most that this process has ever held, in bytes."""
    if os.name == "nt":
        return psutil.Process().memory_info().peak_wset
    status = Path("/proc/self/status")
    if status.exists():  # Linux: `getrusage` would count what the parent held when it started this process
        return 1024 * float(re.search(r"VmHWM:\s+(\d+) kB", status.read_text()).group(1))
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(arguments: list[str] | None = None) -> None:
    """One measurement of memory, in this process."""
    parser = argparse.ArgumentParser(description=_measure_memory.__doc__)
    parser.add_argument("network")
    parser.add_argument("design", choices=DESIGNS)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    given = vars(parser.parse_args(arguments))
    sys.stdout.write(json.dumps({**given, "megabytes": _measure_memory(**given)}) + "\n")


if __name__ == "__main__":
    main()
