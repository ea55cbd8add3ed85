"""In-memory batches against `DataLoader` with torchvision's transforms at 32 px; how fast the toy world is drawn; what
loading a set costs in memory."""

import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

from helpers.data import Batches, GaussianNoise, RandomCrop, RandomFlip, load, toy

REPEATS = 3
data = load("toy", "train")[:5_000]
pil_images = [to_pil_image(image) for image in data.images]  # what torchvision's CIFAR classes hand to their transforms


class AsTorchvision(Dataset):
    """Image by image: PIL, crop, flip, to tensor, noise."""

    steps = transforms.Compose([
        transforms.RandomCrop(32, padding=4, padding_mode="reflect"),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Lambda(lambda x: (x + 0.05**0.5 * torch.randn_like(x)).clamp(0, 1)),
    ])  # fmt: skip

    def __len__(self):
        return len(pil_images)

    def __getitem__(self, index):
        return self.steps(pil_images[index]), int(data.labels[index])


ours = Batches(data, 128, shuffle=True, transforms=[RandomFlip(), RandomCrop(4), GaussianNoise(0.05)])


def seconds(batches):
    started = time.perf_counter()
    for _ in batches:
        pass
    return time.perf_counter() - started


def drawing_speed():
    """Toy images a second on one thread at 32 px, median of three."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rates = []
    for seed in range(3):
        started = time.perf_counter()
        toy.draw(4_000, 32, seed)
        rates.append(4_000 / (time.perf_counter() - started))
    torch.set_num_threads(threads)
    return statistics.median(rates)


# In a process of its own; VmHWM and not getrusage, which a child takes over from its parent.
LOADING = """
from PIL import Image
from helpers.data import load
def memory(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))
Image.init()
before = memory("VmRSS")
images = load("made", "train").images
print((memory("VmHWM") - before) / images.nbytes)
"""


def loading_cost(count=1_000, size=256):
    """Peak growth of memory by the size of a set that is read from a zip (Linux only)."""
    file = io.BytesIO()
    to_pil_image(data.images[0]).resize((size, size)).save(file, "JPEG")
    with tempfile.TemporaryDirectory() as root:
        with zipfile.ZipFile(Path(root) / "made.zip", "w") as archive:
            for number in range(count):
                archive.writestr(f"made/train/class/{number}.jpg", file.getvalue())
        run = [sys.executable, "-c", LOADING]
        return float(subprocess.check_output(run, env=os.environ | {"DATA_ROOT": root}, text=True))


if __name__ == "__main__":
    if Path("/proc/self/status").exists():
        print(f"loading 1,000 images of 256 px: {loading_cost():.2f} times the set's size in memory; goal 1.2")
    seconds(ours)  # warm up
    for workers in (0, 2):
        loader = DataLoader(AsTorchvision(), 128, shuffle=True, num_workers=workers)
        ratios = sorted(seconds(loader) / seconds(ours.epoch(repeat)) for repeat in range(REPEATS))
        print(
            f"DataLoader with {workers} workers / ours, {len(data):,} images with crop, flip and noise: "
            f"median {statistics.median(ratios):.1f} "
            f"(lowest {ratios[0]:.1f}, highest {ratios[-1]:.1f}, n = {REPEATS})"
        )
    print(f"toy world: {drawing_speed():,.0f} images a second on one thread at 32 px; goal 2,000")
