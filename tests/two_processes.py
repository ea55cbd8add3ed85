"""A training over two CPU processes that a test starts: writes each one's weights and history into FOLDER."""

import sys
from pathlib import Path

import torch
from accelerate import PartialState, debug_launcher
from conftest import toy_set
from torch import nn

from helpers.data import Batches
from helpers.training import fit
from helpers.training.checkpoints import save_weights


def plain_net():
    """Without BatchNorm and dropout, so that two halves of a batch give the whole batch's gradient."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 5, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 20))


def train(folder):
    torch.set_num_threads(1)
    model = plain_net()
    batches = Batches(toy_set(96), 32, shuffle=True, seed=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    val = Batches(toy_set(40, seed=1), 40)
    history = fit(model, batches, val, epochs=2, optimizer=optimizer, folder=Path(folder) / "run")
    rank = PartialState().process_index
    save_weights(model, Path(folder) / f"rank{rank}.safetensors")
    (Path(folder) / f"rank{rank}.json").write_text(history.drop(columns="seconds").to_json())


if __name__ == "__main__":
    if sys.argv[2] == "2":
        debug_launcher(train, (sys.argv[1],), num_processes=2)
    else:
        train(sys.argv[1])
