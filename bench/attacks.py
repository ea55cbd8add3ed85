"""Our PGD beside torchattacks', on ResNet-18 at 32 px: time a step, and robust accuracy under PGD-20 with 5 restarts.

Ratios from interleaved repetitions in one run: on a busy machine the ratio holds where seconds do not.

    python bench/attacks.py            # ImageNet stem: minutes on 2 cores
    python bench/attacks.py small      # the 3x3 stem of CIFAR networks: 16 times the work
"""

import statistics
import sys
import time
from functools import partial

import torch
import torch.nn.functional as F
import torchattacks

from helpers.attacks import FFGSM, PGD, robust_accuracy
from helpers.data import Batches, load
from helpers.models import normalized, resnet18
from helpers.training import evaluate

STEM = sys.argv[1] if len(sys.argv) > 1 else "imagenet"
REPEATS, STEPS, BATCH = 7, 5, 64
RESTARTS, IMAGES = 5, 192
BUDGETS = (2 / 255, 4 / 255, 8 / 255)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def seconds(work):
    started = time.perf_counter()
    result = work()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started, result


def trained(steps=250):
    """ResNet-18 that has learned the toy world, every other batch under a fast attack."""
    torch.manual_seed(0)
    model = normalized(resnet18(20, STEM), [0.5] * 3, [0.25] * 3).to(DEVICE)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)
    attack = FFGSM(model, 4 / 255, 5 / 255)
    batches = Batches(load("toy-coarse", "train"), BATCH, shuffle=True, device=DEVICE)
    for step, (images, labels) in zip(range(steps), (b for e in range(99) for b in batches.epoch(e)), strict=False):
        adv_images = attack(images, labels) if step % 2 else images
        model.train()
        loss = F.cross_entropy(model(adv_images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def time_a_step(model, images, labels):
    """Seconds a PGD step of ours and of torchattacks, and the ratio, by turns."""
    attacks = PGD(model, steps=STEPS), torchattacks.PGD(model, steps=STEPS)
    pairs = [[seconds(partial(attack, images, labels))[0] for attack in attacks] for _ in range(REPEATS + 1)]
    ours, theirs = (statistics.median(column) / STEPS for column in zip(*pairs[1:], strict=True))  # the first warms up
    ratio = statistics.median(a / b for a, b in pairs[1:])
    print(f"PGD step, batch {len(images)}: {ours * 1e3:.1f} ms, torchattacks {theirs * 1e3:.1f} ms, ratio {ratio:.2f}")


def torchattacks_restarts(model, data, eps):
    """bool (N,): right before and after each restart; all are run on all images, and the last step counts."""
    attack, stands = torchattacks.PGD(model, eps, eps / 4, 20), []
    for images, labels in data:
        answers = [model(images).argmax(1)] + [model(attack(images, labels)).argmax(1) for _ in range(RESTARTS)]
        stands.append((torch.stack(answers) == labels).all(0).cpu())
    return torch.cat(stands)


def time_robust_accuracy(model, data, eps):
    """Both from the same random starts."""
    attack = PGD(model, eps, eps / 4, 20, restarts=RESTARTS)
    torch.manual_seed(0)
    ours, outcome = seconds(lambda: robust_accuracy(model, data, attack))
    torch.manual_seed(0)
    theirs, stands = seconds(lambda: torchattacks_restarts(model, data, eps))
    print(
        f"{attack}: {ours:.1f} s, {outcome.survived.sum()} of {len(stands)} stand; "
        f"torchattacks {theirs:.1f} s, {stands.sum()} stand, {(stands != outcome.survived).sum()} differ; "
        f"{theirs / ours:.1f} times as fast"
    )


def test_images(model):
    """IMAGES of the test set as they come, and IMAGES that the model gets right: the wrong ones cost us nothing."""
    test = load("toy-coarse", "test")
    right = evaluate(model, Batches(test, 256, device=DEVICE)).correct
    print(f"clean top-1 {right.double().mean():.1%}")
    parts = {"as they come": test[:IMAGES], "all right": test[right.nonzero().squeeze(1)[:IMAGES]]}
    return {name: Batches(part, BATCH, device=DEVICE) for name, part in parts.items()}


def main():
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {DEVICE}, stem {STEM}")
    model = trained()
    images = test_images(model)
    time_a_step(model, *next(iter(images["all right"])))
    for name, data in images.items():
        print(f"test images, {name}:")
        for eps in BUDGETS:
            time_robust_accuracy(model, data, eps)


if __name__ == "__main__":
    main()
