"""A training that a test starts: `killed_training.py FOLDER [STEP]` kills itself at that step, with SIGKILL."""

import os
import signal
import sys

import torch
from conftest import small_net, toy_set

from helpers.data import Batches, GaussianNoise, RandomCrop, RandomFlip
from helpers.training import fit
from helpers.training.checkpoints import weights_checksum


def train(folder, kill_at=None):
    torch.set_num_threads(1)  # the order of summation must not depend on the machine's load
    model = small_net()
    transforms = [RandomFlip(), RandomCrop(2), GaussianNoise(0.01)]
    train = Batches(toy_set(160), 16, shuffle=True, transforms=transforms, seed=5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=4 * len(train))
    steps = iter(range(10**6))

    def loss(logits, labels):
        if next(steps) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.nn.functional.cross_entropy(logits, labels)

    val = Batches(toy_set(40, seed=9), 40)
    history = fit(model, train, epochs=4, optimizer=optimizer, scheduler=scheduler, loss=loss, folder=folder, val=val)
    return model, history


if __name__ == "__main__":
    model, history = train(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None)
    os.write(1, f"{weights_checksum(model)} {history.drop(columns='seconds').to_json()}".encode())
