# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,-all
#     comment_magics: false
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 01 · ResNet-18 on clean and on noisy CIFAR-100
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/notebooks/01_noisy_resnet.ipynb)
#
# A camera in poor light returns a grainy picture. A person names what is on it all the same. A network that was trained
# on clean photographs does not: in `lite`, the committed run, it names ⟦clean_clean⟧ of the clean test images and
# ⟦clean_noisy⟧ of the same images with grain added. Part 1 shows the grain, part 3 one network's answers before and
# after.
#
# **The assignment.** Train a ResNet-18 without pre-trained weights for 20 epochs on CIFAR-100, and once more on the same
# images with Gaussian noise of mean 0 and variance 0.05 added. Plot accuracy and loss on validation images, compare,
# explain.
#
# **What you will build.** The noise, a residual block and a training loop, each first in a few lines by hand and then
# shown to be equal to the library's version. With them two networks are trained that differ in nothing but the noise.
#
# **What to expect.** Each row is a network, each column a kind of test image (`lite`, 10,000 images):
#
# | | tested on clean images | tested on noisy images |
# |---|---|---|
# | **trained on clean images** | ⟦clean_clean⟧ | ⟦clean_noisy⟧ |
# | **trained on noisy images** | ⟦noisy_clean⟧ | ⟦noisy_noisy⟧ |
#
# | part | question |
# |---|---|
# | 1 | What does the noise do to an image, and what does clipping do to the noise? |
# | 2 | What is a residual block, and how much of a ResNet-18 does a 32-pixel image reach? |
# | 3 | How do the two trainings run? |
# | 4 | The same network, trained as an engineer would today |
# | 5 | The test images, used once: what does noise cost, and what does training on it buy? |
# | 6 | Over noise strength, and over seeds: how much of it is chance? |
# | 7 | Why did an earlier report see almost no effect? |
# | 8 | Must the noise be fresh in every epoch? |
# | 9 | Why does a ResNet with millions of parameters still work on noisy images? |

# %% [markdown]
# ## 0 · Set up
# `PROFILE` decides how much is computed: `toy` runs on drawn images in a minute and a half without a network, `lite`
# on the real data on a laptop's CPU, `full` on one GPU. All three run the same cells.

# %% tags=["parameters"]
# parameters
PROFILE = None  # "toy", "lite" or "full"; None: $PROFILE, else "toy"
DRIVE = False  # on Colab, True: keep checkpoints and results on Google Drive, so that a disconnect costs one epoch
REPOSITORY = "https://github.com/OWNER/REPOSITORY"  # where Colab gets `helpers` from

# %%
# setup: Colab starts with torch, but without this repository (elsewhere this cell does nothing)
import os
import sys
from contextlib import redirect_stdout
from importlib.metadata import version
from io import StringIO

if "google.colab" in sys.modules:
    if DRIVE:
        from google.colab import drive

        with redirect_stdout(StringIO()):  # it would print a folder of the machine
            drive.mount("/content/drive")
        for name in ("CHECKPOINT_DIR", "OUTPUT_DIR"):
            os.environ[name] = f"/content/drive/MyDrive/course/{name.lower()}"
    if not os.path.isdir("course"):
        !git clone -q --depth 1 $REPOSITORY course
    kept = " ".join(f"{name}=={version(name)}" for name in ("torch", "torchvision", "numpy"))
    !pip install -q uv
    !cd course && uv pip install -q --system --override overrides.txt -e . $kept
    sys.path.insert(0, os.path.abspath("course"))

# %%
import time
from copy import deepcopy
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock

from helpers import plotting
from helpers.contract import epoch_seed, eval_mode, to_uint8
from helpers.course.run import Run
from helpers.data import Batches, GaussianNoise, RandomCrop, RandomFlip, Resize, load
from helpers.models import normalized, resnet18
from helpers.models.resnet import skip_idle_taps
from helpers.training import evaluate, fit, metrics
from helpers.training.checkpoints import load_weights

run = Run("01_noisy_resnet", PROFILE, seed=0)
plotting.use_style()
pd.options.display.float_format = "{:.4f}".format
pd.options.display.max_colwidth = None
run

# %% [markdown]
# Every number that decides the run stands in one table, a column for each profile, with its reason. The cells below take
# their values from here and nowhere else.

# %%
SETTINGS = pd.DataFrame([  # name, toy, lite, full, reason
    ("data", "toy", "cifar100", "cifar100", "toy: drawn in memory, nothing to download"),
    ("train", 1_600, 45_000, 45_000, "images to learn from"),
    ("val", 400, 5_000, 5_000, "images to choose and to look by"),
    ("test", 500, 10_000, 10_000, "images for the tables of part 5, used once"),
    ("variance", 0.05, 0.05, 0.05, "of the noise, pixels in [0, 1]: the assignment's"),
    ("epochs", 3, 12, 20, "20 is the assignment's; lite: what half an hour of a laptop allows"),
    ("batch", 64, 128, 128, "left open by the assignment; a usual choice; toy: more steps from few images"),
    ("lr", 1e-3, 1e-3, 1e-3, "Adam's default at the start, 0 at the end, in between half a period of a cosine"),
    ("recipe_epochs", 3, 6, 20, "part 4; lite: as many as half an hour allows"),
    ("recipe_stem", "imagenet", "half", "small", "part 4; 'small' costs four times 'half' on a CPU"),
    ("recipe_batch", 128, 128, 128, "with lr 0.1: as He et al. (2015) on CIFAR"),
    ("recipe_lr", 0.1, 0.1, 0.1, "the peak of the cycle"),
    ("recipe_decay", 5e-4, 5e-4, 5e-4, "weight decay, usual with SGD on CIFAR"),
    ("side_train", 200, 8_000, 45_000, "parts 6 to 8; 8,000 as in the earlier report"),
    ("side_epochs", 2, 6, 20, "parts 6 to 8; lite: eight trainings in ten minutes"),
    ("seeds", (0, 1, 2), (0, 1, 2), (0, 1, 2), "part 6: three, the least that shows a spread"),
    ("enlarged_by", (2,), (2,), (2, 7), "part 7; 7 as in the report, 49 times the pixels"),
    ("enlarged_train", 200, 4_000, 8_000, "part 7, images that are really enlarged: each costs k^2 times as much"),
    ("enlarged_epochs", 1, 5, 20, "part 7"),
    ("probe", 200, 2_000, 2_000, "validation images for what is slow to look at"),
    ("curved", 50, 500, 500, "of these, for gradients (part 9 d)"),
], columns=["setting", "toy", "lite", "full", "reason"]).set_index("setting")  # fmt: skip
settings = SimpleNamespace(**SETTINGS[run.profile])
SETTINGS

# %%
MEAN, STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)  # of CIFAR-100's training images, per channel

# %% [markdown]
# ## 1 · The data and the noise
# The 50,000 training images are divided once, **without replacement** and with the same number of each class on both
# sides, into images to learn from and images to choose by (validation). Everything that chooses or looks closer uses
# validation images. The test images are read here and used in one single cell, in part 5.

# %%
pool, test = load(settings.data, "train"), load(settings.data, "test")
pool = pool.take(settings.train + settings.val, run.seed)
train, val = pool.divide(settings.train, run.seed)
test = test.take(settings.test, run.seed)
run.used(train, val, test)
pd.DataFrame([data.describe() for data in (train, val, test)], index=["training", "validation", "test"])


# %% [markdown]
# Are the three parts really apart? Compare them pixel by pixel.

# %%
def same_pixels(one, other):
    """How many images of `one` also lie in `other`."""
    seen = {image.numpy().tobytes() for image in other.images}
    return sum(image.numpy().tobytes() in seen for image in one.images)


copies = {
    "validation in training": same_pixels(val, train),
    "test in training": same_pixels(test, train),
    "test in validation": same_pixels(test, val),
}
run.table("copies", pd.DataFrame(copies, index=["identical images"]), "Images that occur in two parts")


# %% [markdown]
# Nothing was drawn twice: what the table counts are copies that the data set itself holds (CIFAR-100 has some; Barz and
# Denzler 2020). They are too few to move any figure below.

# %% [markdown]
# ### The noise by hand
# $\tilde x = \operatorname{clip}(x + \sigma z,\ 0,\ 1)$ with $z \sim \mathcal N(0, 1)$ for each of the
# $3 \times 32 \times 32$ values and $\sigma = \sqrt{0.05} \approx 0.2236$, which is about 57 of the 255 levels.

# %%
def add_noise(images, variance, generator):
    """Gaussian noise of mean 0 on images (N, 3, H, W) in [0, 1], clipped so that they stay images."""
    z = torch.randn(images.shape, device=images.device, generator=generator)  # (N, 3, H, W)
    return (images + variance**0.5 * z).clamp(0, 1)


# %% [markdown]
# `helpers.data.GaussianNoise` is the same as an object that a batch can be passed through. Given a generator in the same
# state, both must return the same images.

# %% tags=["nbval-check-output"]
noise = GaussianNoise(settings.variance)
images, labels = next(iter(Batches(val, 64)))  # float (64, 3, 32, 32) in [0, 1], int (64,)
by_hand = add_noise(images, settings.variance, torch.Generator().manual_seed(7))
assert torch.allclose(by_hand, noise(images, torch.Generator().manual_seed(7)), atol=1e-6)
print("noise by hand = helpers.data.GaussianNoise")

# %%
few = val[torch.arange(0, len(val), len(val) // 8)[:8]]
clean_few, labels_few = next(iter(Batches(few, 8)))
noisy_few, _ = next(iter(Batches(few, 8, transforms=[noise])))
names = [few.classes[label].replace("_", " ").replace(" ", "\n", 1) for label in labels_few]
grid = plotting.image_grid({"clean": clean_few, "noisy": noisy_few}, [names, [""] * 8])
run.figure("samples", grid, "Validation images, clean and with noise of variance 0.05 as trained on")

# %% [markdown]
# Top: validation images. Below: the same with the noise, as a network sees them in training. The noise is added in the
# batch, at 32 pixels, and drawn anew in every epoch.

# %% [markdown]
# ### What clipping does
# An image must stay in [0, 1], so values that would leave are set to the border. Near black and near white the noise can
# therefore go one way only: there it is no longer Gaussian, no longer of mean 0, and weaker.

# %%
pixels, _ = next(iter(Batches(val, 2_000)))
change = noise(pixels, torch.Generator().manual_seed(run.seed)) - pixels
borders, names = [-0.01, 0.1, 0.3, 0.7, 0.9, 1.0], ["0 - 0.1", "0.1 - 0.3", "0.3 - 0.7", "0.7 - 0.9", "0.9 - 1"]
brightness = pd.cut(pixels.flatten().numpy(), borders, labels=names)
clipped = pd.DataFrame({"change": change.flatten(), "brightness": brightness})
table = clipped.groupby("brightness", observed=True).change.agg(["mean", "var", "size"])
table["share of pixels"] = table.pop("size") / len(clipped)
table = table.rename(columns={"mean": "mean of the noise", "var": "variance of the noise"})
run.table("clipping", table, "The noise after clipping, by brightness of the pixel")

# %%
left = run.value("variance_after_clipping", float(clipped.change.var()))
run.finding(
    f"Over all pixels the variance left after clipping is **{left:.4f}**, not {settings.variance}. The darkest pixels "
    f"change by {table.iloc[0, 0]:+.3f} on average, the brightest by {table.iloc[-1, 0]:+.3f}."
)


# %% [markdown]
# So the noise also takes contrast away: dark becomes brighter and bright becomes darker. This returns in part 7.

# %% [markdown]
# ## 2 · The network
# A ResNet is a chain of blocks that compute $\operatorname{relu}(x + f(x))$: the input goes past two convolutions
# unchanged and is added to what they return. Where a block halves the image and doubles the channels, the way past is a
# 1×1 convolution of the same stride. Here is such a block (He et al. 2015), with the names of torchvision's parts so that
# it can take its weights.

# %%
class ResidualBlock(nn.Module):
    """relu(shortcut(x) + f(x)): (N, C, H, W) to (N, C', H / stride, W / stride)."""

    def __init__(self, channels, out_channels, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = nn.Identity()
        if stride != 1 or channels != out_channels:  # the sum needs two terms of the same shape
            projection = nn.Conv2d(channels, out_channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(out_channels))

    def forward(self, x):
        f = F.relu(self.bn1(self.conv1(x)))  # (N, C', H / stride, W / stride)
        f = self.bn2(self.conv2(f))  # (N, C', H / stride, W / stride)
        return F.relu(self.downsample(x) + f)


# %% [markdown]
# torchvision's ResNet-18 with one output a class and random weights; the block by hand takes over the weights of two of
# its blocks, one plain and one that halves. Output and gradient of the input must be the same.

# %% tags=["nbval-check-output"]
torch.manual_seed(run.seed)
network = resnet18(len(train.classes))
for theirs, x in ((network.layer1[0], torch.rand(4, 64, 8, 8)), (network.layer2[0], torch.rand(4, 64, 8, 8))):
    assert type(theirs) is BasicBlock
    ours = ResidualBlock(x.shape[1], theirs.conv2.out_channels, theirs.stride)
    ours.load_state_dict(theirs.state_dict())
    x.requires_grad_()
    (of_ours,), (of_theirs,) = (torch.autograd.grad(block(x).square().sum(), x) for block in (ours, theirs))
    assert torch.allclose(ours(x), theirs(x), atol=1e-5)
    assert torch.allclose(of_ours, of_theirs, rtol=1e-3, atol=1e-4)
parameters = sum(p.numel() for p in network.parameters())
print(f"residual block by hand = torchvision's; {parameters:,} parameters in a ResNet-18 with 100 outputs")

# %% [markdown]
# ### How much of it does a 32-pixel image reach?
# ResNet-18 was made for 224 pixels. Its stem (a 7×7 convolution of stride 2, then pooling of stride 2) and its three
# halving stages divide the side by 32. Which sizes are left of 32 pixels? The model used from here on has
# normalisation as its first layer, so that everything outside the model, noise included, speaks of pixels in [0, 1].

# %%
STAGES = ("normalize", "network.maxpool", *(f"network.layer{n}" for n in (1, 2, 3, 4)), "network.fc")


def keeper(kept, name):
    """A hook that notes what a module returns."""
    return lambda module, inputs, output: kept.update({name.removeprefix("network."): output})


def features(model, images):
    """What each stage returns for a batch, by the stage's name, in evaluation mode."""
    kept = {}
    hooks = [model.get_submodule(name).register_forward_hook(keeper(kept, name)) for name in STAGES]
    try:
        with eval_mode(model), torch.inference_mode():
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return kept


plain = normalized(network, MEAN, STD)
sizes = {name: " x ".join(map(str, output.shape[1:])) for name, output in features(plain, images).items()}
pd.DataFrame({"channels x height x width": sizes}).rename_axis("after")

# %% [markdown]
# After `layer4` one single position is left. A 3×3 convolution with padding 1 on a 1×1 image has nine taps, and eight of
# them lie on the padding: they multiply zeros. What multiplies zeros has a gradient of zero. Count it: one backward pass
# through a batch, and for each convolution the taps whose gradient is zero for all pairs of channels.

# %%
images, labels = next(iter(Batches(train, 128, shuffle=True, transforms=[noise])))
convolutions = {name: module for name, module in plain.named_modules() if isinstance(module, nn.Conv2d)}
loss = F.cross_entropy(plain.train()(images), labels)
gradients = torch.autograd.grad(loss, [module.weight for module in convolutions.values()])  # each (C', C, K, K)
rows, reached = {}, {}
for name, gradient in zip(convolutions, gradients, strict=True):
    reached[name] = gradient.abs().amax((0, 1)) > 0  # (K, K): some weight of this tap feels the loss
    pairs, used = gradient.shape[0] * gradient.shape[1], int(reached[name].sum())
    rows[name.removeprefix("network.")] = reached[name].numel(), used, gradient.numel(), gradient.numel() - pairs * used
columns = ["taps", "taps that see the image", "parameters", "without a gradient"]
idle_table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("convolution")
run.table("idle_taps", idle_table, "Taps of each convolution that see the image, 32 pixels").tail(7)

# %% [markdown]
# The nine taps of one of these convolutions (1: has a gradient), and the sum over the network:

# %% tags=["nbval-check-output"]
idle = int(idle_table["without a gradient"].sum())
assert idle == 5 * 256 * 512 + 3 * 8 * 512 * 512  # one convolution keeps 4 of 9 taps, three keep 1 of 9
run.value("idle_share", idle / parameters), run.value("parameters_that_learn", parameters - idle)
print(reached["network.layer4.1.conv2"].int())
print(f"{idle:,} of {parameters:,} parameters ({idle / parameters:.1%}) never receive a gradient")

# %% [markdown]
# 62 % of the network can learn nothing from images of this size, whatever the recipe: those weights keep the random
# values they started with. "11.2 million parameters" is the size of the file; 4.3 million is the size of the network
# that learns. A stem for small images (part 4) brings the rest to life.
#
# A processor multiplies the zeros all the same. `helpers.models.resnet.skip_idle_taps` leaves them out: at a single
# position the 3×3 convolution is one matrix product with its middle tap. The function stays the same, and so do the
# gradients:

# %% tags=["nbval-check-output"]
lean = skip_idle_taps(deepcopy(plain))
leaner = torch.autograd.grad(F.cross_entropy(lean.train()(images), labels), list(lean.parameters()))
usual = torch.autograd.grad(F.cross_entropy(plain(images), labels), list(plain.parameters()))
assert torch.allclose(lean(images), plain(images), rtol=1e-3, atol=1e-3)
assert all(torch.allclose(a, b, rtol=1e-2, atol=1e-4) for a, b in zip(leaner, usual, strict=True))
print("without the idle taps: the same logits, the same gradients")


# %%
def seconds_of_a_step(model, repeats=3):
    """Median time of one forward and backward pass over a batch, on the CPU."""
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        loss = F.cross_entropy(model(images[: settings.batch]), labels[: settings.batch])
        torch.autograd.grad(loss, list(model.parameters()))
        taken.append(time.perf_counter() - started)
    return sorted(taken)[repeats // 2]


slow, fast = (seconds_of_a_step(model.to(memory_format=torch.channels_last)) for model in (plain, lean))
run.finding(
    f"A step with a batch of {settings.batch} takes {1000 * slow:.0f} ms with the idle taps and {1000 * fast:.0f} ms "
    f"without them on this machine's CPU (median of 3): {slow / fast:.1f} times faster."
)


# %% [markdown]
# ## 3 · Two trainings
# What training is, in 12 lines: for each batch the loss, its gradient, a step. Order and noise of an epoch follow
# from the seed and the epoch's number.

# %%
def train_by_hand(model, batches, optimizer, epochs):
    """Plain training with cross-entropy, in place."""
    model.train()
    for epoch in range(epochs):
        torch.manual_seed(epoch_seed(batches.seed, epoch))  # for layers that draw (dropout); a ResNet has none
        for images, labels in batches.epoch(epoch):  # (N, 3, H, W), (N,): a new order and new noise in each epoch
            logits = model(images)  # (N, classes)
            loss = F.cross_entropy(logits, labels)  # mean over the batch
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model


# %% [markdown]
# `helpers.training.fit` does the same and also measures, saves, resumes after a stop and uses mixed precision on a
# GPU. Run both for one epoch on a subset, from the same first weights: afterwards all weights must agree.

# %%
def new_model(stem="imagenet", seed=run.seed):
    """A ResNet-18 with its own first weights for each seed, behind its normalisation."""
    torch.manual_seed(seed)
    model = skip_idle_taps(normalized(resnet18(len(train.classes), stem), MEAN, STD))
    return model.to(run.device, memory_format=torch.channels_last)


# %% tags=["nbval-check-output"]
batches = Batches(train.take(192, 0), settings.batch, shuffle=True, transforms=[noise], device=run.device, seed=3)
model = new_model()
by_hand = train_by_hand(model, batches, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9), epochs=1)
model = new_model()
fit(model, batches, epochs=1, optimizer=torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9))
pairs = zip(by_hand.state_dict().values(), model.state_dict().values(), strict=True)
assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in pairs)
print("one epoch by hand = one epoch of helpers.training.fit: the same weights")

# %% [markdown]
# **The assigned recipe**: Adam with a constant learning rate, cross-entropy, no augmentation. Both trainings see the
# same images in the same order from the same first weights; only the noise differs. After each epoch both are
# measured on clean *and* on noisy validation images. The weights kept are those of the best epoch on validation
# images *of the kind that was trained on*. A training that is stopped goes on where it was when the cell is run
# again.

# %%
watched = {"val": Batches(val, 500, device=run.device),
           "noisy_val": Batches(val, 500, transforms=[noise], device=run.device, seed=run.seed)}  # fmt: skip


def train_assigned(name, transforms=(), data=train, epochs=settings.epochs, watch=watched, monitor="val_top1", seed=0):
    """The assigned recipe; returns the model with its best weights, and its history."""
    model = new_model(seed=seed)
    batches = Batches(data, settings.batch, shuffle=True, transforms=transforms, device=run.device, seed=seed)
    adam = torch.optim.Adam(model.parameters(), lr=settings.lr, fused=True)
    to_zero = torch.optim.lr_scheduler.CosineAnnealingLR(adam, epochs * len(batches))
    history = fit(model, batches, watch, epochs=epochs, optimizer=adam, scheduler=to_zero, folder=run.folder(name),
                  monitor=monitor, precision=run.precision, description=name)  # fmt: skip
    return load_weights(model, run.folder(name) / "best.safetensors"), history


# %%
clean_model, clean_history = train_assigned("clean")
run.table("history_clean", clean_history, "Training on clean images").tail(3)

# %% [markdown]
# Notebooks 03 and 04 go on with this model and the next: each is kept with what it takes to build it again.

# %%
resnet = dict(classes=len(train.classes))
recipe = dict(train=settings.train, epochs=settings.epochs, batch=settings.batch, lr=settings.lr, seed=run.seed)
run.save_model("clean", clean_model, "resnet18", resnet, settings=dict(recipe, variance=0.0))


# %% [markdown]
# ### One image, before and after
# The network that was trained on clean images, asked about validation images that it names correctly (the first of
# every so many classes), without and with the noise. Above each image: its answer, and how sure it is.

# %%
def answers_of(model, images):
    """The class that the model names for each image, with its probability, as text."""
    with eval_mode(model), torch.inference_mode():
        sure, answer = model(images.to(run.device)).softmax(1).max(1)
    return [f"{val.classes[a].replace('_', ' ')}\n{s:.0%}" for a, s in zip(answer.tolist(), sure.tolist(), strict=True)]


right = evaluate(clean_model, watched["val"]).correct.nonzero().flatten()  # the images that it names
first = pd.Series(right.numpy()).groupby(val.labels[right].numpy()).first()  # one of each class
shown = val[torch.tensor(first.iloc[:: -(-len(first) // 8)].to_numpy())]
before, _ = next(iter(Batches(shown, 8)))
after, _ = next(iter(Batches(shown, 8, transforms=[noise])))
grid = plotting.image_grid({"clean": before, "noisy": after}, [answers_of(clean_model, x) for x in (before, after)])
run.figure("answers", grid, "One network's answers before and after the noise, trained on clean images")

# %%
still, once = evaluate(clean_model, watched["noisy_val"]).correct[right].sum().item(), len(right)
run.finding(f"Of {once:,} validation images that it names correctly, it still names {still:,} with the noise added.")

# %%
noisy_model, noisy_history = train_assigned("noisy", [noise], monitor="noisy_val_top1")
run.save_model("noisy", noisy_model, "resnet18", resnet, settings=dict(recipe, variance=settings.variance))
run.table("history_noisy", noisy_history, "Training on noisy images").tail(3)

# %% [markdown]
# The weights without a gradient: are they what part 2 says? In both trained models they must still be the random numbers
# they started as, after every step.

# %% tags=["nbval-check-output"]
start = new_model().state_dict()
for model in (clean_model, noisy_model):
    for name, taps in reached.items():
        now, then = model.state_dict()[f"{name}.weight"], start[f"{name}.weight"]  # (C', C, K, K)
        assert torch.equal(now[:, :, ~taps], then[:, :, ~taps])
        assert not torch.equal(now[:, :, taps], then[:, :, taps])
print("after both trainings the idle weights are what they were at the start")

# %%
figure = plotting.curves({"trained clean": clean_history, "trained noisy": noisy_history},
                         {"trained clean": "val", "trained noisy": "noisy_val"})  # fmt: skip
run.figure("curves", figure, "Accuracy and loss, each model on validation images of the kind it was trained on")


# %%
def summary(history, column):
    """Best epoch on validation images, and training accuracy minus validation accuracy at the end, in points."""
    gap = 100 * (history.train_top1 - history[column]).iloc[-1]
    return int(history.epoch[history[column].idxmax()]), gap, history.train_top1.iloc[-1]


clean_best, clean_gap, clean_fit = summary(clean_history, "val_top1")
noisy_best, noisy_gap, noisy_fit = summary(noisy_history, "noisy_val_top1")
run.value("clean_best_epoch", clean_best), run.value("noisy_best_epoch", noisy_best)
run.value("clean_train_top1", clean_fit), run.value("noisy_train_top1", noisy_fit)
run.finding(
    f"Validation accuracy peaks at epoch {clean_best} (clean) and {noisy_best} (noisy) of {settings.epochs}. After the "
    f"last epoch training accuracy is {clean_gap:.0f} (clean) and {noisy_gap:.0f} points (noisy) above validation."
)


# %% [markdown]
# **Reading the curves**, in `lite`. Both networks over-fit: the loss on validation images turns upwards after a few
# epochs while that on training images goes on falling, and accuracy stays where it is. The noise slows this down,
# since no image is seen twice in the same form: after 20 epochs the clean network names ⟦clean_train⟧ of its training
# images, the noisy one ⟦noisy_train⟧. It does not prevent it. (The kept weights are those of the best epoch,
# ⟦clean_best⟧ and ⟦noisy_best⟧.)

# %% [markdown]
# ## 4 · The same network, trained as an engineer would today
# Four changes: a stem for small images (3×3, no pooling), random flips and shifts by up to 4 pixels, SGD with
# momentum and weight decay instead of Adam, and one cycle of the learning rate, up and then down to zero (Smith and
# Topin 2017).

# %%
def train_recipe(name, transforms=()):
    """The second recipe; returns the model with its best weights, and its history."""
    model = new_model(settings.recipe_stem)
    augment = [RandomFlip(), RandomCrop(4), *transforms]
    batches = Batches(train, settings.recipe_batch, shuffle=True, transforms=augment, device=run.device, seed=run.seed)
    sgd = torch.optim.SGD(model.parameters(), lr=settings.recipe_lr, momentum=0.9, nesterov=True,
                          weight_decay=settings.recipe_decay)  # fmt: skip
    steps = settings.recipe_epochs * len(batches)
    cycle = torch.optim.lr_scheduler.OneCycleLR(sgd, max_lr=settings.recipe_lr, total_steps=steps, pct_start=0.25)
    history = fit(model, batches, watched, epochs=settings.recipe_epochs, optimizer=sgd, scheduler=cycle,
                  folder=run.folder(name), precision=run.precision, description=name)  # fmt: skip
    return load_weights(model, run.folder(name) / "best.safetensors"), history


recipe_model, recipe_history = train_recipe("recipe")
run.table("history_recipe", recipe_history, "Training with the second recipe, clean images").tail(3)

# %%
figure = plotting.curves({"assigned recipe": clean_history, "second recipe": recipe_history})
run.figure("recipe", figure, "The assigned recipe against the second one, clean images")


# %% [markdown]
# ## 5 · The test images, once
# The next cell is the only one in which a model sees test images: three models, clean and noisy images. Every table
# of this part is made from these six sets of answers, and nothing later depends on them.

# %%
def answers_on(data, model, transforms=(), seed=run.seed):
    """The model's answers to all of `data`, seen through `transforms`."""
    return evaluate(model, Batches(data, 500, transforms=transforms, device=run.device, seed=seed))


models = {"clean": clean_model, "noisy": noisy_model, "recipe": recipe_model}
kinds = {"clean": [], "noisy": [noise]}
answers = {(trained, tested): answers_on(test, model, transforms, run.seed + 1)
           for trained, model in models.items() for tested, transforms in kinds.items()}  # fmt: skip

# %% [markdown]
# **Table 1.** Each of the two assigned models on both kinds of images, with the 95 % bootstrap interval over test images.

# %%
rows = {}
for (trained, tested), answer in answers.items():
    low, high = metrics.interval(answer.correct)
    accuracy = run.value(f"trained_{trained}_tested_{tested}", answer.top1)
    rows[f"trained {trained}", f"tested {tested}"] = {"accuracy": accuracy, "low": low, "high": high}
table_1 = pd.DataFrame(rows).T.rename_axis(["model", "images"]).drop("trained recipe")
run.table("matrix", table_1, "Trained on (clean, noisy) x tested on (clean, noisy), with 95 % intervals")

# %%
accuracy, low, high = (table_1[column].unstack() for column in ("accuracy", "low", "high"))
figure = plotting.bars(accuracy, title="Trained on × tested on", low=low, high=high)
run.figure("matrix", figure, "Test accuracy, trained on x tested on, with 95 % intervals")


# %% [markdown]
# Both models answered the same images, so their difference is best taken image by image: what both get right or both get
# wrong says nothing about which is better, and drops out (a paired interval).

# %%
def difference(first, second):
    """Accuracy of `first` minus that of `second` on the same images, with the ends of its 95 % interval."""
    paired = first.correct.float() - second.correct.float()  # -1, 0 or 1 for each image
    return paired.mean().item(), *metrics.interval(paired)


def in_points(first, second):
    """`difference` as text, in percentage points."""
    return "{:+.1f} points (95 % interval {:+.1f} to {:+.1f})".format(*(100 * x for x in difference(first, second)))


compared = {"cost": [("clean", "noisy"), ("clean", "clean")], "gain": [("noisy", "noisy"), ("clean", "noisy")],
            "price": [("noisy", "clean"), ("clean", "clean")]}  # fmt: skip
for name, (first, second) in compared.items():
    run.value(name, answers[first].top1 - answers[second].top1)
cost, gain, price = (in_points(answers[first], answers[second]) for first, second in compared.values())
run.finding(
    f"Noise at test time changes the accuracy of the model that never saw any by **{cost}**. "
    f"Training on noise changes it on noisy images by **{gain}** and on clean ones by **{price}**."
)

# %% [markdown]
# **Reading Table 1**, in `lite`. Noise costs the clean network ⟦cost⟧ of its ⟦clean_clean⟧. Training on noise wins back
# ⟦gain⟧ points and is paid for with ⟦price⟧ points on clean images, which for this network are the foreign ones: it does
# *better* on noisy images than on clean ones. Part 9 finds most of the reason in one kind of layer.
#
# **Table 2.** The assignment's four figures on clean images, beside those of an earlier student report. That was
# *not* the same experiment: 8,000 training images, some of them validation images too; noise added after enlarging to
# 224 pixels (part 7); 2,000 validation images; last epoch. Precision, recall and F1 are averages weighted by class
# size, which makes recall equal to accuracy.

# %%
keys = {"accuracy": "top1", "precision": "precision_weighted", "recall": "recall_weighted", "F1": "f1_weighted"}
scores = {name: metrics.classification_metrics(answers[name, "clean"].logits, test.labels) for name in models}
table_2 = pd.DataFrame({f"trained {name}": {row: scores[name][key] for row, key in keys.items()} for name in kinds})
table_2["report, clean"] = [0.4150, 0.4499, 0.4150, 0.4183]
table_2["report, noisy"] = [0.3960, 0.4389, 0.3960, 0.3971]
run.value("clean_test_top1", scores["clean"]["top1"]), run.value("clean_test_top5", scores["clean"]["top5"])
run.table("four_figures", table_2.rename_axis("clean test images"), "Clean test images, beside an earlier report")

# %% [markdown]
# **Table 3.** The assigned recipe and the second one, both trained on the same clean images.

# %%
histories = {"clean": clean_history, "recipe": recipe_history}
table_3 = pd.DataFrame({
    "epochs": [settings.epochs, settings.recipe_epochs],
    "top-1, clean": [scores[name]["top1"] for name in histories],
    "top-5, clean": [scores[name]["top5"] for name in histories],
    "top-1, noisy": [answers[name, "noisy"].top1 for name in histories],
    "minutes of training": [history.seconds.sum() / 60 for history in histories.values()],
}, index=pd.Index(["assigned recipe", f"second recipe, {settings.recipe_stem} stem"], name="recipe"))  # fmt: skip
run.value("recipe_test_top1", scores["recipe"]["top1"]), run.value("recipe_test_top5", scores["recipe"]["top5"])
run.table("recipes", table_3, "The assigned recipe and the second one, on test images")

# %%
on_clean, on_noisy = (in_points(answers["recipe", kind], answers["clean", kind]) for kind in kinds)
run.finding(
    f"The second recipe changes clean test accuracy by **{on_clean}**, and accuracy on noisy images, which neither has "
    f"seen, by {on_noisy}."
)

# %% [markdown]
# **Reading it**, in `lite`. ⟦recipe_reading⟧

# %% [markdown]
# ### Which classes are hard?
# The confusion matrix of the second recipe (rows: the true class), and the pairs it mixes up most.

# %%
matrix = metrics.confusion_matrix(answers["recipe", "clean"].logits, test.labels)
figure = plotting.confusion(matrix, test.classes, f"Second recipe, clean test images of {test.name}")
run.figure("confusion", figure, "Confusion matrix, second recipe, clean test images")

# %%
wrong = torch.tensor(matrix).fill_diagonal_(0).flatten()
pairs = [divmod(int(place), len(test.classes)) for place in wrong.topk(8).indices]
confused = pd.DataFrame([(test.classes[a], test.classes[b], int(matrix[a, b]), int(matrix[a].sum())) for a, b in pairs],
                        columns=["true", "predicted", "images", "of"])  # fmt: skip
run.table("confused", confused, "The pairs of classes mixed up most often, second recipe")

# %%
per_class = metrics.per_class_metrics(answers["recipe", "clean"].logits, test.labels, test.classes)
ranked = run.table("per_class", per_class, "Precision, recall and F1 by class, second recipe").recall.sort_values()
hard, easy = (", ".join(f"{name} ({share:.0%})" for name, share in part.items()) for part in (ranked[:3], ranked[-3:]))
run.finding(f"Hardest by recall: {hard}. Easiest: {easy}.")

# %% [markdown]
# ## 6 · Over noise strength, and over seeds
# From here on everything is measured on validation images. First both models under the same noise (same seed) at each
# strength. The axis is the standard deviation $\sigma$; 0.05 is among them, because variance 0.05 is easily mistaken
# for it.

# %%
VARIANCES = [0.0, 0.0025, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2]


def accuracy_over_variance(model):
    """One row a variance: accuracy and the ends of its interval."""
    found = {}
    for variance in VARIANCES:
        answer = answers_on(val, model, [GaussianNoise(variance)], run.seed + 1)
        found[variance] = (answer.top1, *metrics.interval(answer.correct))
    return pd.DataFrame.from_dict(found, orient="index", columns=["accuracy", "low", "high"]).rename_axis("variance")


sweep = pd.concat({f"trained {name}": accuracy_over_variance(models[name]) for name in kinds}, axis=1)
flat = sweep.set_axis([" ".join(column) for column in sweep.columns], axis=1)
run.table("sweep", flat, "Validation accuracy over the variance of the noise, with 95 % intervals")

# %%
over_sigma = sweep.set_axis(pd.Index(sweep.index**0.5, name="sigma"))
accuracy, low, high = (over_sigma.xs(column, axis=1, level=1) for column in ("accuracy", "low", "high"))
figure = plotting.lines(accuracy, "standard deviation of the noise at test time", low=low, high=high,
                        marks={"in training": settings.variance**0.5})  # fmt: skip
run.figure("sweep", figure, "Validation accuracy over the strength of the noise, with 95 % intervals")

# %%
lead = sweep["trained noisy"].accuracy - sweep["trained clean"].accuracy
peak = sweep["trained noisy"].accuracy.idxmax()
run.finding(
    f"The noise-trained model's lead over the clean one is {100 * lead.iloc[0]:+.1f} points without noise and largest "
    f"at variance {lead.idxmax()}, {100 * lead.max():+.1f} points. Its own best is at variance {peak}."
)

# %% [markdown]
# ### How much of it is chance?
# The intervals so far say how far the figures would move with other *images*. They do not say how far they would move
# with other first weights, another order and other noise. For that the pair is trained three times with three seeds,
# on a subset (`side_train` and `side_epochs` in the settings; the images are the same each time).

# %%
side = train.take(settings.side_train, run.seed)
side_models, side_histories = {}, {}
for seed in settings.seeds:
    for kind, monitor in (("clean", "val_top1"), ("noisy", "noisy_val_top1")):
        side_models[kind, seed], side_histories[kind, seed] = train_assigned(
            f"{kind} seed {seed}", kinds[kind], side, settings.side_epochs, monitor=monitor, seed=seed
        )

# %%
side_answers = {(trained, tested, seed): answers_on(val, model, kinds[tested], run.seed + 1)
                for (trained, seed), model in side_models.items() for tested in kinds}  # fmt: skip
by_seed = pd.Series({key: answer.top1 for key, answer in side_answers.items()}).unstack([0, 1])
by_seed.columns = [f"{trained} → {tested}" for trained, tested in by_seed.columns]
by_seed["cost"] = by_seed["clean → noisy"] - by_seed["clean → clean"]  # of noise to the clean model
by_seed["gain"] = by_seed["noisy → noisy"] - by_seed["clean → noisy"]  # by training on noise, on noisy images
by_seed["price"] = by_seed["noisy → clean"] - by_seed["clean → clean"]  # of it, on clean images
caption = f"Three seeds, trained on → tested on; {len(side):,} training images, {settings.side_epochs} epochs"
run.table("seeds", by_seed.rename_axis("seed"), caption)

# %%
spread = by_seed.std()  # over the seeds
one, two = spread.iloc[:4], spread.iloc[4:]  # of an accuracy, of a difference
ends = metrics.interval(side_answers["clean", "clean", 0].correct)
_, *paired_ends = difference(side_answers["noisy", "clean", 0], side_answers["clean", "clean", 0])
half, paired_half = (ends[1] - ends[0]) / 2, (paired_ends[1] - paired_ends[0]) / 2
run.value("spread_least", one.min()), run.value("spread_most", one.max()), run.value("spread_difference", two.max())
run.value("half_accuracy", half), run.value("half_difference", paired_half)
run.finding(
    f"Between seeds an accuracy has a standard deviation of {100 * one.min():.1f} to {100 * one.max():.1f} points, a "
    f"difference one of {100 * two.min():.1f} to {100 * two.max():.1f}. The interval over images is "
    f"±{100 * half:.1f} points for an accuracy and ±{100 * paired_half:.1f} for a paired difference."
)


# %% [markdown]
# **Reading the two**, in `lite`. The standard deviation between seeds is between ⟦spread_least⟧ and ⟦spread_most⟧
# points for an accuracy and up to ⟦spread_difference⟧ points for a difference; the intervals over images are
# ±⟦half_accuracy⟧ and ±⟦half_difference⟧ points. Three values give the spread itself only roughly (a factor of two is
# no surprise). Cost, gain and price are many times as large as either. A difference of one or two points between two
# *single* trainings is not a finding, however narrow its interval over images.

# %% [markdown]
# ## 7 · Why did an earlier report see almost no effect?
# The report found 41.5 % (trained clean) and 39.6 % (trained noisy): noise seems to cost 2 points. Two things were
# different there. Its images were first enlarged from 32 to 224 pixels, and the noise was added *then*: each original
# pixel gets 7 × 7 = 49 independent draws, and the first layers, which average over neighbours, see their mean. And
# both models were tested on clean images only.

# %% [markdown]
# ### Noise that is averaged away
# Enlarge by $k$, add the assigned noise, average each $k \times k$ block back to one pixel, and ask the model that was
# trained on clean images. Averaging leaves $\sigma / k$.

# %%
@dataclass(frozen=True)  # its text tells trainings with different k apart
class NoiseAfterEnlarging:
    """Noise on an image enlarged k times, seen through k x k averages: (N, 3, H, W) to the same shape."""

    k: int

    def __call__(self, images, generator):
        enlarged = F.interpolate(images, scale_factor=self.k, mode="nearest")  # (N, 3, k H, k W)
        return F.avg_pool2d(noise(enlarged, generator), self.k)  # (N, 3, H, W)


probe = val.take(settings.probe, run.seed)
without = answers_on(probe, clean_model)
rows = {}
for k in (1, 2, 4, 7):
    batches = Batches(probe, 50, transforms=[NoiseAfterEnlarging(k)], device=run.device, seed=run.seed)
    left = torch.cat([images.cpu() for images, _ in batches]) - probe.images / 255
    answer = evaluate(clean_model, batches)
    rows[k] = settings.variance**0.5 / k, left.std().item(), answer.top1, *difference(answer, without)
columns = ["theory: sigma / k", "measured sigma", "accuracy of the clean model", "change by the noise", "low", "high"]
table_4 = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("enlarged by k")
run.table("upsampling", table_4, "What is left of the noise if it is added after enlarging k times, validation images")

# %% [markdown]
# (Measured sigma is below the theory at k = 1 because of clipping. At larger k it lies above: clipping makes dark pixels
# brighter and bright ones darker, and that no averaging takes out.)

# %% [markdown]
# ### With training, as the report did it
# Three networks on the same subset: without noise, with noise at 32 pixels, with noise at 7 times 32 pixels averaged
# back. The first two exist already (seed 0 of part 6). Each is tested on clean validation images, as in the report,
# and on images with the noise it was trained on. Last column: the network without noise in training, on those same
# noisy images.

# %%
seventh = NoiseAfterEnlarging(7)
watch = {"val": watched["val"], "own_val": Batches(probe, 50, transforms=[seventh], device=run.device, seed=run.seed)}
averaged_model, _ = train_assigned("averaged 7", [seventh], side, settings.side_epochs, watch, "own_val_top1")

trained_with = {"no noise": (side_models["clean", 0], []), "noise at 32 px": (side_models["noisy", 0], [noise]),
                "noise at 224 px, averaged back": (averaged_model, [seventh])}  # fmt: skip
clean_side, rows = answers_on(val, side_models["clean", 0]), {}
for name, (model, transforms) in trained_with.items():
    own, never = (answers_on(val, m, transforms, run.seed + 1) for m in (model, side_models["clean", 0]))
    on_clean = answers_on(val, model)
    rows[name] = on_clean.top1, *difference(on_clean, clean_side), own.top1, never.top1
columns = ["tested clean", "minus no noise", "low", "high", "tested on own noise", "no noise, on that noise"]
table_5 = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("trained with")
run.table("averaged", table_5, f"{len(side):,} training images, {settings.side_epochs} epochs, validation images")


# %% [markdown]
# Is the averaging by hand to blame for what this shows? The control: images that are really enlarged, with noise
# added before and after, each network tested on clean images and on images with its own noise. (In `lite` by 2, since
# an image of 224 pixels costs 49 times one of 32; in `full` also by 7.)

# %%
def enlarged_orders(k):
    """Three trainings on images enlarged k times; each model's answers on clean and on its own kind of images."""
    enlarge, found = Resize(k * train.images.shape[-1]), {}
    subset = train.take(settings.enlarged_train, run.seed)
    orders = {"no noise": [enlarge], "noise, then enlarge": [noise, enlarge], "enlarge, then noise": [enlarge, noise]}
    for name, transforms in orders.items():
        watch = {"val": Batches(probe, 100, transforms=[enlarge], device=run.device),
                 "own_val": Batches(probe, 100, transforms=transforms, device=run.device, seed=run.seed)}  # fmt: skip
        epochs, folder = settings.enlarged_epochs, f"enlarged {k} {name}"
        model, _ = train_assigned(folder, transforms, subset, epochs, watch, "own_val_top1")
        found[f"{k} x, {name}"] = [evaluate(model, batches) for batches in watch.values()]
    return found


orders = {name: pair for k in settings.enlarged_by for name, pair in enlarged_orders(k).items()}
table_6 = pd.DataFrame.from_dict({name: [answer.top1 for answer in pair] for name, pair in orders.items()},
                                 orient="index", columns=["tested clean", "tested on own noise"])  # fmt: skip
caption = f"Really enlarged images: {settings.enlarged_train:,} for training, {settings.enlarged_epochs} epochs"
run.table("enlarged", table_6.rename_axis("trained with"), caption)

# %%
(none, _), (before, before_own), (after, after_own) = list(orders.values())[:3]
run.finding(
    f"Enlarged 2 times, one seed each: on clean images noise before enlarging changes accuracy by "
    f"{in_points(before, none)}, noise after enlarging by {in_points(after, none)}. On their own noisy images the "
    f"second differs from the first by {in_points(after_own, before_own)}."
)

# %% [markdown]
# **The answer**, in `lite`. Noise added at 224 pixels and averaged over 7 × 7 is hardly noise: it takes the network
# that never saw any from ⟦averaged_without⟧ to ⟦averaged_never⟧, while the noise at 32 pixels takes it to ⟦never_32⟧.
# Trained with each and tested on *clean* images, as in the report, the price is ⟦averaged_price⟧ points for the
# former and ⟦price_32⟧ for the latter. The report's 2 points are what one expects of weak noise and a test without
# noise. That the network had become robust they do not show, because no noisy image was ever tested. At factor 2 the
# two orders, trained and tested on their own kind, differ by ⟦orders_difference⟧. ⟦orders_reading⟧

# %% [markdown]
# ## 8 · Fresh or frozen noise
# "Add noise to the training data" can also be read as: once, before training. Frozen noise is part of the image, so a
# network can learn it by heart. Same subset, same strength, same seed; both tested on validation images with fresh
# noise.

# %%
whole, _ = next(iter(Batches(side, len(side), transforms=[noise], seed=run.seed)))
frozen = replace(side, images=to_uint8(whole), source=f"{side.source}, noise frozen")
frozen_model, frozen_history = train_assigned("frozen", [], frozen, settings.side_epochs, monitor="noisy_val_top1")
histories = {"fresh noise": side_histories["noisy", 0], "frozen noise": frozen_history}
caption = f"Fresh against frozen noise, {len(side):,} training images"
run.figure("frozen", plotting.curves(histories, "noisy_val"), caption)

# %%
table_7 = pd.DataFrame({
    name: {"training, last epoch": history.train_top1.iloc[-1],
           "noisy validation, last epoch": history.noisy_val_top1.iloc[-1],
           "noisy validation, best epoch": history.noisy_val_top1.max()}
    for name, history in histories.items()
})  # fmt: skip
run.table("frozen", table_7.rename_axis("accuracy"), "Fresh against frozen noise, validation images with fresh noise")

# %%
answer_frozen = answers_on(val, frozen_model, [noise], run.seed + 1)
run.finding(
    f"With their best weights on noisy validation images, frozen noise instead of fresh changes accuracy by "
    f"**{in_points(answer_frozen, side_answers['noisy', 'noisy', 0])}**; on the training images the last epoch reached "
    f"{table_7.iloc[0, 1]:.1%} (frozen) and {table_7.iloc[0, 0]:.1%} (fresh)."
)


# %% [markdown]
# **Reading it**, in `lite`. Frozen noise is learnt by heart together with the image: ⟦frozen_train⟧ of the training
# images against ⟦fresh_train⟧, but ⟦frozen_val⟧ against ⟦fresh_val⟧ of the validation images. Drawing the noise anew
# costs one line and is an augmentation; freezing it only makes the data worse.

# %% [markdown]
# ## 9 · Why does a ResNet with millions of parameters still work on noisy images?
# Four reasons are usually given: convolutions average the noise away, skip connections make an ensemble of short paths,
# BatchNorm keeps the activations in range, and noise in training acts as a penalty. Each can be put to the test on the
# models at hand.

# %% [markdown]
# ### (a) Averaging
# A convolution is a weighted sum over a neighbourhood, pooling a mean. For independent noise of variance $\sigma^2$,
# $\operatorname{Var}\big(\sum_i w_i n_i\big) = \sigma^2 \sum_i w_i^2$, while the picture's own values, which are
# alike nearby, add up. The ratio of noise to signal *can* therefore fall from layer to layer. How far do the features
# move when noise is added, relative to their size?

# %%
def relative_change(model):
    """|features(noisy) - features(clean)| / |features(clean)|, a mean over images, for each stage."""
    views = [Batches(probe, len(probe), transforms=transforms, device=run.device) for transforms in kinds.values()]
    still, shaken = (features(model, next(iter(view))[0]).values() for view in views)
    pairs = zip(still, shaken, strict=True)
    return [((b - a).flatten(1).norm(dim=1) / a.flatten(1).norm(dim=1)).mean().item() for a, b in pairs]


stages = pd.Index([stage.removeprefix("network.") for stage in STAGES], name="after")
moved = pd.DataFrame({f"trained {name}": relative_change(models[name]) for name in kinds}, index=stages)
caption = "How far noise moves the features of each stage, relative to their length"
run.table("feature_change", moved, caption)
run.figure("feature_change", plotting.lines(moved, "after stage", "relative change", percent=False), caption)

# %%
at_input, clean_end, noisy_end = moved.iloc[0, 0], *moved.loc["layer4"]
run.finding(
    f"At the input the noise moves an image by {at_input:.0%} of its length. After the last block it is "
    f"{clean_end:.0%} in the model that was trained clean and **{noisy_end:.0%}** in the one trained on noise."
)


# %% [markdown]
# ### (b) Skip connections
# A residual block computes $x + f(x)$, so a network of $n$ blocks is a sum over $2^n$ paths, most of them short (Veit
# et al. 2016: it acts like an ensemble). If that is so, taking one block's $f$ away should hurt, but not destroy. The
# four blocks without a change of size can be tried. The control is the model trained on clean images, which has the
# same paths.

# %%
def accuracies(model):
    """Accuracy on clean and on noisy probe images."""
    return [answers_on(probe, model, transforms, run.seed + 1).top1 for transforms in kinds.values()]


def without_block(model, stage):
    """The same with the second block of `stage` passing its input through unchanged."""
    hook = getattr(model.network, stage)[1].register_forward_hook(lambda block, inputs, output: inputs[0])
    try:
        return accuracies(model)
    finally:
        hook.remove()


lesions = {"all blocks": accuracies(noisy_model) + accuracies(clean_model)}
for stage in ("layer1", "layer2", "layer3", "layer4"):
    lesions[f"without {stage}, block 2"] = without_block(noisy_model, stage) + without_block(clean_model, stage)
columns = [f"trained {trained}, {tested} images" for trained in ("noisy", "clean") for tested in kinds]
table_8 = pd.DataFrame.from_dict(lesions, orient="index", columns=columns).rename_axis("network")
run.table("lesions", table_8, "Accuracy with one residual block taken out, validation images")

# %%
kept = table_8["trained noisy, noisy images"].iloc[1:] / table_8["trained noisy, noisy images"].iloc[0]
run.value("lesion_least", kept.min()), run.value("lesion_most", kept.max())
run.finding(
    f"Without one block the noise-trained model keeps between {kept.min():.0%} and {kept.max():.0%} of its accuracy on "
    f"noisy images (guessing would be right on {1 / len(test.classes):.0%} of the images)."
)


# %% [markdown]
# ### (c) BatchNorm
# In evaluation mode a BatchNorm layer computes $\gamma\,(x - \mu) / \sqrt{v + \epsilon} + \beta$, where $\mu$ and $v$
# are mean and variance of each channel *as seen in training*. Noise changes both: it adds variance, and clipping
# shifts the mean. A network trained on clean images then normalises with the wrong numbers. How much of the damage is
# that alone? Estimate $\mu$ and $v$ again from noisy training images, without labels and without changing a single
# weight (Schneider et al. 2020).

# %%
def restandardised(model, transforms):
    """A copy of `model`: the BatchNorm layers with statistics of these training images, all weights the same."""
    model = deepcopy(model)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None  # a plain mean over all batches instead of a moving one
    model.train()
    with torch.no_grad():
        for images, _ in Batches(side, 400, transforms=transforms, device=run.device, seed=run.seed + 2):
            model(images)
    return model.eval()


# %% [markdown]
# The first BatchNorm layer sees what the first convolution returns; its new mean must be the mean of that, and the
# weights those of the old model.

# %% tags=["nbval-check-output"]
renewed = restandardised(clean_model, [noise])
seen = [clean_model.network.conv1(clean_model.normalize(images)).detach().mean((0, 2, 3))
        for images, _ in Batches(side, 400, transforms=[noise], device=run.device, seed=run.seed + 2)]  # fmt: skip
assert torch.allclose(renewed.network.bn1.running_mean, torch.stack(seen).mean(0), rtol=1e-3, atol=1e-3)
assert all(torch.equal(a, b) for a, b in zip(renewed.parameters(), clean_model.parameters(), strict=True))
print("new statistics, the same weights")

# %%
batchnorm = {}
for trained in kinds:
    versions = {"as trained": models[trained]}
    versions |= {f"{kind} images": restandardised(models[trained], kinds[kind]) for kind in kinds}
    for seen, model in versions.items():
        batchnorm[f"trained {trained}", seen] = [answers_on(val, model, t, run.seed + 1) for t in kinds.values()]
table_9 = pd.DataFrame.from_dict({key: [answer.top1 for answer in pair] for key, pair in batchnorm.items()},
                                 orient="index", columns=[f"tested {kind}" for kind in kinds])  # fmt: skip
table_9.index = pd.MultiIndex.from_tuples(table_9.index, names=["model", "statistics from"])
caption = "Accuracy with BatchNorm statistics estimated again, no weight changed, validation images"
run.table("batchnorm", table_9, caption)

# %%
old, new = (batchnorm["trained clean", seen][1] for seen in ("as trained", "noisy images"))
old_noisy, new_noisy = (batchnorm["trained noisy", seen][0] for seen in ("as trained", "clean images"))
control = in_points(batchnorm["trained clean", "clean images"][0], batchnorm["trained clean", "as trained"][0])
run.value("bn_gain", new.top1 - old.top1), run.value("bn_gain_noisy", new_noisy.top1 - old_noisy.top1)
run.value("cost_val", old.top1 - batchnorm["trained clean", "as trained"][0].top1)
run.value("price_val", old_noisy.top1 - batchnorm["trained clean", "as trained"][0].top1)
run.finding(
    f"New statistics alone change the clean model on noisy images by **{in_points(new, old)}**, and the noise-trained "
    f"model on clean images by **{in_points(new_noisy, old_noisy)}**. Control, the clean model with statistics "
    f"estimated again from clean images, on clean images: {control}."
)


# %% [markdown]
# **Reading it**, in `lite`. Of the ⟦cost_val⟧ points that noise costs the clean model, new statistics give back
# ⟦bn_gain⟧ without a label and without a changed weight, and the noise-trained model gains ⟦bn_gain_noisy⟧ points on
# clean images, of the ⟦price_val⟧ it lags behind there. So BatchNorm is not by itself a reason for robustness to
# noise. With statistics from other images it is part of the damage, and a network that saw noise in training has the
# right ones. The remaining difference is in the weights.

# %% [markdown]
# ### (d) Noise as a penalty
# What does training on $x + \sigma z$ ask for, other than training on $x$? Expand the loss around $x$ and average
# over $z$. The first-order term vanishes, because $z$ and $-z$ are equally likely; with $H$ the Hessian of the loss
# with respect to the pixels,
#
# $$\mathbb E_z\, L(x + \sigma z) = L(x) + \tfrac{\sigma^2}{2}\operatorname{tr} H + O(\sigma^4).$$
#
# Training on noise thus adds a penalty on the *curvature* of the loss, in all directions alike. Bishop (1995) calls it a
# penalty on the *gradient*. Both are right:
#
# - For the squared loss $\tfrac12 (f(x) - y)^2$,
#   $\operatorname{tr} H = \lVert\nabla f\rVert^2 + (f - y)\operatorname{tr}\nabla^2 f$, and at the best fit the
#   second term is zero on average over $y$. What is left is $\tfrac{\sigma^2}{2}\lVert\nabla f\rVert^2$: Tikhonov
#   regularisation.
# - For cross-entropy, let $f$ be the logits, $J$ their Jacobian and $p = \operatorname{softmax}(f)$. Then
#   $$H = G + \textstyle\sum_k (p_k - y_k)\,\nabla^2 f_k, \quad G = J^\top(\operatorname{diag} p - p p^\top) J.$$
#   Again the second term is zero on average over $y$, where $p$ is right; and the trace of the first is again a squared
#   gradient, with labels drawn from what the model itself believes:
#   $$\operatorname{tr} G = \mathbb E_{y \sim p(x)}\, \lVert \nabla_x \log p(y \mid x)\rVert_2^2.$$
#
# The logits of a ReLU network are piecewise linear. All their $\nabla^2 f_k$ sits in the kinks, but there are many, and
# where $p$ is wrong they count. So the rise of the loss is measured below twice: with labels that the model believes in,
# where the second term drops out, and with the true ones.
#
# An attacker chooses the direction instead of drawing it. Then the first-order term does not vanish:
# $\max_{\lVert\delta\rVert_\infty \le \varepsilon} L(x + \delta) \approx L(x) + \varepsilon\,\lVert\nabla_x L\rVert_1$,
# which is what training on FGSM adds (notebook 03). Gradient in both cases; but noise penalises its *squared* length,
# weighted by $\sigma^2/2$ and averaged over all directions, and the attack its sum of absolute values, weighted by
# $\varepsilon$, in the one direction that is worst.
#
# The squared gradient first, for given labels:

# %%
def squared_gradient(model, images, labels):
    """|gradient of log p(label) with respect to the pixels|^2, (N,)."""
    x = images.detach().clone().requires_grad_()  # (N, 3, H, W)
    log_p = model(x).log_softmax(1).gather(1, labels[:, None])  # (N, 1)
    (gradient,) = torch.autograd.grad(log_p.sum(), x)  # (N, 3, H, W): images do not touch each other
    return gradient.flatten(1).square().sum(1)


# %% [markdown]
# The identity on a network small enough for its whole Hessian (12 pixels, 5 classes, one ReLU layer, double precision),
# at a point between kinks, where $H = G$:

# %% tags=["nbval-check-output"]
torch.manual_seed(0)
tiny = nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 5)).double()
x = torch.rand(1, 3, 2, 2, dtype=torch.double)
hessian = torch.autograd.functional.hessian(lambda x: F.cross_entropy(tiny(x), torch.tensor([0])), x).view(12, 12)
p = tiny(x).softmax(1)[0]  # (5,)
by_gradients = sum(p[y] * squared_gradient(tiny, x, torch.tensor([y]))[0] for y in range(5))
assert torch.allclose(hessian.trace(), by_gradients)
print("trace of the Hessian between kinks = expected squared gradient")


# %% [markdown]
# Now the two networks. For $\operatorname{tr} G$ eight labels an image are drawn from the model's answer. The rise of the
# loss is measured with pairs $\pm z$, which cancel the first order, and without clipping.

# %%
def curvature(model, images, draws=8):
    """tr G at each image, (N,), with labels drawn from the model's own belief."""
    generator = torch.Generator(images.device).manual_seed(run.seed)
    with eval_mode(model):
        belief = model(images).softmax(1).detach()  # (N, classes)
        labels = torch.multinomial(belief, draws, replacement=True, generator=generator)  # (N, draws)
        return sum(squared_gradient(model, images, label) for label in labels.T) / draws


def rise_of_loss(model, images, labels, sigma, draws=2):
    """Rise of the mean loss under +- sigma z: with labels that the model believes in, and with the true ones."""
    generator = torch.Generator(images.device).manual_seed(run.seed)
    z = [torch.randn(images.shape, device=images.device, generator=generator) for _ in range(draws)]
    with eval_mode(model), torch.inference_mode():
        belief = model(images).softmax(1)  # (N, classes)
        shaken = [images, *(images + sign * sigma * one for one in z for sign in (1, -1))]
        losses = [[F.cross_entropy(model(x), target) for target in (belief, labels)] for x in shaken]
    still, *moved = torch.tensor(losses)  # each (2,)
    return (torch.stack(moved).mean(0) - still).tolist()


# %%
images, labels = next(iter(Batches(probe, settings.curved, device=run.device)))
SIGMAS = {"1/255": 1 / 255, "2/255": 2 / 255, "4/255": 4 / 255, "8/255": 8 / 255, "as trained": settings.variance**0.5}
rows, traces, slopes = {}, {}, {}
for kind in kinds:
    traces[kind] = run.value(f"curvature_{kind}", curvature(models[kind], images).mean().item())
    x = images.clone().requires_grad_()
    with eval_mode(models[kind]):
        (gradient,) = torch.autograd.grad(F.cross_entropy(models[kind](x), labels, reduction="sum"), x)
    slopes[kind] = gradient.abs().flatten(1).sum(1).mean().item()  # |gradient|_1, FGSM's
    for name, sigma in SIGMAS.items():
        rises = rise_of_loss(models[kind], images, labels, sigma)
        rows[f"trained {kind}, sigma {name}"] = sigma**2 / 2 * traces[kind], *rises, sigma * slopes[kind]
columns = ["sigma^2 / 2 tr G", "rise, believed labels", "rise, true labels", "FGSM of that size, to first order"]
table_10 = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("model and noise")
run.table("penalty", table_10, f"The penalty and the rise of the loss (nats), {len(images)} validation images")

# %%
flatter = run.value("curvature_ratio", traces["clean"] / traces["noisy"])
gentler = run.value("slope_ratio", slopes["clean"] / slopes["noisy"])
run.finding(
    f"Mean tr G is {traces['clean']:,.0f} in the model trained clean and {traces['noisy']:,.0f} in the one trained on "
    f"noise, a factor of {flatter:.1f}; FGSM's sum of absolute gradients falls by a factor of {gentler:.1f}."
)


# %% [markdown]
# **Reading it**, in `lite`. In the sense of the penalty the noise-trained network is flatter by a factor of
# ⟦curvature_ratio⟧. The series holds where it should, at small $\sigma$: at 1/255 it says ⟦predicted_small⟧ for the
# clean network, and ⟦measured_small⟧ is measured with believed labels (⟦true_small⟧ with the true ones: there the kinks
# count too). At the assigned strength it fails (⟦predicted_large⟧ against ⟦measured_large⟧): that noise is no small
# disturbance, and training on it is more than a penalty, it is other data. The gradient that an attacker uses is smaller
# by a factor of ⟦slope_ratio⟧ only, and an attack moves along it to first order (last column). Notebook 03 finds how
# little training on noise protects.

# %% [markdown]
# ## Theory 6.1: why does ResNet, with millions of parameters, still do well on noisy data?
# **The short answer**, in `lite`: it does so if it was trained on noisy data. Without that, the same architecture falls
# from ⟦clean_clean⟧ to ⟦clean_noisy⟧ (Table 1). So the reasons below explain why *training* on noise succeeds; none
# of them is enough without it.
#
# 1. **Skip connections.** $y = x + f(x)$ has the Jacobian $I + f'(x)$: the gradient reaches early layers without
#    passing through every weight in between, so that a deep network can be trained at all, on a noisy loss too (He et
#    al. 2015). Unrolled, the network is a sum over paths of which most are short; without any one of four blocks the
#    noise-trained model, in `lite`, keeps ⟦lesion_least⟧ to ⟦lesion_most⟧ of its accuracy on noisy images (part 9 b).
#    An ensemble averages errors that its members do not share. But the clean model has the same paths and is not
#    robust. (The effect on the gradient was not measured here.)
# 2. **Convolution and pooling average.** The variance of independent noise shrinks by $\sum_i w_i^2$, the picture,
#    alike in neighbouring pixels, does not. How strong an average is, part 7 shows: over 7 × 7 values the assigned
#    noise nearly disappears. Yet a filter averages only if it has learnt to: in `lite` the features of `layer4` move
#    by ⟦moved_clean⟧ of their length in the clean model and by ⟦moved_noisy⟧ in the noise-trained one (part 9 a).
#    Filters that enhance edges enhance noise.
# 3. **BatchNorm** keeps activations in range and is itself a source of noise in training, as each image is normalised
#    with the others of its batch. But its stored statistics belong to the training images. A part of what noise costs
#    the clean model is just that: in `lite` ⟦bn_gain⟧ points come back with new statistics (part 9 c).
# 4. **Noise as augmentation and as a penalty.** Fresh noise makes a new image of each one in every epoch, so less can
#    be learnt by heart: in `lite` ⟦fresh_train⟧ against ⟦frozen_train⟧ of the training images, ⟦fresh_val⟧ against
#    ⟦frozen_val⟧ of the others (part 8). To second order it adds $\tfrac{\sigma^2}{2}\operatorname{tr} G$ to the
#    loss, and the trace falls by a factor of ⟦curvature_ratio⟧ (part 9 d).
# 5. **Simple patterns first.** Gradient descent fits what many images share before what belongs to one (Arpit et al.
#    2017). Fresh noise is never shared and never comes back, so only the picture is left to be learnt.
# 6. **Many parameters are no hindrance.** Count them rightly first: at 32 pixels fewer than two in five can learn
#    (part 2), and in `lite` they still fit ⟦clean_train⟧ of the training images. Of all functions that fit, gradient
#    descent is thought to prefer simple ones (its implicit bias), which was not measured here. *Double descent*
#    (Nakkiran et al. 2020) is often given here and does not belong here: it says that test error can fall again when
#    a model grows past the point where it fits its training set. Noise in the *labels* makes that peak sharper. It
#    says nothing on noise in the *input*.
#
# **The limits.** Both curves of part 6 fall on past the variance of training. Outside the noise that was trained on, the
# network is not robust but foreign: in `lite` the noise-trained one loses ⟦price⟧ points on clean images.

# %% [markdown]
# ## Common mistakes
# What they cost, measured on the models of this notebook. First the quantities that no part above has measured.

# %%
class NoiseAfterNormalising:
    """The mistake: sigma is meant for pixels, but added to values that were divided by their standard deviation."""

    def __call__(self, images, generator):
        z = torch.randn(images.shape, device=images.device, generator=generator)
        return images + settings.variance**0.5 * z * torch.tensor(STD, device=images.device)[:, None, None]


draws = torch.randint(50_000, (10_000,), generator=torch.Generator().manual_seed(run.seed))  # with replacement
leak = torch.isin(draws[8_000:], draws[:8_000]).float().mean().item()  # validation draws that are training images too
side_clean = side_models["clean", 0]
seen, unseen = answers_on(side, side_clean).top1, side_answers["clean", "clean", 0].top1
with torch.no_grad():
    training_mode = deepcopy(clean_model).train()  # `eval()` forgotten: each batch has its own statistics
    batches = Batches(val, 500, transforms=[noise], device=run.device, seed=run.seed + 1)
    hits = [training_mode(images).argmax(1) == labels for images, labels in batches]
forgotten = torch.cat(hits).float().mean().item()
too_weak = answers_on(val, clean_model, [NoiseAfterNormalising()], run.seed + 1).top1

# %%
fresh, frozen_best = side_answers["noisy", "noisy", 0].top1, answer_frozen.top1
at_clean, at_noisy = sweep["trained clean"].accuracy[0.0], sweep["trained clean"].accuracy[0.05]
MISTAKES = [
    ("subset drawn with replacement", "accuracy on 'unseen' images", unseen, leak * seen + (1 - leak) * unseen),
    ("0.05 taken for sigma", "clean model on noisy images", at_noisy, sweep["trained clean"].accuracy[0.0025]),
    ("noise added after normalising", "clean model on noisy images", at_noisy, too_weak),
    ("noise added after enlarging 7 times", "clean model on noisy images", table_4.iloc[0, 2], table_4.iloc[3, 2]),
    ("noise drawn once, before training", "noise-trained, noisy images", fresh, frozen_best),
    ("`model.eval()` forgotten", "clean model on noisy images", at_noisy, forgotten),
    ("only clean images in the test", "what noise costs the clean model", at_clean - at_noisy, 0.0),
]
columns = ["mistake", "quantity", "done right", "with the mistake"]
mistakes = pd.DataFrame(MISTAKES, columns=columns).set_index("mistake")
run.value("leaked_share", leak)
run.table("mistakes", mistakes, "Common mistakes and what they do to a figure, validation images")

# %% [markdown]
# - **Drawing with replacement.** 10,000 draws of 50,000 with 8,000 of them for training: the share of validation
#   draws that are training images as well is ⟦leaked_share⟧, and the network knows those by heart. Use `take` and
#   `divide`, and compare pixels.
# - **Variance or standard deviation.** $\sigma = 0.05$ is noise of variance 0.0025, a twentieth.
# - **Noise in normalised units**, or after enlarging, is weaker than it looks. Say where it is added, and measure
#   what is left.
# - **Frozen noise** is learnt by heart.
# - **Evaluation in training mode.** It may even *help* here, for the reason of part 9 (c), and hides what the model
#   would do with a single image.
# - **Testing on clean images only** shows the price of training on noise and neither what noise costs nor what
#   training on it buys.
# - **Recall weighted by class size** is accuracy under another name (Table 2): report it once, or take macro averages.
# - **Counting parameters** as if all of them learnt (part 2).

# %% [markdown]
# ## Exercises
# Change the cell, write down what you expect, run it.
#
# **1.** On an image that is black everywhere, what is the mean of the clipped noise? Derive it, put it in, check.

# %%
MY_MEAN = 0.0  # your formula here, from `settings.variance` and `torch.pi`
black = torch.zeros(64, 3, 32, 32)
measured = noise(black, torch.Generator().manual_seed(0)).mean().item()
print(f"measured {measured:.4f}, yours {MY_MEAN:.4f}")

# %% [markdown]
# **2.** How many idle weights has the network with the stem `"half"`, and with `"small"`? And with images of 16
# or of 64 pixels? Derive it from the sizes, then change the first line.

# %%
STEM, SIZE = "imagenet", 32
network = resnet18(100, STEM).train()
weights = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d)]
loss = F.cross_entropy(network(torch.rand(16, 3, SIZE, SIZE)), torch.arange(16))
found = torch.autograd.grad(loss, weights)
print(sum(int((g.abs().amax((0, 1)) == 0).sum()) * g.shape[0] * g.shape[1] for g in found), "idle weights")


# %% [markdown]
# **3.** Does training on noise help against another disturbance? Write one (a blur, a dark image, a grey square) and
# predict which of the two models stands it better. The one given here only makes the image darker.

# %%
def disturbed(images, generator):
    """(N, 3, H, W) in [0, 1] to the same."""
    return images * 0.6


for kind in kinds:
    print(f"trained {kind}: {answers_on(probe, models[kind], [disturbed]).top1:.1%}")


# %% [markdown]
# **4.** The noise-trained model is worse on clean images. Train on a strength that is drawn anew for each image, from
# none to the assigned one. Where will the accuracy on clean and on noisy images be, compared with the two models of
# part 6? Complete the function (as it stands, the strength is always the same), give the training a longer run, and
# compare.

# %%
class MixedNoise:
    def __call__(self, images, generator):
        strength = torch.ones(len(images), 1, 1, 1, device=images.device)  # (N, 1, 1, 1): yours, between 0 and 1
        z = torch.randn(images.shape, device=images.device, generator=generator)
        return (images + strength * settings.variance**0.5 * z).clamp(0, 1)


mixed = new_model()
batches = Batches(side.take(400, 0), settings.batch, shuffle=True, transforms=[MixedNoise()], device=run.device)
fit(mixed, batches, epochs=1, optimizer=torch.optim.Adam(mixed.parameters(), lr=settings.lr), precision=run.precision)
print("clean {:.1%}, noisy {:.1%}".format(*accuracies(mixed)))

# %% [markdown]
# ## What this shows, and what it does not
# - The main pair and the second recipe are one training each. Part 6 says how far another seed would move them on a
#   subset.
# - Independent Gaussian noise is the easiest corruption. Blur, weather and compression (Hendrycks and Dietterich
#   2019) need their own test.
# - Robustness to *random* noise says little about noise that is chosen against the model. Notebook 03 attacks these two
#   models.

# %% [markdown]
# ## References
# - D. Arpit et al. A closer look at memorization in deep networks. 2017. arXiv:1706.05394
# - B. Barz, J. Denzler. Do we train on test data? Purging CIFAR of near-duplicates. 2020. arXiv:1902.00423
# - C. Bishop. Training with noise is equivalent to Tikhonov regularization. Neural Computation 7(1), 1995
# - K. He, X. Zhang, S. Ren, J. Sun. Deep residual learning for image recognition. 2015. arXiv:1512.03385
# - D. Hendrycks, T. Dietterich. Benchmarking neural network robustness to common corruptions and perturbations. 2019.
#   arXiv:1903.12261
# - P. Nakkiran et al. Deep double descent: where bigger models and more data hurt. 2020. arXiv:1912.02292
# - S. Schneider et al. Improving robustness against common corruptions by covariate shift adaptation. 2020.
#   arXiv:2006.16971
# - L. Smith, N. Topin. Super-convergence: very fast training of neural networks using large learning rates. 2017.
#   arXiv:1708.07120
# - A. Veit, M. Wilber, S. Belongie. Residual networks behave like ensembles of relatively shallow networks. 2016.
#   arXiv:1605.06431

# %%
cc, cn, nc, nn_, rc = (f"{answers[a, b].top1:.1%}" for a, b in [*list(answers)[:4], ("recipe", "clean")])
run.finish(
    f"Test accuracy on clean images: {cc} trained clean, {nc} trained noisy; on noisy images {cn} and {nn_}; "
    f"second recipe, {settings.recipe_epochs} epochs, {rc} on clean images"
)
