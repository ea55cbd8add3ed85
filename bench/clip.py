"""An epoch of LoRA + TeCoA by where its attacked images come from, in multiples of one on clean images.

    python bench/clip.py [--steps 3] [--turns 5]

The goal for images attacked once and read back: at most 1.15. A tiny untrained dual encoder on drawn scenes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from itertools import islice

import torch
import torch.nn.functional as F
import torchattacks
from transformers import Dinov2Config, Dinov2Model

from helpers.attacks import PGD
from helpers.attacks.transfer import transfer_images
from helpers.clip import ZeroShot, class_vectors
from helpers.clip.lora import add_lora
from helpers.clip.stand_in import TEMPLATES, new_clip
from helpers.data import Batches
from helpers.data.toy_pairs import TEN, draw_pairs
from helpers.models import normalized, small_cnn


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--turns", type=int, default=5)
    given = parser.parse_args()
    clean = draw_pairs(TEN, "train", 64 * given.steps)
    surrogate = normalized(small_cnn(10), (0.5,) * 3, (0.25,) * 3).eval()
    transfer = torchattacks.PGD(surrogate, eps=8 / 255, alpha=2 / 255, steps=7)
    with tempfile.TemporaryDirectory() as folder:
        attacked = transfer_images(clean, transfer, folder)
    model = adapted(clean.classes)
    own = PGD(model, 1 / 255, 1 / 255, 2)
    kinds = {
        "clean images": (clean, None),
        "attacked once, from disk": (attacked, None),
        "attacked anew on the surrogate": (clean, transfer),
        "attacked on itself (2 steps)": (clean, own),
    }
    seconds = {kind: [] for kind in kinds}
    for _ in range(given.turns + 1):  # by turns, so that what else the machine does hits all alike
        for kind, (images, attack) in kinds.items():
            seconds[kind].append(timed(model, images, attack, given.steps))
    median = {kind: statistics.median(times[1:]) for kind, times in seconds.items()}  # the first round warms up
    for kind, value in median.items():
        print(f"{kind:32} {value / median['clean images']:.3f}")


def adapted(classes):
    """A tiny classifier with LoRA, untrained: what it answers changes no time."""
    torch.manual_seed(0)
    tiny = Dinov2Config(image_size=32, patch_size=8, hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
                        use_mask_token=False)  # fmt: skip
    texts = [template.format(name) for template in TEMPLATES for name in classes]
    clip = new_clip(Dinov2Model(tiny), texts, (0.5,) * 3, (0.5,) * 3, projection=64)
    model = ZeroShot(clip, class_vectors(clip, classes), 100.0).requires_grad_(False)
    model.tower = add_lora(model.tower)
    return model


def timed(model, images, attack, steps):
    """Seconds of `steps` training steps."""
    sgd = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3, momentum=0.9)
    began = time.perf_counter()
    model.train()
    for batch, labels in islice(Batches(images, 64, shuffle=True), steps):
        loss = F.cross_entropy(model(batch if attack is None else attack(batch, labels)), labels)
        sgd.zero_grad()
        loss.backward()
        sgd.step()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
