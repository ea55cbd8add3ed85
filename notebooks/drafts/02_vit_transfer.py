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
# # 02 · A vision transformer with ten images a class: fine-tuned, or from scratch
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/notebooks/02_vit_transfer.ipynb)
#
# A botanist shows you ten photographs each of 102 flowers and then asks you to name thousands of others. You can do it,
# because you have looked at things all your life. A vision transformer that starts from random weights cannot: in `lite`,
# the committed run, it names ⟦scratch⟧ of the test images. The same network with weights that were trained on *other*
# photographs, with not one of these classes among them, names ⟦tuned⟧ after five passes over the same ten.
#
# **The assignment.** Load a pre-trained ViT (`vit_base_patch16_224`), give it a head for 102 classes and fine-tune it for
# 5 epochs on Flowers-102. Train the same network without pre-training for 10 epochs. Plot accuracy and loss on
# validation images, compare, and explain by what the two data sets contain.
#
# **What you will build.** A patch embedding, attention and a transformer block in a few lines each, shown to be equal to
# timm's. Then the two trainings, and what lies between them: nearest neighbours, a linear probe, LoRA.
#
# | part | question |
# |---|---|
# | 1 | What is in Flowers-102, and what had the pre-trained network seen? |
# | 2 | What is a vision transformer made of? |
# | 3 | How do the two trainings run? |
# | 4 | How much is in the features before any fine-tuning, and how little has to change? |
# | 5 | How many images a class does it take? |
# | 6 | The test images, used once |
# | 7 | Why pre-training should find flat minima, and what the measurement says |
# | 8 | The theory question, answered |

# %% [markdown]
# ## 0 · Set up
# `PROFILE` decides how much is computed: `toy` runs on drawn images in a minute and a half without a network, `lite` on
# the real flowers with a small pre-trained ViT on a laptop's CPU, `full` with the assignment's own ViT-B/16 on one GPU.
# All three run the same cells.

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
from types import SimpleNamespace

import numpy as np
import pandas as pd
import timm
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import LayerScale
from timm.models.vision_transformer import VisionTransformer
from timm.optim import param_groups_layer_decay
from torch import nn

from helpers import plotting
from helpers.clip.lora import add_lora, trainable
from helpers.contract import eval_mode
from helpers.course.run import Run
from helpers.data import Batches, RandomCrop, RandomFlip, load
from helpers.explain import sharpness as landscape
from helpers.models import normalized
from helpers.models.weights import find_weights, load_vit
from helpers.plotting import diagrams
from helpers.training import evaluate, fit, metrics
from helpers.training.checkpoints import load_weights

run = Run("02_vit_transfer", PROFILE, seed=0)
plotting.use_style()
pd.options.display.float_format = "{:.4f}".format
pd.options.display.max_colwidth = None
run

# %% [markdown]
# Every number that decides the run stands in one table, a column for each profile, with its reason. The cells below take
# their values from here and nowhere else.

# %%
SETTINGS = pd.DataFrame([  # name, toy, lite, full, reason
    ("data", "toy-flowers", "flowers-102", "flowers-102", "the official split; toy: drawn in memory, 50 classes"),
    ("size", 32, 112, 224, "pixels; lite: as in the archive, and a quarter of the work"),
    ("test", 1_000, 6_149, 6_149, "test images, used in one cell"),
    ("vit", "tiny", "vit_small_patch14", "vit_base_patch16_224", "22 and 86 million parameters"),
    ("cnn", "test_resnet", "efficientnet_lite0", "efficientnet_lite0", "part 4: a pre-trained CNN beside it"),
    ("source_train", 3_000, 0, 0, "toy only: images of the other half of the classes, to pre-train on"),
    ("source_epochs", 6, 0, 0, "toy only"),
    ("source_lr", 2e-3, 0.0, 0.0, "toy only"),
    ("batch", 16, 16, 16, "64 steps an epoch; larger ones leave too few"),
    ("tune_epochs", 5, 5, 5, "the assignment's"),
    ("tune_lr", 3e-4, 3e-4, 3e-4, "peak rate of the last block"),
    ("layer_decay", 0.8, 0.8, 0.8, "each block at 0.8 times the rate of the one above"),
    ("head_lr", 3e-3, 3e-3, 3e-3, "the head is new and learns fast"),
    ("scratch_epochs", 6, 10, 10, "the assignment's; toy: enough to see it learn"),
    ("scratch_lr", 5e-4, 5e-4, 5e-4, "one rate for all layers"),
    ("decay", 0.05, 0.05, 0.05, "weight decay of AdamW, usual for ViTs"),
    ("warm_up", 0.2, 0.2, 0.2, "share of the steps in which the rate rises; a ViT without it may not start"),
    ("crop", 3, 11, 22, "pixels: random shifts by up to a tenth of the side"),
    ("max_norm", 1.0, 1.0, 1.0, "gradients are clipped to this length"),
    ("seeds", (0, 1), (0, 1, 2), (0, 1, 2), "fine-tuning, three times: it takes minutes"),
    ("scratch_seeds", (0, 1), (0, 1), (0, 1), "from scratch, twice"),
    ("penalties", tuple(10.0**k for k in range(-5, 4)), tuple(10.0**k for k in range(-5, 4)),
     tuple(10.0**k for k in range(-5, 4)), "C of the linear probe; chosen on validation images"),
    ("lora_rank", 4, 8, 8, "part 4: columns of the low-rank factors"),
    ("lora_lr", 3e-3, 2e-3, 2e-3, "few weights that start at zero may move fast"),
    ("cnn_lr", 1e-3, 1e-3, 1e-3, "peak rate, one for all layers"),
    ("shots", (2,), (1, 2, 5), (1, 2, 5), "part 5: images a class, beside all 10"),
    ("around", 100, 102, 1_020, "part 7: training images on which the loss is mapped; lite: one a class"),
    ("amounts", 9, 9, 21, "part 7: points on a line"),
    ("radius", 0.05, 0.05, 0.05, "part 7: a filter may move by this share of its own length"),
    ("climb", 5, 6, 20, "part 7: steps of the ascent in the ball"),
    ("draws", 3, 3, 5, "part 7: random directions"),
    ("iterations", 6, 8, 30, "part 7: of the power method"),
], columns=["setting", "toy", "lite", "full", "reason"]).set_index("setting")  # fmt: skip
settings = SimpleNamespace(**SETTINGS[run.profile])
run.table("settings", SETTINGS, "Every setting, by profile, with its reason")

# %% [markdown]
# Precision: trainings compute in 16 bits where the device does so natively (`run.precision`, printed above; a GPU, or a
# CPU with instructions for bf16), else in 32. Features, test answers and all of part 7 are computed in 32, because small
# steps would drown in the rounding of 16.

# %% [markdown]
# ## 1 · The data
# The official split has **10 images a class to learn from, 10 to choose by**, and all the rest, 6,149, to report on. Ten
# images a class make this a question about pre-training: they are too few to learn from them what an edge is.

# %%
train, val, test = (load(settings.data, part, size=settings.size) for part in ("train", "val", "test"))
test = test.take(settings.test, run.seed)
run.used(train, val, test)
CLASSES = len(train.classes)
pd.DataFrame([data.describe() for data in (train, val, test)], index=["training", "validation", "test"])

# %%
few = train[torch.linspace(0, len(train) - 1, 16).long()]
images, labels = next(iter(Batches(few, 16)))
names = [few.classes[label].replace(" ", "\n", 1) for label in labels]
grid = plotting.image_grid({"": images[:8], " ": images[8:]}, [names[:8], names[8:]])
run.figure("samples", grid, "Training images with their classes")

# %%
parts = {"training": train, "validation": val, "test": test}
sizes = pd.DataFrame({name: torch.bincount(part.labels, minlength=CLASSES).numpy() for name, part in parts.items()})
table = sizes.agg(["sum", "min", "median", "max"]).astype(int).T.rename_axis("images a class")
run.table("class_sizes", table, "Images a class in each part of the split")

# %% [markdown]
# Training and validation images are balanced, the test images are not: the common flowers weigh more in the accuracy.
# The macro average of F1, which counts every class alike, stands beside it in part 6.
#
# ### What the pre-trained network had seen
#
# | | what the weights were trained on | and here |
# |---|---|---|
# | `vit_base_patch16_224` (`full`) | ImageNet-21k (14 million photographs, 21,000 classes), then ImageNet-1k (1.28 million, 1,000 classes, two of them flowers: daisy and yellow lady's slipper; rapeseed and a few fruits besides) | 8,189 photographs of 102 flowers common in the United Kingdom (Nilsback and Zisserman 2008) |
# | ViT-S/14 (`lite`) | photographs without labels: DINOv2's architecture and, by its features, a DINOv2 that its publisher trained further to predict what stands out in an image | the same, at 112 pixels |
# | tiny ViT (`toy`) | one half of the toy classes | the other half; no class in common |
#
# So the classes are new, and what can be carried over is how to see: edges, textures, petals and leaves, and the habit
# of looking for small differences. A third of ImageNet's classes are animals, 120 of them breeds of dog, which rewards
# just that. In kind, Flowers-102 is close to it (photographs, one object in the middle); in content it is far.
#
# The weights in `lite` are *not* the original DINOv2, whose features name more than 99 % of these test images with a
# linear classifier at 224 pixels or more (Oquab et al. 2023). Where a model hub can be reached, put them in its place.
# %% [markdown]
# ## 2 · What a vision transformer is made of
# A convolution knows two things before it has seen an image: neighbours belong together, and what holds here holds there.
# A vision transformer knows almost nothing of the kind. It cuts the image into patches, makes each a vector (a token),
# adds a learnt vector for the place, and lets every token look at every other. What neighbours are it has to find out.

# %%
TINY = dict(img_size=32, patch_size=8, embed_dim=96, depth=4, num_heads=3)  # toy: 16 tokens, learns in seconds
BUILD = dict(num_classes=CLASSES) | (
    TINY if run.profile == "toy" else dict(name=settings.vit, img_size=settings.size)
)  # what it takes to build the network again


def wake(network):
    """LayerScale at 0.1: timm's 1e-5 suits pre-trained weights, and starts each block as good as switched off."""
    for layer in network.modules():
        if isinstance(layer, LayerScale):
            nn.init.constant_(layer.gamma, 0.1)  # Touvron et al. (2021), for up to 18 blocks
    return network


def scratch_vit(seed=run.seed, classes=CLASSES):
    """The profile's ViT with random weights, behind its normalisation."""
    torch.manual_seed(seed)
    if run.profile == "toy":
        return normalized(VisionTransformer(**TINY, num_classes=classes), MEAN, STD).to(run.device)
    network = wake(load_vit(settings.vit, settings.size, classes))
    return normalized(network, MEAN, STD).to(run.device)


MEAN, STD = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
vit = scratch_vit().network
run.figure("vit", diagrams.vit_diagram(vit), "The vision transformer of this run, read from the network itself")

# %% [markdown]
# **From patches to tokens, by hand.** Cut the image into squares of $p \times p$ pixels, write the $3 p^2$ numbers of each
# in a row, and multiply by one matrix. It is the same as a convolution whose stride is the size of its kernel, and timm
# writes it as one.

# %%
def patch_tokens(images, weight, bias):
    """Images (N, 3, H, W) to tokens (N, number of patches, D); weight (D, 3, p, p), bias (D,)."""
    p = weight.shape[-1]
    squares = images.unfold(2, p, p).unfold(3, p, p)  # (N, 3, H / p, W / p, p, p)
    rows = squares.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)  # (N, patches, 3 p p)
    return rows @ weight.flatten(1).T + bias


# %% [markdown]
# **Attention, by hand.** Each token asks a question (query), offers a name (key) and holds something (value). How well the
# query of one fits the key of another, as a softmax over all tokens, says how much of the other's value it takes. Several
# heads do so side by side, each in its own slice of the vector.

# %%
def attention(tokens, qkv, proj, heads):
    """Tokens (N, T, D) to (N, T, D); qkv a linear layer D to 3 D, proj one D to D."""
    n, t, d = tokens.shape
    q, k, v = qkv(tokens).view(n, t, 3, heads, d // heads).permute(2, 0, 3, 1, 4)  # (N, heads, T, D / heads) each
    fit_of = q @ k.transpose(-2, -1) / (d // heads) ** 0.5  # (N, heads, T, T): query of a row, key of a column
    share = fit_of.softmax(-1)  # every row sums to 1
    return proj((share @ v).transpose(1, 2).flatten(2))  # heads side by side again, then mixed


def block(tokens, b):
    """One block of the transformer: attention, then a small network on each token, each added to what came in."""
    tokens = tokens + b.ls1(attention(b.norm1(tokens), b.attn.qkv, b.attn.proj, b.attn.num_heads))
    hidden = F.gelu(b.mlp.fc1(b.norm2(tokens)))  # (N, T, 4 D)
    return tokens + b.ls2(b.mlp.fc2(hidden))


def vit_by_hand(images, network):
    """Logits (N, classes) of a ViT that reads its class token."""
    patches = patch_tokens(images, network.patch_embed.proj.weight, network.patch_embed.proj.bias)
    first = network.cls_token.expand(len(images), -1, -1)  # (N, 1, D): it stands for the whole image
    tokens = torch.cat([first, patches], 1) + network.pos_embed  # (N, 1 + patches, D)
    for each in network.blocks:
        tokens = block(tokens, each)
    return network.head(network.norm(tokens)[:, 0])


# %% tags=["nbval-check-output"]
images = torch.rand(2, 3, settings.size, settings.size, generator=torch.Generator().manual_seed(1)).to(run.device)
with torch.inference_mode():
    vit.eval()
    embedded = vit.patch_embed(images)
    torch.testing.assert_close(patch_tokens(images, vit.patch_embed.proj.weight, vit.patch_embed.proj.bias), embedded)
    first = vit.blocks[0]
    torch.testing.assert_close(attention(embedded, first.attn.qkv, first.attn.proj, first.attn.num_heads),
                               first.attn(embedded), rtol=1e-4, atol=1e-4)  # fmt: skip
    torch.testing.assert_close(block(embedded, first), first(embedded), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(vit_by_hand(images, vit), vit(images), rtol=1e-3, atol=1e-4)
print("patch embedding, attention, block and the whole network by hand = timm's")

# %%
total = run.value("parameters", sum(p.numel() for p in vit.parameters()))
tokens = run.value("tokens", vit.patch_embed.num_patches)
in_head = run.value("head_parameters", sum(p.numel() for p in vit.get_classifier().parameters()))
run.finding(
    f"{total:,} parameters, {in_head:,} of them in the head; {tokens} patches. Training "
    "the head alone is called a linear probe; fine-tuning moves all of them."
)

# %% [markdown]
# ## 3 · Two trainings
# Both use AdamW, batches of 16, flips and small shifts, and one cycle of the learning rate: up in the first fifth of the
# steps, then down to zero. **Fine-tuned**: all weights move, 5 epochs; the new head fast, and each block slower than the
# one above it, because what lies near the pixels is the most general. **From scratch**: the same network, 10 epochs, one
# rate for all. The weights kept are those of the epoch that was best on validation images.

# %%
def adamw(model, lr, head_lr=None, layer_decay=1.0):
    """AdamW over what is trained; block k below the top learns at lr * layer_decay**k, the head at its own rate."""
    groups = param_groups_layer_decay(model.network, weight_decay=settings.decay, layer_decay=layer_decay)
    head = {id(p) for p in model.network.get_classifier().parameters()}
    for group in groups:
        scale = group.pop("lr_scale", 1.0)
        group["lr"] = head_lr if head_lr and any(id(p) in head for p in group["params"]) else lr * scale
    return torch.optim.AdamW(groups)


def train_network(name, model, optimizer, epochs, data=train, watch=val, seed=run.seed, batch=settings.batch, **more):
    """One cycle of the rate; returns the model with its best weights, and its history."""
    augment = [RandomFlip(), RandomCrop(settings.crop)]
    batches = Batches(data, batch, shuffle=True, transforms=augment, device=run.device, seed=seed)
    peaks = [group["lr"] for group in optimizer.param_groups]
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, peaks, epochs * len(batches), pct_start=settings.warm_up)
    history = fit(model, batches, Batches(watch, 128, device=run.device), epochs=epochs, optimizer=optimizer,
                  scheduler=cycle, max_norm=settings.max_norm, folder=run.folder(name), precision=run.precision,
                  description=name, **more)  # fmt: skip
    return load_weights(model, run.folder(name) / "best.safetensors").eval(), history


# %% [markdown]
# The pre-trained start. `lite` and `full` read weights from a file or a model hub. `toy` makes its own: the tiny ViT, and
# a small CNN for part 4, learn the half of the toy classes that is not asked for here.

# %%
if run.profile == "toy":
    source_train = load("toy-source", "train").take(settings.source_train, run.seed)
    source_val = load("toy-source", "val")

    def source_network(name, model):
        """A model that has learnt the source classes, to start from."""
        adam = torch.optim.AdamW(model.parameters(), settings.source_lr, weight_decay=settings.decay)
        return train_network(name, model, adam, settings.source_epochs, source_train, source_val, batch=64)[0].network

    sources = {"vit": source_network("pretrained", scratch_vit(classes=len(source_train.classes)))}


def with_body(network, state, head):
    """The network with all pre-trained weights but those of the head."""
    kept = {key: value for key, value in network.state_dict().items() if key.startswith(head)}
    network.load_state_dict({key: value for key, value in state.items() if not key.startswith(head)} | kept)
    return network


def pretrained_vit(seed=run.seed):
    """The profile's ViT with pre-trained weights and a new head, behind the normalisation that the weights want."""
    torch.manual_seed(seed)
    if run.profile == "toy":
        network = with_body(VisionTransformer(**TINY, num_classes=CLASSES), sources["vit"].state_dict(), "head.")
        return normalized(network, MEAN, STD).to(run.device)
    weights = find_weights(settings.vit)
    network = load_vit(settings.vit, settings.size, CLASSES, weights)
    return normalized(network, weights.mean, weights.std).to(run.device)


# %%
def tuning(model):
    return adamw(model, settings.tune_lr, settings.head_lr, settings.layer_decay)


def fine_tuned(name, seed=run.seed, data=train, watch=val, epochs=settings.tune_epochs):
    model = pretrained_vit(seed)
    return train_network(name, model, tuning(model), epochs, data, watch, seed=seed)


model = pretrained_vit()
part_of = {id(p): ".".join(name.split(".")[:2]) for name, p in model.network.named_parameters()}
peaks = {part_of[id(p)]: group["lr"] for group in tuning(model).param_groups for p in group["params"]}
last = len(model.network.blocks) - 1
assert np.isclose(peaks[f"blocks.{last}"], peaks[f"blocks.{last - 1}"] / settings.layer_decay)
assert min(peaks.values()) == peaks["patch_embed.proj"]
assert max(peaks.values()) == peaks["head.weight"]
print(f"peak rates: {peaks['patch_embed.proj']:.1e} (patches) to {peaks[f'blocks.{last}']:.1e} (last block), "
      f"{peaks['head.weight']:.1e} (head)")  # fmt: skip

# %%
tuned, tuned_history = fine_tuned("fine-tuned")
run.table("history_fine_tuned", tuned_history.drop(columns="lr"), "Fine-tuning, epoch by epoch")

# %%
def from_scratch(name, seed=run.seed):
    model = scratch_vit(seed)
    return train_network(name, model, adamw(model, settings.scratch_lr), settings.scratch_epochs, seed=seed)


scratch, scratch_history = from_scratch("scratch")
run.table("history_scratch", scratch_history.drop(columns="lr"), "Training from scratch, epoch by epoch")

# %% [markdown]
# Notebooks 03 and 04 attack and explain these two. Each is kept with what it takes to build it again.

# %%
kind = "VisionTransformer" if run.profile == "toy" else "load_vit"
recipe = dict(batch=settings.batch, decay=settings.decay, warm_up=settings.warm_up, crop=settings.crop, seed=run.seed)
tune_recipe = dict(recipe, epochs=settings.tune_epochs, lr=settings.tune_lr, head_lr=settings.head_lr)
scratch_recipe = dict(recipe, epochs=settings.scratch_epochs, lr=settings.scratch_lr)
run.save_model("fine-tuned", tuned, kind, BUILD, settings=dict(tune_recipe, layer_decay=settings.layer_decay))
run.save_model("scratch", scratch, kind, BUILD, settings=scratch_recipe)

# %%
histories = {"fine-tuned": tuned_history, "from scratch": scratch_history}
run.figure("curves", plotting.curves(histories), "Accuracy and loss of both trainings")

# %%
for name, history in histories.items():
    run.value(f"{name} first epoch", history.val_top1.iloc[0])
    run.value(f"{name} last epoch", history.val_top1.iloc[-1])
run.finding(
    f"After one epoch the fine-tuned network names {tuned_history.val_top1.iloc[0]:.1%} of the validation images; "
    f"after {settings.scratch_epochs} the one from scratch names {scratch_history.val_top1.iloc[-1]:.1%}."
)

# %% [markdown]
# ⟦curves_reading⟧

# %% [markdown]
# ## 4 · How much is there before fine-tuning, and how little has to change?
# **The features as they are.** The pre-trained network without its head makes each image one vector. Which of the training
# images is nearest to it, and has it the right class? And how good is the best *linear* classifier on these vectors?
# Everything is chosen and looked at on validation images.

# %%
def features(model, data):
    """What the network has before its head, for each image of a set: (N, D)."""
    found = []
    with eval_mode(model), torch.inference_mode():
        for images, _ in Batches(data, 128, device=run.device):
            tokens = model.network.forward_features(model.normalize(images))
            found.append(model.network.forward_head(tokens, pre_logits=True).cpu())
    return torch.cat(found).numpy()


start = pretrained_vit()
train_features, val_features = features(start, train), features(start, val)
train_labels, val_labels = train.labels.numpy(), val.labels.numpy()
nearest = KNeighborsClassifier(1, metric="cosine").fit(train_features, train_labels)
run.value("nearest_val_top1", nearest.score(val_features, val_labels))


def probe(features_of_train, labels, c):
    """A linear classifier with a penalty on features that are brought to mean 0 and deviation 1."""
    mean, std = features_of_train.mean(0), features_of_train.std(0) + 1e-6
    classifier = LogisticRegression(C=c, max_iter=1_000).fit((features_of_train - mean) / std, labels)
    return lambda features: classifier.predict((features - mean) / std)


def right_share(predict, features, labels):
    return float((predict(features) == labels).mean())


probes = {c: probe(train_features, train_labels, c) for c in settings.penalties}
on_validation = {c: right_share(classify, val_features, val_labels) for c, classify in probes.items()}
penalties = pd.DataFrame({"validation accuracy": on_validation})
best_c = penalties["validation accuracy"].idxmax()
run.value("best_c", best_c)
run.value("probe_val_top1", penalties["validation accuracy"].max())
run.table("penalties", penalties.rename_axis("C"), "The linear probe: accuracy on validation images by the penalty")

# %% [markdown]
# ⟦probe_reading⟧
#
# **LoRA.** Between moving nothing and moving everything lies a third way (Hu et al. 2021): leave every weight where it is
# and add to each query-key-value matrix a product $B A$ of two thin ones. $B$ starts at zero, so the network starts as it
# was. Notebook 05 writes it out; here peft does it.

# %%
def lora_vit(seed=run.seed):
    model = pretrained_vit(seed)
    torch.manual_seed(seed)
    model.network = add_lora(model.network, settings.lora_rank, alpha=settings.lora_rank, dropout=0.0, targets=["qkv"])
    model.network.get_classifier().requires_grad_(True)  # the head is new, so it is trained as a whole
    return model


lora = lora_vit()
lora_parameters = run.value("lora_parameters", trainable(lora))
movable = [p for p in lora.parameters() if p.requires_grad]
head = {id(p) for p in lora.network.get_classifier().parameters()}
lora_adam = torch.optim.AdamW([
    {"params": [p for p in movable if id(p) in head], "lr": settings.head_lr, "weight_decay": settings.decay},
    {"params": [p for p in movable if id(p) not in head], "lr": settings.lora_lr, "weight_decay": 0.0},
])  # fmt: skip
lora, lora_history = train_network("lora", lora, lora_adam, settings.tune_epochs)
run.table("history_lora", lora_history.drop(columns="lr"), "LoRA, epoch by epoch")

# %% [markdown]
# **A convolutional network beside it**: EfficientNet-Lite0, pre-trained on ImageNet with labels, fine-tuned for as many
# epochs. Its BatchNorm layers keep the means and variances of ImageNet, since batches of 16 are too small to know
# better ones.

# %%
def with_held_norms(model, images, labels):
    """The usual loss, but every BatchNorm normalises by its pre-trained statistics, in training too."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
    logits = model(images)
    return F.cross_entropy(logits, labels), logits


def pretrained_cnn(seed=run.seed):
    torch.manual_seed(seed)
    if run.profile == "toy":
        network = timm.create_model(settings.cnn, num_classes=CLASSES)
        return normalized(with_body(network, sources["cnn"].state_dict(), "fc."), MEAN, STD).to(run.device)
    weights = find_weights(settings.cnn)
    network = with_body(timm.create_model(f"tf_{settings.cnn}", num_classes=CLASSES), weights.state, "classifier.")
    return normalized(network, weights.mean, weights.std).to(run.device)


if run.profile == "toy":
    bare = timm.create_model(settings.cnn, num_classes=len(source_train.classes))
    sources["cnn"] = source_network("pretrained cnn", normalized(bare, MEAN, STD).to(run.device))
cnn = pretrained_cnn()
cnn_adam = torch.optim.AdamW(cnn.parameters(), settings.cnn_lr, weight_decay=settings.decay)
cnn, cnn_history = train_network("cnn", cnn, cnn_adam, settings.tune_epochs, objective=with_held_norms)
run.table("history_cnn", cnn_history.drop(columns="lr"), "The CNN, fine-tuned, epoch by epoch")

# %% [markdown]
# **Once more with other seeds.** A seed decides the first weights of the head, the order of the images and the
# augmentation.

# %%
tuned_models = {run.seed: tuned} | {
    seed: fine_tuned(f"fine-tuned, seed {seed}", seed)[0] for seed in settings.seeds[1:]
}
scratch_models = {run.seed: scratch} | {
    seed: from_scratch(f"scratch, seed {seed}", seed)[0] for seed in settings.scratch_seeds[1:]
}

# %% [markdown]
# ## 5 · How many images a class?
# The same network with one, two, five and ten images a class: fine-tuned for the same number of *steps* (so the smaller
# sets are seen more often), and as a linear probe with the penalty from above. There are many short epochs here, and two
# validation images a class are enough to choose among them.

# %%
shot_models, shot_probes = {}, {}
few_val = val.take(2 * CLASSES, run.seed)
for shots in settings.shots:
    part, epochs = train.take(shots * CLASSES, run.seed), settings.tune_epochs * 10 // shots
    shot_models[shots], _ = fine_tuned(f"{shots} a class", data=part, watch=few_val, epochs=epochs)
    shot_probes[shots] = probe(features(start, part), part.labels.numpy(), best_c)
shot_models[10], shot_probes[10] = tuned, probes[best_c]
# %% [markdown]
# ## 6 · The test images, once
# The next cell is the only one in which anything sees test images. All tables of this part are made from these answers.

# %%
networks = {"fine-tuned": tuned, "from scratch": scratch, "LoRA": lora, "CNN, fine-tuned": cnn}
networks |= {f"fine-tuned, seed {seed}": model for seed, model in tuned_models.items() if seed != run.seed}
networks |= {f"from scratch, seed {seed}": model for seed, model in scratch_models.items() if seed != run.seed}
networks |= {f"fine-tuned on {shots}": shot_models[shots] for shots in settings.shots}
answers = {name: evaluate(model, Batches(test, 128, device=run.device)) for name, model in networks.items()}
right = {name: answer.correct for name, answer in answers.items()}
test_features, test_labels = features(start, test), test.labels.numpy()
right["nearest neighbour"] = torch.from_numpy(nearest.predict(test_features) == test_labels)
right["linear probe"] = torch.from_numpy(probes[best_c](test_features) == test_labels)
right |= {f"probe on {shots}": torch.from_numpy(shot_probes[shots](test_features) == test_labels)
          for shots in settings.shots}  # fmt: skip
ASSIGNED = ("fine-tuned", "from scratch")
on_val = {name: evaluate(networks[name], Batches(val, 128, device=run.device)) for name in ASSIGNED}
run.value("test_images", len(test))

# %% [markdown]
# **Table 1.** Validation images as in the assignment, and test images. The last two columns are an earlier report's, on
# validation images; its "fine-tuned" model is a linear probe of torchvision's ViT-B/16 at 224 pixels, trained by Adam at
# 0.001, and its scratch model had no warm-up.

# %%
KEYS = {"accuracy": "top1", "precision": "precision_weighted", "recall": "recall_weighted", "F1": "f1_weighted",
        "F1, macro": "f1_macro", "top-5": "top5"}  # fmt: skip
table_1 = {}
for name in ASSIGNED:
    for part, answer in (("validation", on_val[name]), ("test", answers[name])):
        score = metrics.classification_metrics(answer.logits, answer.labels)
        table_1[f"{name}, {part}"] = {row: score[key] for row, key in KEYS.items()}
table_1 = pd.DataFrame(table_1)
table_1["report, pre-trained"] = pd.Series({"accuracy": 0.8049, "precision": 0.8243, "recall": 0.8049, "F1": 0.7981})
table_1["report, scratch"] = pd.Series({"accuracy": 0.1676, "precision": 0.1241, "recall": 0.1676, "F1": 0.1242})
run.table("both", table_1.rename_axis("figure"), "Both models, beside an earlier report (validation images)")

# %% [markdown]
# **Table 2.** From nothing trained to everything: accuracy on test images with its 95 % interval, and how many parameters
# were trained.

# %%
TRAINED = {"nearest neighbour": 0, "linear probe": in_head, "LoRA": lora_parameters}
TRAINED |= {"fine-tuned": trainable(tuned), "from scratch": trainable(scratch), "CNN, fine-tuned": trainable(cnn)}
rows = {name: (right[name].float().mean().item(), *metrics.interval(right[name]), n) for name, n in TRAINED.items()}
columns = ["accuracy", "low", "high", "parameters trained"]
ranked = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("model")
for name in ("fine-tuned", "from scratch", "linear probe", "nearest neighbour"):
    run.value(f"{name.replace(' ', '_')}_test_top1", ranked.accuracy[name])
run.table("ranked", ranked, f"{len(test):,} test images")

# %%
accuracy, low, high = (ranked[[column]].set_axis(["test images"], axis=1) for column in ("accuracy", "low", "high"))
accuracy, low, high = (part.rename(index=lambda name: name.replace(" ", "\n")) for part in (accuracy, low, high))
figure = plotting.bars(accuracy, title="From nothing trained to everything", low=low, high=high)
run.figure("ranked", figure, "Test accuracy with 95 % intervals")


# %%
def paired(first, second):
    """Difference in points on the same images, with its 95 % interval."""
    gap = right[first].float() - right[second].float()
    return [100 * value for value in (gap.mean().item(), *metrics.interval(gap))]


PAIRS = [("fine-tuned", "from scratch"), ("fine-tuned", "linear probe"), ("fine-tuned", "LoRA"),
         ("linear probe", "nearest neighbour"), ("fine-tuned", "CNN, fine-tuned")]  # fmt: skip
gaps = {f"{first} − {second}": paired(first, second) for first, second in PAIRS}
gaps = pd.DataFrame.from_dict(gaps, orient="index", columns=["points", "low", "high"]).rename_axis("pair")
run.table("gaps", gaps, "Differences on the same test images, in points")

# %%
by_seed = pd.DataFrame({
    "fine-tuned": {seed: right["fine-tuned" + f", seed {seed}" * (seed != run.seed)].float().mean().item()
                   for seed in settings.seeds},
    "from scratch": {seed: right["from scratch" + f", seed {seed}" * (seed != run.seed)].float().mean().item()
                     for seed in settings.scratch_seeds},
}).rename_axis("seed")  # fmt: skip
spread = run.value("seed_spread", 100 * by_seed["fine-tuned"].std())
run.table("seeds", by_seed, "Test accuracy from different seeds")

# %% tags=["nbval-check-output"]
assert by_seed["fine-tuned"].min() > by_seed["from scratch"].max() + 0.1, "pre-training must be worth ten points"
print("every fine-tuned network is at least ten points ahead of every one from scratch")

# %%
shots = [*settings.shots, 10]
by_shots = pd.DataFrame({
    "fine-tuned": [right["fine-tuned" if k == 10 else f"fine-tuned on {k}"].float().mean().item() for k in shots],
    "linear probe": [right["linear probe" if k == 10 else f"probe on {k}"].float().mean().item() for k in shots],
}, index=pd.Index(shots, name="images a class"))  # fmt: skip
run.table("shots", by_shots, "Test accuracy by the number of training images a class")
figure = plotting.lines(by_shots, "training images a class", title="How many images does it take?")
run.figure("shots", figure, "Test accuracy by the number of training images a class")

# %% [markdown]
# ⟦test_reading⟧
#
# ### Which flowers are hard?

# %%
answer = answers["fine-tuned"]
matrix = torch.tensor(metrics.confusion_matrix(answer.logits, answer.labels))
counts = matrix.sum(1)
share = (matrix / counts[:, None].clamp_min(1)).fill_diagonal_(0).flatten()
pairs = [divmod(int(place), CLASSES) for place in share.topk(8).indices]
confused = pd.DataFrame([(test.classes[a], test.classes[b], int(matrix[a, b]), int(counts[a])) for a, b in pairs],
                        columns=["true", "predicted", "images", "of"])  # fmt: skip
run.table("confused", confused, "The pairs mixed up most, as a share of the true class, fine-tuned model")

# %%
wrong = [int(((answer.labels == a) & (answer.logits.argmax(1) == b)).nonzero()[0]) for a, b in pairs[:6]]
shown, _ = next(iter(Batches(test[torch.tensor(wrong)], 6)))
texts = [f"{row.true}\ntaken for\n{row.predicted}" for row in confused.head(6).itertuples()]
run.figure("confused", plotting.image_grid({"": shown}, [texts], size=1.7), "Test images of the pairs mixed up most")

# %%
recall = metrics.per_class_metrics(answer.logits, answer.labels, test.classes).recall.sort_values()
hardest = ", ".join(f"{name} ({value:.0%})" for name, value in recall.head(4).items())
run.finding(f"Hardest by recall: {hardest}. {int((recall == 1).sum())} of {CLASSES} classes are without a mistake.")
# %% [markdown]
# ## 7 · Sharp and flat minima
# **Why pre-training should find flat minima.** A minimum lives in the space of *weights* $w$, not of images. The loss on
# test images is, as a function of $w$, a slightly shifted and bent copy of that on training images. Where the surface is
# flat around the weights found, a shift costs little; where it is sharp, much. PAC-Bayes bounds make this precise: they
# contain how far the loss rises when the weights are perturbed, $\max_{\lVert\delta\rVert\le\rho} L(w+\delta) - L(w)$,
# which sharpness-aware minimisation lowers directly (Foret et al. 2021); to second order it is
# $\tfrac{\rho^2}{2}\lambda_{\max}$, with the largest eigenvalue of the Hessian.
#
# Pre-trained weights were found on millions of images with much noise in their gradients, which drives them out of
# narrow valleys. Fine-tuning starts there, moves little, and so should stay in a wide basin (Neyshabur et al. 2020).
# A ViT from random weights must find its way alone, without the locality of a convolution, and on ImageNet it ends in
# sharp places (Chen, Hsieh and Gong 2022). So much for the expectation.

# %%
run.figure("sketch", diagrams.sharp_and_flat(), "A sketch of the idea, not a measurement: the same shift, two minima")

# %% [markdown]
# **Two traps.** *Scale* (Dinh et al. 2017): multiply one layer of a ReLU network by 10 and divide the next by 10, and it
# is the same function with another sharpness. So weights have to be measured in their own size: below, every filter moves
# by a share of its own length (Li et al. 2018). *Fit*: a network that fits nothing has little to lose. Its loss is
# high and hardly rises, whatever is done to it. Sharpness can be compared between networks that fit their training images
# equally well. So a third network joins the two: fine-tuned for one epoch only, whose training loss is still high.

# %%
def filter_normalised(model, seed):
    """A random direction in which each filter is as long as the model's own; biases, norms and scales stay."""
    generator, direction = torch.Generator().manual_seed(seed), {}
    for name, weight in model.named_parameters():
        d = torch.randn(weight.shape, generator=generator).to(weight)
        if weight.dim() < 2:
            direction[name] = torch.zeros_like(weight)
            continue
        rows, own = d.flatten(1), weight.detach().flatten(1)
        direction[name] = (rows * own.norm(dim=1, keepdim=True) / rows.norm(dim=1, keepdim=True)).view_as(weight)
    return direction


# %% tags=["nbval-check-output"]
ours, theirs = filter_normalised(tuned, 3), landscape.filter_normalised_direction(tuned, 3)
for name, weight in tuned.named_parameters():
    length = ours[name].flatten(1).norm(dim=1) if weight.dim() > 1 else ours[name]
    other = theirs[name].flatten(1).norm(dim=1) if weight.dim() > 1 else theirs[name]
    torch.testing.assert_close(length, other, rtol=1e-3, atol=1e-5)
print("every filter of our direction is as long as that of helpers.explain.sharpness")

# %%
briefly, _ = fine_tuned("fine-tuned, one epoch", epochs=1)
around = Batches(train.take(settings.around, run.seed), 102, device=run.device)
models = {"fine-tuned": tuned, "fine-tuned, one epoch": briefly, "from scratch": scratch}
amounts = np.linspace(-0.5, 0.5, settings.amounts).round(3)
random_lines = pd.DataFrame({
    name: landscape.loss_along(model, landscape.filter_normalised_direction(model, run.seed), around, amounts).loss
    for name, model in models.items()
})
run.table("random_lines", random_lines, "Training loss along a random filter-normalised direction")
figure = plotting.lines(random_lines, "amount (shares of each filter's length)", "cross-entropy (nats)", percent=False)
run.figure("random_lines", figure, "Training loss along a random filter-normalised direction")

# %% [markdown]
# **Basins.** Two networks lie in one basin if the loss does not rise on the straight line between them. Neyshabur and
# others found that for two networks *fine-tuned from the same weights*, and not for two trained from scratch. So the
# lines to look at are these three: between two fine-tuned networks (two seeds), between two from scratch, and from one
# kind to the other.

# %%
other, lone = tuned_models[settings.seeds[1]], scratch_models[settings.scratch_seeds[1]]
LINES = {
    "two fine-tuned": (tuned, other),
    "two from scratch": (scratch, lone),
    "fine-tuned to scratch": (tuned, scratch),
}
steps = np.linspace(0, 1, settings.amounts).round(3)
lines = pd.DataFrame({name: landscape.loss_along(one, landscape.between(one, two), around, steps).loss
                      for name, (one, two) in LINES.items()})  # fmt: skip
run.table("straight_lines", lines, "Training loss along the straight line between two networks")
figure = plotting.lines(lines, "share of the way", "cross-entropy (nats)", percent=False)
run.figure("straight_lines", figure, "Training loss along the straight line between two networks")


# %%
def barrier(line):
    """How far the loss rises on the way above the straight line between its ends (Frankle et al. 2020)."""
    between_ends = line.iloc[0] + (line.iloc[-1] - line.iloc[0]) * line.index
    return float((line - between_ends).max())


barriers = pd.Series({name: barrier(lines[name]) for name in lines}, name="barrier (nats)").to_frame()
for name, value in barriers["barrier (nats)"].items():
    run.value(f"barrier_{name.replace(' ', '_')}", value)
run.table("barriers", barriers.rename_axis("between"), "How far the loss rises above the line between its ends")

# %% [markdown]
# **In a ball, in the worst direction.** Each filter may move by 5 % of its length. How far can the loss rise at worst
# (gradient ascent), and on average over random directions? And the largest eigenvalue of the Hessian, which is not free
# of scale, so read it second.

# %%
flatness = {}
for name, model in models.items():
    ball = landscape.sharpness(model, around, settings.radius, settings.climb, run.seed, settings.draws)
    top = landscape.top_eigenvalue(model, around, settings.iterations, run.seed)
    flatness[name] = (ball.loss, ball.largest, ball.random, top.value, top.error)
    run.value(f"sharpness_{name.replace(', ', '_').replace(' ', '_')}", ball.largest)
columns = ["training loss", "worst rise in the ball", "mean rise, random directions"]
columns += ["top eigenvalue", "its error bound"]
flatness = pd.DataFrame.from_dict(flatness, orient="index", columns=columns).rename_axis("network")
run.table("flatness", flatness, f"Sharpness on training images, each filter moved by {settings.radius:.0%}")

# %%
shown = flatness[["worst rise in the ball", "mean rise, random directions"]].T
figure = plotting.bars(shown, "rise of the loss (nats)", percent=False)
run.figure("flatness", figure, "The worst and the mean rise of the training loss in the ball")

# %% [markdown]
# ⟦flat_reading⟧

# %% [markdown]
# ## 8 · The theory question
# *Why does the pre-trained transformer generalise and the one from scratch does not, in terms of sharp and flat minima?*
#
# ⟦theory⟧

# %% [markdown]
# ## Common mistakes
# - **A linear probe called fine-tuning.** An earlier report froze every weight of the body and trained the head. That is a
#   fair model (see Table 2), but another one.
# - **The statistics of the new data.** Pre-trained weights want the normalisation they were trained with. It is the
#   model's first layer here, so that it cannot be forgotten.
# - **One rate for everything.** At the head's rate the pre-trained blocks are destroyed within the first epoch; at the
#   body's rate the new head hardly moves.
# - **No warm-up, or LayerScale at 1e-5, from scratch.** Then the result measures the recipe, not the lack of data.
# - **Sharpness of a network that fits nothing.** See part 7: compare training losses first.
# - **Choosing on test images.** The penalty of a probe and the number of neighbours are choices as well.

# %% [markdown]
# ## Exercises
# 1. **Fewer weights.** Train LoRA with rank 1. Predict its number of parameters before you count, and its accuracy on
#    validation images.
# 2. **Which blocks?** Freeze the lower half of the blocks (`requires_grad_(False)` before `adamw`). Predict: closer to the
#    probe or to full fine-tuning?
# 3. **No decay over layers.** Set `layer_decay` to 1.0 and to 0.5. Which of the two hurts, and when would the other?
# 4. **Attention maps.** Return `share` from `attention` and draw the class token's row in the last block over the image.
# 5. **Nine barriers.** Measure the barrier between every pair of seeds. Does it say anything about their accuracy?

# %%
def check_lora(rank, width, depth):
    """Exercise 1: parameters of LoRA beside the qkv matrices (D to 3 D) of all blocks, without the head."""
    return depth * rank * (width + 3 * width)


ours = check_lora(settings.lora_rank, vit.embed_dim, len(vit.blocks))
assert ours == lora_parameters - in_head
print(f"{ours:,} parameters in the low-rank factors")

# %% [markdown]
# ## References
# - A. Dosovitskiy et al. *An image is worth 16x16 words.* ICLR 2021, arXiv:2010.11929
# - M.-E. Nilsback, A. Zisserman. *Automated flower classification over a large number of classes.* ICVGIP 2008
# - M. Oquab et al. *DINOv2: learning robust visual features without supervision.* 2023, arXiv:2304.07193
# - H. Touvron et al. *Going deeper with image transformers.* ICCV 2021, arXiv:2103.17239
# - E. Hu et al. *LoRA: low-rank adaptation of large language models.* ICLR 2022, arXiv:2106.09685
# - H. Li et al. *Visualizing the loss landscape of neural nets.* NeurIPS 2018, arXiv:1712.09913
# - L. Dinh et al. *Sharp minima can generalize for deep nets.* ICML 2017, arXiv:1703.04933
# - B. Neyshabur, H. Sedghi, C. Zhang. *What is being transferred in transfer learning?* NeurIPS 2020, arXiv:2008.11687
# - J. Frankle et al. *Linear mode connectivity and the lottery ticket hypothesis.* ICML 2020, arXiv:1912.05671
# - P. Foret et al. *Sharpness-aware minimization.* ICLR 2021, arXiv:2010.01412
# - X. Chen, C.-J. Hsieh, B. Gong. *When vision transformers outperform ResNets without pre-training or strong data
#   augmentations.* ICLR 2022, arXiv:2106.01548

# %%
run.finish(
    f"Test accuracy: {ranked.accuracy['fine-tuned']:.1%} fine-tuned for {settings.tune_epochs} epochs, "
    f"{ranked.accuracy['from scratch']:.1%} from scratch for {settings.scratch_epochs}, "
    f"{ranked.accuracy['linear probe']:.1%} linear probe, {ranked.accuracy['nearest neighbour']:.1%} nearest neighbour"
)
