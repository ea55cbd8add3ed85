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
# # 04 · Where the models look: clean, under FGSM, under PGD
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/notebooks/04_grad_cam.ipynb)
#
# Change every pixel of a photograph by at most 8 of 255 levels, so that nobody sees it, and a network names something
# else. Grad-CAM draws where in the picture the network finds its evidence. So one looks: before the attack the map lies
# here, after it there, and on a defended network it stays. The picture seems to explain everything.
#
# Now take a network that was *never trained*. Its weights are random, it knows no class, it looks at nothing. Attack it
# in the same way and compare its maps before and after: ⟦opening: in lite, overlap of the maps before and after PGD for
# the untrained, the plain and the defended ResNet-18⟧. A map that moves, or one that stays, is not yet a finding about
# seeing. This notebook asks what it takes to make it one.
#
# **The assignment.** Take samples of different classes and show by Grad-CAM where each trained ResNet and ViT looks: on
# the clean image, and on images attacked by FGSM and PGD, before and after the defence.
#
# **What you will build.** Grad-CAM for a CNN and for a transformer in a few lines, attention tables and their rollout,
# and the scores that a claim about maps needs: overlap with its controls, insertion and deletion, a pointing game with
# a known answer. All networks come from notebooks 01 to 03; nothing is trained here.
#
# | part | question |
# |---|---|
# | 1 | Which networks are asked, and which of them know anything? |
# | 2 | What does Grad-CAM compute, for a CNN and for a transformer? |
# | 3 | At which layer does a map mean anything? |
# | 4 | Where do they look: clean, under FGSM, under PGD? |
# | 5 | A second class, and what attention says beside Grad-CAM |
# | 6 | How far does an attack move the maps, and does a defence hold them still? |
# | 7 | Do the maps show what the network uses? |
# | 8 | Do they find an object whose place is known? |
# | 9 | Local and global, frequencies, heads, dropout: what the fourth theory question can be measured by |
# | 10 | The fourth theory question, answered |

# %% [markdown]
# ## 0 · Set up
# `PROFILE` decides how much is computed: `toy` runs on drawn images without a network, `lite` on CIFAR-100 and
# Flowers-102 on a laptop's CPU, `full` on one GPU. The networks of notebooks 01 to 03 are loaded from what those
# notebooks saved, or their cells are executed first if there is nothing.

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
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from importlib.util import find_spec
from math import log
from textwrap import fill
from types import SimpleNamespace

import pandas as pd
import torch
import torch.nn.functional as F
from timm.layers import LayerScale
from torch import nn
from torchvision.models.resnet import BasicBlock

from helpers import plotting
from helpers.attacks import FGSM, PGD
from helpers.attacks.accuracy import predict
from helpers.contract import eval_mode, seeded
from helpers.course.models import trained
from helpers.course.run import Run
from helpers.data import Batches, load
from helpers.explain import class_logit, grad_cam, hires_cam, saliency, scale_maps
from helpers.explain.layers import as_grid
from helpers.explain.scores import curve_scores, edge_maps, map_iou, random_maps
from helpers.models import resnet18
from helpers.plotting.map_rows import map_rows
from helpers.training import metrics

run = Run("04_grad_cam", PROFILE, seed=0)
plotting.use_style()
pd.options.display.float_format = "{:.3f}".format
pd.options.display.max_colwidth = None
run

# %% [markdown]
# Every number that decides the run stands in one table, a column for each profile, with its reason. The cells below
# take their values from here and nowhere else.

# %%
SETTINGS = pd.DataFrame([  # name, toy, lite, full, reason
    ("cifar", "toy", "cifar100", "cifar100", "test images of the ResNets; toy: drawn in memory"),
    ("flowers", "toy-flowers", "flowers-102", "flowers-102", "test images of the ViTs"),
    ("size", 32, 112, 224, "pixels of the flowers, as in notebook 02"),
    ("cifar_images", 100, 1_000, 2_000, "drawn at random with a seed, the same share of every class"),
    ("flower_images", 50, 102, 510, "a ViT costs twenty times a ResNet; 102: one a class"),
    ("eps", 8 / 255, 8 / 255, 8 / 255, "the usual budget; at the assignment's 0.1 no undefended answer is left"),
    ("steps", 4, 10, 10, "of PGD, each a quarter of eps; notebook 03 attacks harder where accuracy is at stake"),
    ("cells", 4, 4, 4, "the deepest layer with at least 4 x 4 cells is shown"),
    ("share", 0.2, 0.2, 0.2, "the brightest fifth of a map counts as where it looks"),
    ("untrained_seeds", (0,), (0, 1, 2), (0, 1, 2), "random weights, drawn three times"),
    ("chance_loss", 0.95, 0.95, 0.95, "a network knows nothing if its loss is above this share of that of guessing"),
    ("chance_factor", 5, 5, 5, "and its accuracy below so many times that of guessing"),
    ("pictures", 2, 2, 2, "images in the figures of part 4"),
    ("scored", 6, 300, 1_000, "images for insertion and deletion, ResNets"),
    ("scored_vit", 6, 51, 204, "the same for the ViTs: 132 passes an image"),
    ("curve_steps", 5, 10, 10, "of insertion and deletion"),
    ("mosaics", 4, 200, 500, "part 8, of four images each"),
    ("mosaics_vit", 3, 51, 100, "the same for the ViTs"),
    ("look_images", 16, 51, 204, "part 9: attention and receptive fields"),
    ("bands", 4, 4, 4, "of frequency, equally wide"),
    ("spectrum_images", 32, 102, 204, "part 9: perturbations whose spectrum is taken"),
    ("heads_images", 16, 102, 204, "part 9: each of up to 144 heads is removed once"),
    ("head_draws", 2, 5, 10, "part 9: times that half of all heads are removed at random"),
    ("dropout", 0.1, 0.1, 0.1, "part 9: rate behind every block"),
    ("dropout_images", 16, 300, 500, "part 9, ResNets"),
    ("dropout_images_vit", 8, 51, 204, "part 9, ViTs"),
    ("samples", 3, 10, 10, "part 9: passes whose logits are averaged"),
    ("eot", 2, 3, 10, "part 9: passes whose gradients the attack averages"),
], columns=["setting", "toy", "lite", "full", "reason"]).set_index("setting")  # fmt: skip
settings = SimpleNamespace(**SETTINGS[run.profile])
run.table("settings", SETTINGS, "Every setting, by profile, with its reason")

# %% [markdown]
# ## 1 · The networks
# Two ResNet-18 and two ViTs without a defence, the plain ResNet-18 and the fine-tuned ViT after the assigned one (`+
# FGSM` and `+ PGD`: trained on under attacks at ε = 0.1), and the best defended ResNet-18 of notebook 03, trained at
# 8/255.

# %%
NETWORKS = {  # name here: notebook, name there, images
    "ResNet-18": ("01_noisy_resnet", "clean", "cifar"),
    "noisy ResNet-18": ("01_noisy_resnet", "noisy", "cifar"),
    "ResNet-18 + FGSM": ("03_attacks_and_defense", "resnet18, FGSM", "cifar"),
    "ResNet-18 + PGD": ("03_attacks_and_defense", "resnet18, PGD", "cifar"),
    "ResNet-18, best defence": ("03_attacks_and_defense", "best", "cifar"),
    "ViT": ("02_vit_transfer", "fine-tuned", "flowers"),
    "ViT from scratch": ("02_vit_transfer", "scratch", "flowers"),
    "ViT + FGSM": ("03_attacks_and_defense", "vit fine-tuned, FGSM", "flowers"),
    "ViT + PGD": ("03_attacks_and_defense", "vit fine-tuned, PGD", "flowers"),
}
PLAIN, BEST, VIT = "ResNet-18", "ResNet-18, best defence", "ViT"

test = {
    "cifar": load(settings.cifar, "test").take(settings.cifar_images, run.seed),
    "flowers": load(settings.flowers, "test", size=settings.size).take(settings.flower_images, run.seed),
}
run.used(*test.values())


def sample(kind, count):
    """The first `count` of the test images in one random order: (N, 3, H, W) in [0, 1] and labels (N,)."""
    order = torch.randperm(len(test[kind]), generator=torch.Generator().manual_seed(run.seed))[:count]
    return next(iter(Batches(test[kind][order], len(order), device=run.device)))


models = {name: trained(run, notebook, saved) for name, (notebook, saved, _) in NETWORKS.items()}
kinds = {name: kind for name, (_, _, kind) in NETWORKS.items()}
pd.DataFrame([data.describe() for data in test.values()], index=list(test))

# %% [markdown]
# **Which of them know anything?** The assigned defence at ε = 0.1 is hard to learn (notebook 03). A network whose loss
# is that of guessing, $\ln K$ for $K$ classes, and whose accuracy is no better, has nothing to look for, and its maps
# are of no interest however steady they are. Such networks are shown and measured below, but no conclusion rests on them.

# %%
def in_parts(function, *tensors, size=100):
    """A function of batches, a hundred rows at a time."""
    return torch.cat([function(*part) for part in zip(*(t.split(size) for t in tensors), strict=True)])


def answers(model, images):
    """Logits (N, classes)."""
    return in_parts(lambda part: predict(model, part), images)


rows = {}
for name, model in models.items():
    images, labels = sample(kinds[name], len(test[kinds[name]]))
    logits = answers(model, images)
    right, guess = (logits.argmax(1) == labels).cpu(), len(test[kinds[name]].classes)
    loss, top1 = F.cross_entropy(logits, labels).item(), right.float().mean().item()
    knows = loss < settings.chance_loss * log(guess) or top1 > settings.chance_factor / guess
    rows[name] = (len(right), top1, *metrics.interval(right), loss, log(guess), knows)
columns = ["images", "accuracy", "low", "high", "cross-entropy", "that of guessing", "knows something"]
known = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("network")
knowing = list(known.index[known["knows something"]])
run.value("networks_at_chance", len(models) - len(knowing))
run.table("known", known, "Clean test images: accuracy with its 95 % interval, and the loss beside that of guessing")

# %% [markdown]
# ⟦known: which networks are at chance in lite and are left out of every conclusion; accuracy of the others⟧
#
# **Untrained controls.** The same architectures with random weights, which nobody has trained: of the plain ResNet-18
# and of the best one several draws each (their stems may differ), of the ViT one.

# %%
def untrained(name, seed):
    """The architecture of a network with fresh random weights, behind the same normalisation."""
    copy = deepcopy(models[name])
    with seeded(seed, run.device):
        if kinds[name] == "cifar":
            first = copy.network.conv1
            stem = {(7, 2): "imagenet", (3, 2): "half", (3, 1): "small"}[first.kernel_size[0], first.stride[0]]
            copy.network = resnet18(copy.network.fc.out_features, stem).to(run.device)
        else:
            for layer in copy.network.modules():
                if hasattr(layer, "reset_parameters"):
                    layer.reset_parameters()
            copy.network.init_weights()
            for layer in copy.network.modules():
                if isinstance(layer, LayerScale):  # as notebook 02 starts from scratch
                    nn.init.constant_(layer.gamma, 0.1)
    return copy.eval()


controls = {f"{name}, untrained {seed}": untrained(name, seed)
            for name in (PLAIN, BEST) for seed in settings.untrained_seeds}  # fmt: skip
controls |= {f"{VIT}, untrained {run.seed}": untrained(VIT, run.seed)}
everything = models | controls
kinds |= {name: kinds[name.rpartition(", untrained")[0]] for name in controls}
print(len(controls), "untrained networks")

# %% [markdown]
# ## 2 · Grad-CAM
# Take a layer with channels $A_c$, a small map each. The score $S$ of a class, its logit, depends on them. The mean
# gradient says how much each channel counts, and what speaks against the class is cut off (Selvaraju et al. 2017):
#
# $$ w_c = \frac{1}{hw}\sum_{i,j}\frac{\partial S}{\partial A_{c,ij}}, \qquad
#    M = \operatorname{ReLU}\Big(\sum_c w_c A_c\Big). $$
#
# **By hand.** Keep what the layer returns, differentiate the logits by it, average, sum, enlarge to the image. A CNN's
# layer returns such maps. A transformer's returns tokens: the class token first, then one for each patch, row by row.
# Put the patches back in their places and the rest is the same.

# %%
def patches_as_grid(tokens):
    """Tokens (N, 1 + S * S, D) of a ViT, class token first, to (N, D, S, S)."""
    patches = tokens[:, 1:].transpose(1, 2)  # (N, D, S * S)
    side = round(patches.shape[2] ** 0.5)
    return patches.unflatten(2, (side, side))


def grad_cam_by_hand(model, layer, images, classes, to_grid=lambda maps: maps):
    """Images (N, 3, H, W) and the class to explain in each, (N,), to maps (N, H, W), none below 0."""
    kept = []
    hook = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    logits = model(images)  # (N, classes)
    hook.remove()
    score = logits.gather(1, classes[:, None]).sum()  # in eval mode no image touches another
    (gradient,) = torch.autograd.grad(score, kept[0])  # like the layer's output
    activation, gradient = to_grid(kept[0]), to_grid(gradient)  # (N, C, h, w) each
    weights = gradient.mean((2, 3), keepdim=True)  # (N, C, 1, 1)
    cells = (weights * activation).sum(1).relu()  # (N, h, w)
    return F.interpolate(cells[:, None], images.shape[2:], mode="bilinear")[:, 0].detach()


# %% [markdown]
# The general version in `helpers.explain` takes any layer, finds the grid by itself and leaves the model as it was. It
# and, where it is installed, the library `pytorch-grad-cam` must give the same maps. (The library scales each map to
# [0, 1].)

# %% tags=["nbval-check-output"]
def of_the_library(model, layer, images, classes, to_grid):
    """pytorch-grad-cam's map, scaled to [0, 1]; on a copy, since it leaves gradients behind."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    place = next(name for name, module in model.named_modules() if module is layer)
    model = deepcopy(model).cpu()
    with GradCAM(model, [model.get_submodule(place)], reshape_transform=to_grid) as cam:
        return torch.from_numpy(cam(images.cpu(), [ClassifierOutputTarget(int(c)) for c in classes]))


resnet, vit = models[PLAIN], models[VIT]
CASES = {"CNN": (resnet, resnet.network.layer2, "cifar", lambda maps: maps),
         "ViT": (vit, vit.network.blocks[-1].norm1, "flowers", patches_as_grid)}  # fmt: skip
for case, (model, layer, kind, to_grid) in CASES.items():
    images, labels = sample(kind, 4)
    by_hand = grad_cam_by_hand(model, layer, images, labels, to_grid)
    torch.testing.assert_close(by_hand, grad_cam(model, layer, images, labels), rtol=1e-4, atol=1e-6)
    if find_spec("pytorch_grad_cam"):
        library = of_the_library(model, layer, images, labels, to_grid)
        torch.testing.assert_close(scale_maps(by_hand).cpu(), library, rtol=0, atol=1e-4)
    print(f"{case}: Grad-CAM by hand = helpers.explain (and pytorch-grad-cam, where it is installed)")

# %% [markdown]
# Two relatives appear below. **HiResCAM** (Draelos and Carin 2020) leaves out the average: $M =
# \operatorname{ReLU}(\sum_c \partial S/\partial A_c \cdot A_c)$ cell by cell, so it marks no cell without a gradient.
# **Saliency** (Simonyan et al. 2013) is the gradient of the logit by the pixels themselves.
#
# A map may be **empty**: if every cell speaks against the class, the ReLU leaves nothing. Then there is no place to
# compare with another, and the overlap of two empty maps is undefined (`nan`). It is not 1: nothing agrees with nothing
# only in name. Undefined values are left out and the number of images that remain is printed. If only one of the two
# maps is empty, it scores what chance scores.

# %% tags=["nbval-check-output"]
nothing, something = torch.zeros(1, 8, 8), torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0))
assert map_iou(nothing, nothing).isnan().all()
assert map_iou(something, something).item() == 1
print("overlap of a map with itself: 1; of two empty maps: undefined")

# %% [markdown]
# ## 3 · Which layer?
# Later layers know more about classes and less about places. How many cells does each leave of an image?

# %%
def grid_of(model, layer, images):
    """Rows and columns of cells that an inner layer leaves of an image; None if it is a single one."""
    caught = []
    hook = layer.register_forward_hook(lambda module, inputs, output: caught.append(output))
    predict(model, images)
    hook.remove()
    try:
        return tuple(as_grid(caught[0], images.shape[2:]).shape[2:])
    except ValueError:
        return None


def layers_of(name):
    """The candidates, from the image to the head."""
    network = everything[name].network
    if kinds[name] == "cifar":
        return {f"layer{n}": getattr(network, f"layer{n}") for n in (1, 2, 3, 4)}
    return {f"block {n}, first norm": block.norm1 for n, block in enumerate(network.blocks, 1)}


one = {kind: sample(kind, 1)[0] for kind in test}
grids = {name: {title: grid_of(everything[name], layer, one[kinds[name]]) for title, layer in layers_of(name).items()}
         for name in everything}  # fmt: skip
chosen = {name: [title for title, grid in found.items() if grid and min(grid) >= settings.cells][-1]
          for name, found in grids.items()}  # fmt: skip
layer_of = {name: layers_of(name)[title] for name, title in chosen.items()}
shown = {name: {title: "one cell: no map" if grid is None else "{} x {}".format(*grid)
                for title, grid in grids[name].items()} for name in (PLAIN, BEST)}  # fmt: skip
table = pd.DataFrame(shown).rename_axis("layer")
run.table("layers", table, "Cells that each layer of a ResNet-18 leaves of a 32-pixel image")

# %%
vit_grid = grids[VIT][chosen[VIT]]
run.finding(
    f"Shown below: `{chosen[PLAIN]}` of the plain ResNet-18 ({table[PLAIN][chosen[PLAIN]]} cells), `{chosen[BEST]}` of "
    f"the best one ({table[BEST][chosen[BEST]]}), and of the ViT {chosen[VIT]} ({vit_grid[0]} x {vit_grid[1]} cells)."
)

# %% [markdown]
# Grad-CAM is usually taken at the last block. The assigned network was made for 224 pixels and has brought 32 down to
# one cell there, which is no map. The rule used for every ResNet is therefore the deepest layer with at least 4 × 4
# cells. Where the stem of the best defended network keeps more of the image, its map comes from a later layer, so that
# the grids are the same and the overlaps can be compared.

# %%
def look(name, images, classes=None, method=grad_cam, layer=None):
    """Maps (N, H, W) of one network at its layer, of its own answers unless classes are given."""
    model, layer = everything[name], layer or layer_of[name]
    classes = answers(model, images).argmax(1) if classes is None else classes
    return in_parts(lambda part, aims: method(model, layer, part, aims), images, classes)


def readable(kind, label):
    return fill(test[kind].classes[label].replace("_", " "), 14)


def layer_rows(name, images, titles):
    """A row of maps for each of the layers, with its grid."""
    own = answers(everything[name], images).argmax(1)
    layers = layers_of(name)
    return {f"{fill(name, 14)}\n{fill(title, 14)}\n{'{} x {}'.format(*grids[name][title])}":
            (images, look(name, images, own, layer=layers[title])) for title in titles}  # fmt: skip


images, labels = sample("cifar", 6)
rows = {"image": images}
for name in (PLAIN, BEST):
    rows |= layer_rows(name, images, [title for title, grid in grids[name].items() if grid])
figure = map_rows(rows, titles=[readable("cifar", label) for label in labels], size=1.15)
run.figure("layers", figure, "Grad-CAM of two ResNets at each layer that leaves a grid; above: the true class")

# %%
images, labels = sample("flowers", 6)
blocks = list(grids[VIT])
rows = {"image": images} | layer_rows(VIT, images, [blocks[n * len(blocks) // 4 - 1] for n in (1, 2, 3, 4)])
figure = map_rows(rows, titles=[readable("flowers", label) for label in labels], size=1.15)
run.figure("layers_vit", figure, "Grad-CAM of the ViT before the attention of four blocks; above: the true class")

# %% [markdown]
# **In a ViT** the class token alone goes to the head. The last time that patches can reach it is the attention of the
# last block; behind it they have no way to the answer, and their gradient is zero. The norm *before* that attention is
# the last layer that works. What happens at the one behind it?

# %% tags=["nbval-check-output"]
try:
    grad_cam(vit, vit.network.blocks[-1].norm2, one["flowers"])
    said = "a map came back"
except ValueError as error:
    said = str(error)
assert "gradient is zero" in said
print("the layer behind the last attention is refused: its gradient is zero for every image")

# %% [markdown]
# ## 4 · Where they look
# Two images of different classes, the same for all networks of a family; columns clean, FGSM, PGD at 8/255. Each attack
# is made against the network whose map stands below it, and the picture above a map is the picture that is explained.
# The map explains the *answer* written under it, with its confidence. One colour scale for all: times the map's own
# mean. Rows in bold are the pair that part 6 compares.

# %%
def changed(model, images, aims):
    """Images with random signs of size eps, under FGSM, and under PGD, each attack made against this model."""
    generator = torch.Generator(run.device).manual_seed(run.seed)
    signs = torch.randint(0, 2, images.shape, generator=generator, device=run.device) * 2 - 1
    attacks = {"FGSM": FGSM(model, settings.eps),
               "PGD": PGD(model, settings.eps, settings.eps / 4, settings.steps, generator=generator)}  # fmt: skip
    attacked = {title: in_parts(attack, images, aims) for title, attack in attacks.items()}
    return {"random noise": (images + settings.eps * signs).clamp(0, 1)} | attacked


def chosen_images(kind, names):
    """Images of different classes that most of these networks name correctly."""
    images, labels = sample(kind, 200)
    votes = sum((answers(models[name], images).argmax(1) == labels).int() for name in names)
    picked = []
    for place in votes.argsort(descending=True, stable=True).tolist():
        if labels[place] not in labels[picked] and len(picked) < settings.pictures:
            picked.append(place)
    return images[picked], labels[picked]


def gallery(kind, names):
    """For each network a row of images and a row of maps; for each image the columns clean, FGSM, PGD."""
    images, labels = chosen_images(kind, names)
    rows, captions = {}, {}
    for name in names:
        versions = {"clean": images} | changed(models[name], images, labels)
        titles = ("clean", "FGSM", "PGD")
        shown = torch.stack([versions[title] for title in titles], 1).flatten(0, 1)  # image by image
        confidence, answer = answers(models[name], shown).softmax(1).max(1)
        row = fill(name, 14) + "\n(at chance)" * (name not in knowing)
        rows |= {row + "\nimage": shown, row + "\nmap": (shown, look(name, shown, answer))}
        captions[row + "\nmap"] = [f"{readable(kind, a)}\n{c:.0%}" for a, c in zip(answer, confidence, strict=True)]
    heads = [f"{readable(kind, label)}\n{title}" for label in labels for title in titles]
    bold = [row for row in rows if any(row.startswith(fill(name, 14) + "\n") for name in (PLAIN, BEST))]
    return map_rows(rows, captions, heads, bold, size=1.05)


resnets, vits = ([name for name in models if kinds[name] == kind] for kind in ("cifar", "flowers"))
figure = gallery("cifar", resnets)
run.figure("gallery_resnets", figure, "Grad-CAM of the ResNets; above the true class, below answer and confidence")

# %%
figure = gallery("flowers", vits)
run.figure("gallery_vits", figure, "Grad-CAM of the ViTs; above the true class, below answer and confidence")

# %% [markdown]
# ⟦gallery: what is to be seen, in one or two sentences, for the two images⟧
#
# Sixteen cells are coarse: read the maps of the ResNets as "which quarter", not "which edge". And two images are two
# images. Whether what one sees in them holds in general is for part 6 to say.

# %% [markdown]
# ## 5 · A second class, and what attention says
# A map for the answer alone cannot tell whether it shows the class or just the object in front. So explain the
# runner-up in the same image as well. If both maps are alike, the map says where something is, not where *this class*
# is.

# %%
def answer_and_runner_up(name, images):
    """The two classes of highest logit, (N,) each."""
    return answers(everything[name], images).topk(2, dim=1).indices.T


def summary(values):
    """Mean, 95 % interval and number of the defined values of one number an image."""
    kept = values[~values.isnan()].float().cpu()
    if len(kept) < 2:
        return [float("nan")] * 3 + [len(kept)]
    return [kept.mean().item(), *metrics.interval(kept), len(kept)]


SUMMARY = ["mean", "low", "high", "images"]
rows = {}
for name in knowing + [name for name in controls if name.endswith(f"untrained {run.seed}")]:
    images, _ = sample(kinds[name], len(test[kinds[name]]))
    first, second = (look(name, images, classes) for classes in answer_and_runner_up(name, images))
    rows[name] = summary(map_iou(first, second, settings.share))
runner_up = pd.DataFrame.from_dict(rows, orient="index", columns=SUMMARY).rename_axis("network")
run.table("runner_up", runner_up, "Overlap of the map of the answer with that of the runner-up, same image")

# %% [markdown]
# ⟦runner_up: overlap of both classes' maps for plain, best, ViT; beside the untrained ones⟧
#
# ### Attention by hand
# A transformer seems to carry its own map: the table of attention, which says how much each token takes from each other
# one. The row of the class token in the last block is what is usually shown. One table lets a token look one step back
# only. The **rollout** (Abnar and Zuidema 2020) multiplies the tables of all blocks, each mixed half and half with the
# shortcut that goes past it, and so follows the way from the pixels on.

# %%
def attention_table(attn, tokens):
    """How much each token (row) takes from each other one (column), tokens (N, T, D) to (N, heads, T, T)."""
    n, t, _ = tokens.shape
    q, k, _ = attn.qkv(tokens).view(n, t, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)  # (N, heads, T, D / heads)
    fit = q @ k.transpose(2, 3) * attn.scale  # (N, heads, T, T)
    return fit.softmax(3)  # every row sums to 1


def rollout(tables):
    """What reaches each token at the end (row) from each at the start (column), (N, T, T)."""
    shortcut = torch.eye(tables[0].shape[-1], device=tables[0].device)
    reached = shortcut.expand(len(tables[0]), -1, -1)
    for table in tables:  # from the first block to the last
        reached = (0.5 * table.mean(1) + 0.5 * shortcut) @ reached
    return reached


# %% tags=["nbval-check-output"]
attn = vit.network.blocks[0].attn
tokens = torch.rand(2, 17, attn.qkv.in_features, generator=torch.Generator().manual_seed(0)).to(run.device)
with torch.inference_mode():
    values = attn.qkv(tokens).view(2, 17, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)[2]  # (N, heads, T, D / heads)
    taken = attn.proj((attention_table(attn, tokens) @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(taken, attn(tokens), rtol=1e-4, atol=1e-5)
    first, second = attention_table(attn, tokens), attention_table(attn, tokens.flip(2))
    both = rollout([first, second])
    half = [(table.mean(1) + torch.eye(17, device=run.device)) / 2 for table in (first, second)]
    torch.testing.assert_close(both, half[1] @ half[0])
    torch.testing.assert_close(both.sum(2), torch.ones_like(both[:, :, 0]))
print("table by hand times values = timm's attention; every row of the rollout sums to 1")

# %%
def attention_tables(model, images):
    """The tables of all blocks for a batch, first block first."""
    tables = []
    blocks = model.network.blocks
    hooks = [block.attn.register_forward_pre_hook(lambda attn, inputs: tables.append(attention_table(attn, inputs[0])))
             for block in blocks]  # fmt: skip
    predict(model, images)
    for hook in hooks:
        hook.remove()
    return tables


def of_class_token(table, images):
    """The class token's row of a table (N, T, T) as a map (N, H, W)."""
    row = table[:, 0, None, :]  # (N, 1, T)
    return F.interpolate(patches_as_grid(row.transpose(1, 2)), images.shape[2:], mode="bilinear")[:, 0]


def attention_map(model, images):
    return in_parts(lambda part: of_class_token(attention_tables(model, part)[-1].mean(1), part), images, size=25)


def rollout_map(model, images):
    return in_parts(lambda part: of_class_token(rollout(attention_tables(model, part)), part), images, size=25)


images, labels = sample("flowers", 6)
classes = answer_and_runner_up(VIT, images)
rows = {"image": images, "Grad-CAM,\nanswer": (images, look(VIT, images, classes[0])),
        "Grad-CAM,\nrunner-up": (images, look(VIT, images, classes[1])),
        "attention,\nlast block": (images, attention_map(vit, images)), "rollout": (images, rollout_map(vit, images)),
        "edges of\nthe image": (images, edge_maps(images))}  # fmt: skip
below = {name: [readable("flowers", label) for label in found]
         for name, found in zip(list(rows)[1:3], classes, strict=True)}  # fmt: skip
figure = map_rows(rows, below, [readable("flowers", label) for label in labels], size=1.15)
run.figure("attention", figure, "The ViT: Grad-CAM of two classes, attention, rollout, edges; above the true class")

# %%
images, labels = sample("cifar", 6)
classes = answer_and_runner_up(PLAIN, images)
rows = {"image": images}
for name in (PLAIN, BEST):
    for title, aims in zip(("answer", "runner-up"), answer_and_runner_up(name, images), strict=True):
        rows[f"{fill(name, 14)}\n{title}"] = (images, look(name, images, aims))
figure = map_rows(rows, titles=[readable("cifar", label) for label in labels], size=1.15)
run.figure("runner_up", figure, "Two ResNets: Grad-CAM for the answer and for the runner-up; above the true class")

# %%
count = min(settings.look_images, len(test["flowers"]))
images, _ = sample("flowers", count)
maps = {"Grad-CAM": look(VIT, images), "attention": attention_map(vit, images), "rollout": rollout_map(vit, images),
        "edges": edge_maps(images)}  # fmt: skip
pairs = [("Grad-CAM", "attention"), ("Grad-CAM", "rollout"), ("attention", "rollout"), ("Grad-CAM", "edges"),
         ("rollout", "edges")]  # fmt: skip
rows = {f"{a} and {b}": summary(map_iou(maps[a], maps[b], settings.share)) for a, b in pairs}
cells = random_maps(images, 1, vit_grid), random_maps(images, 2, vit_grid)
rows["two random maps"] = summary(map_iou(*cells, settings.share))
agreement = pd.DataFrame.from_dict(rows, orient="index", columns=SUMMARY).rename_axis("maps")
run.table("agreement", agreement, "Overlap of different maps of the same image and network, the ViT")

# %% [markdown]
# ⟦attention_reading: do attention, rollout and Grad-CAM agree more than chance; rollout close to edges or flat⟧
#
# Attention and rollout know no class: they are the same whatever one asks for. Grad-CAM asks for a class and so can
# differ between the answer and the runner-up.

# %% [markdown]
# ## 6 · Does an attack move the map? Does a defence hold it still?
# **The measure, by hand.** Take the brightest fifth of the clean map and of the attacked one, and divide the pixels
# that both have by those that one of them has. 1: the same place. Both maps explain the class that was the answer on
# the *clean* image, so that a changed answer alone moves nothing. Every attack leads away from the network's own
# answer.

# %%
def overlap_by_hand(one, other, share=0.2):
    """Intersection over union of the brightest share of two maps (N, H, W) without ties: (N,)."""
    count = round(share * one[0].numel())
    tops = []
    for maps in (one, other):
        flat = maps.flatten(1)  # (N, H * W)
        last = flat.topk(count, dim=1).values[:, -1:]  # (N, 1): the dimmest of the brightest
        tops.append(flat >= last)
    both, any_ = tops[0] & tops[1], tops[0] | tops[1]
    return both.sum(1) / any_.sum(1)


# %% [markdown]
# `map_iou` does the same, and lets pixels of equal value share the last places.

# %% tags=["nbval-check-output"]
one_map, other_map = (random_maps(torch.zeros(50, 3, 32, 32), seed) for seed in (1, 2))
torch.testing.assert_close(overlap_by_hand(one_map, other_map), map_iou(one_map, other_map, 0.2))
torch.testing.assert_close(overlap_by_hand(one_map, 3 * one_map - 1), torch.ones(50))
print("overlap by hand = helpers.explain.scores.map_iou")
print(f"two fifths that know nothing of each other: {0.2 / (2 - 0.2):.2f}")

# %% [markdown]
# **Controls.** An overlap of 0.4 says nothing by itself. What could explain it without any seeing?
#
# - *Random noise of equal eps*: every pixel moves by ε up or down at random. An attack must move the map further.
# - *Untrained networks*: their maps under their own attacks.
# - *A shuffled map*: the clean map of one image against that of another. If all maps of a network lie in the middle,
#   this is high, and so is every overlap.
# - *The same picture*: the attack on the plain network shown to the defended one, so that both see the same change.
#
# Beside the overlap stands the correlation of the two maps over all pixels, how often the answer held, and how many
# attacked maps are empty.

# %%
def correlation(one, other):
    """Of two maps (N, H, W) over their pixels, (N,); nan where one of them is constant."""
    one, other = (maps.flatten(1) - maps.flatten(1).mean(1, keepdim=True) for maps in (one, other))
    return (one * other).sum(1) / (one.norm(dim=1) * other.norm(dim=1))


def measured(name):
    """For each change: one number an image of overlap, correlation, held answer and empty map."""
    images, labels = sample(kinds[name], len(test[kinds[name]]))
    model = everything[name]
    own = answers(model, images).argmax(1)
    before = look(name, images, own)
    found = {"another image": {"overlap": map_iou(before, before.roll(1, 0), settings.share)}}
    for title, shown in changed(model, images, own).items():
        after, answer = look(name, shown, own), answers(model, shown).argmax(1)
        found[title] = {"overlap": map_iou(before, after, settings.share), "correlation": correlation(before, after),
                        "held": (answer == own).float(), "empty": (after.amax((1, 2)) == 0).float(),
                        "right": ((own == labels) & (answer == labels)).float()}  # fmt: skip
        if title == "PGD":
            found[title]["change"] = (shown - images)[: settings.spectrum_images].clone()  # for part 9
    return {title: {key: value.cpu() for key, value in scores.items()} for title, scores in found.items()}


drift = {name: measured(name) for name in everything}

# %%
CHANGES = ["random noise", "FGSM", "PGD", "another image"]
rows = {}
for name, found in drift.items():
    for title in CHANGES:
        scores = found[title]
        more = [scores.get(key, torch.tensor([torch.nan])).nanmean().item() for key in ("correlation", "held", "empty")]
        rows[name, title] = summary(scores["overlap"]) + more
columns = [*SUMMARY, "correlation", "answer held", "empty maps"]
overlaps = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
overlaps.index = pd.MultiIndex.from_tuples(overlaps.index, names=["network", "clean map against"])
overlaps = overlaps.rename(columns={"mean": "overlap"})
overlaps["knows something"] = [name in knowing for name, _ in overlaps.index]
run.table("overlap", overlaps, "Overlap of the clean map with another (brightest fifth), 95 % intervals, 8/255")

# %%
def of_column(column, names):
    frame = overlaps[column].unstack()[CHANGES].loc[names]
    return frame.rename(index=lambda name: fill(name, 12))


def overlap_figure(names):
    return plotting.bars(of_column("overlap", names), "overlap with the clean map", low=of_column("low", names),
                         high=of_column("high", names), percent=False)  # fmt: skip


shown = [PLAIN, "noisy ResNet-18", BEST, f"{PLAIN}, untrained {run.seed}", f"{BEST}, untrained {run.seed}"]
run.figure("overlap", overlap_figure(shown), "ResNets: overlap of the clean map with others, 95 % intervals")

# %%
shown = [name for name in everything if kinds[name] == "flowers"]
run.figure("overlap_vits", overlap_figure(shown), "ViTs: overlap of the clean map with others, 95 % intervals")

# %% [markdown]
# ⟦overlap_reading: plain against its untrained controls under PGD; noise against attack for each; the shuffled map⟧
#
# **The pair.** The plain ResNet-18 against the one that is really defended, image by image. A positive difference means
# that the map of the defended network stays more. The last two rows are the ones that matter: the gain under attack
# *beyond* the gain under random noise, and the gain when both networks see the same picture.

# %%
def overlap_of(name, title):
    return drift[name][title]["overlap"]


images, _ = sample("cifar", len(test["cifar"]))
aims = {name: answers(models[name], images).argmax(1) for name in (PLAIN, BEST)}
same = changed(models[PLAIN], images, aims[PLAIN])["PGD"]
on_same = {name: map_iou(look(name, images, aims[name]), look(name, same, aims[name]), settings.share).cpu()
           for name in (PLAIN, BEST)}  # fmt: skip
gains = {title: overlap_of(BEST, title) - overlap_of(PLAIN, title) for title in CHANGES}
drawn = {base: [overlap_of(f"{base}, untrained {seed}", "PGD") for seed in settings.untrained_seeds]
         for base in (PLAIN, BEST)}  # fmt: skip
untrained_mean = {base: torch.stack(overlap).nanmean(0) for base, overlap in drawn.items()}
PAIRS = {
    "plain − untrained, PGD": overlap_of(PLAIN, "PGD") - untrained_mean[PLAIN],
    "best − untrained, PGD": overlap_of(BEST, "PGD") - untrained_mean[BEST],
    **{f"best − plain, {title}": gain for title, gain in gains.items()},
    "best − plain, PGD beyond random noise": gains["PGD"] - gains["random noise"],
    "best − plain, the same picture (PGD on plain)": on_same[BEST] - on_same[PLAIN],
}
verdict = pd.DataFrame.from_dict({pair: summary(gap) for pair, gap in PAIRS.items()}, orient="index", columns=SUMMARY)
verdict = verdict.rename_axis("difference in overlap")
run.table("verdict", verdict, "Paired differences on the same images, 95 % intervals")

# %%
still = {name: {title: drift[name][title]["right"].mean().item() for title in ("FGSM", "PGD")} for name in models}
still = pd.DataFrame(still).T.rename_axis("network").rename(columns=lambda title: f"right under {title}")
still.insert(0, "right when clean", known["accuracy"])
run.table("still_right", still, f"Accuracy on these images, attacks at 8/255, PGD with {settings.steps} steps")

# %%
def split_by_answer(name):
    """Overlap under PGD where the answer held and where it changed."""
    held = drift[name]["PGD"]["held"] == 1
    return {part: summary(overlap_of(name, "PGD")[rows]) for part, rows in (("held", held), ("changed", ~held))}


rows = {(name, part): values for name in knowing for part, values in split_by_answer(name).items()}
by_answer = pd.DataFrame.from_dict(rows, orient="index", columns=SUMMARY)
by_answer.index = pd.MultiIndex.from_tuples(by_answer.index, names=["network", "answer under PGD"])
run.table("by_answer", by_answer, "Overlap under PGD of images whose answer held and of those whose answer changed")

# %%
plain, best = (overlaps.overlap[name]["PGD"] for name in (PLAIN, BEST))
bare = run.value("overlap_untrained_pgd", untrained_mean[PLAIN].nanmean().item())
run.value("overlap_plain_pgd", plain), run.value("overlap_best_pgd", best)
beyond = verdict.loc["best − plain, PGD beyond random noise"]
run.finding(
    f"Overlap under PGD: plain {plain:.3f}, untrained {bare:.3f}, best defended {best:.3f}. Gain beyond random "
    f"noise: {beyond['mean']:+.3f} ({beyond['low']:+.3f} to {beyond['high']:+.3f}, {beyond['images']:.0f} images)."
)

# %% [markdown]
# ⟦verdict: what may be said of "defended models keep their focus"; which controls explain how much of it⟧

# %% [markdown]
# ## 7 · Do the maps show what the network uses?
# A map that looks sensible need not be about the network. **Deletion** paints the brightest pixels over first and
# watches the probability of the answer: a good map makes it fall early. **Insertion** brings them back into a blurred
# image: a good map makes it rise early. The score is the area under insertion less that under deletion. Beside each map
# stand a random one and one of the image's edges, which no network had a part in (Petsiuk et al. 2018, Adebayo et al.
# 2018).

# %%
def slopes(model, images, targets=None):
    """Saliency of the class logit, since the loss of a certain answer is flat."""
    return saliency(model, images, targets, score=class_logit)


def faithfulness(name):
    """Insertion less deletion of each map, one number an image."""
    count = settings.scored if kinds[name] == "cifar" else settings.scored_vit
    images, _ = sample(kinds[name], count)
    maps = {"Grad-CAM": look(name, images), "HiResCAM": look(name, images, method=hires_cam),
            "saliency": in_parts(lambda part: slopes(models[name], part), images)}  # fmt: skip
    if kinds[name] == "flowers":
        maps["rollout"] = rollout_map(models[name], images)
    scores = curve_scores(models[name], maps, images, steps=settings.curve_steps, seed=run.seed)
    return {shown: (found["insertion"] - found["deletion"]).cpu() for shown, found in scores.items()}


faithful = {name: faithfulness(name) for name in (PLAIN, "noisy ResNet-18", BEST, VIT)}
rows = {}
for name, found in faithful.items():
    for shown, values in found.items():
        beyond_edges = summary(values - found["edge map"])[:3]
        rows[name, shown] = summary(values) + beyond_edges + summary(values - found["random map"])[:3]
columns = [*["score", "low", "high", "images"], *["less edges", "its low", "its high"],
           *["less random", "low of it", "high of it"]]  # fmt: skip
curves = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
curves.index = pd.MultiIndex.from_tuples(curves.index, names=["network", "map"])
run.table("faithful", curves, "Insertion less deletion, and the paired difference to the edge map and to a random map")

# %%
own_maps = ["Grad-CAM", "HiResCAM", "saliency"]
frames = [curves[column].unstack().loc[list(faithful), own_maps] for column in ("less edges", "its low", "its high")]
value, low, high = (frame.rename(index=lambda name: fill(name, 14)) for frame in frames)
figure = plotting.bars(value, "score less that of the edge map", low=low, high=high, percent=False)
run.figure("faithful", figure, "Insertion less deletion, beyond the image's edges (below 0: edges do better)")

# %% [markdown]
# ⟦faithful: which maps beat the edge map with their interval; which do not, and so are a picture of coarse image
# structure as far as this score can tell, no more⟧
#
# **Sanity** (Adebayo et al. 2018): the map of an untrained network has to differ from that of the trained one. If it
# does not, it shows the architecture and the image. Explained is the trained network's answer in both.

# %%
rows = {}
for name in (PLAIN, BEST, VIT):
    images, _ = sample(kinds[name], settings.scored if kinds[name] == "cifar" else settings.scored_vit)
    own, random = answers(models[name], images).argmax(1), f"{name}, untrained {run.seed}"
    grid = grids[name][chosen[name]]
    pairs = {"Grad-CAM": (look(name, images, own), look(random, images, own)),
             "HiResCAM": (look(name, images, own, hires_cam), look(random, images, own, hires_cam)),
             "saliency": (slopes(models[name], images, own), slopes(everything[random], images, own)),
             "two random maps, as coarse": (random_maps(images, 1, grid), random_maps(images, 2, grid))}  # fmt: skip
    rows |= {(name, title): summary(map_iou(*pair, settings.share)) for title, pair in pairs.items()}
sanity = pd.DataFrame.from_dict(rows, orient="index", columns=SUMMARY)
sanity.index = pd.MultiIndex.from_tuples(sanity.index, names=["network", "map"])
run.table("sanity", sanity, "Overlap of the trained network's map with that of an untrained one")

# %% [markdown]
# ⟦sanity: near chance means that the map depends on what was learnt⟧

# %% [markdown]
# ## 8 · Do they find what is known to be there?
# In CIFAR and Flowers nobody has marked where the object is. But a place can be made known: put four images of four
# classes into one picture, two by two, and ask for the map of each class. What share of the map lies in the quarter
# where that class is? This is the grid pointing game (Böhle et al. 2021). It has a control built in: a map that knows
# no class is the same for all four questions, so that its four shares sum to one and their mean is **exactly a
# quarter**, however it looks.

# %%
def mosaics(images, labels, count, generator):
    """`count` pictures (count, 3, H, W) of four images of different classes; their classes (count, 4), row by row."""
    chosen, classes = [], []
    while len(chosen) < count:
        four = torch.randperm(len(images), generator=generator)[:4]
        if len(labels[four].unique()) == 4:
            rows = [torch.cat([images[a], images[b]], 2) for a, b in (four[:2], four[2:])]  # (3, H, 2 W) each
            chosen.append(torch.cat(rows, 1))  # (3, 2 H, 2 W)
            classes.append(labels[four])
    return torch.stack(chosen), torch.stack(classes)


def share_in_quarters(maps):
    """Maps (N, H, W) to the share of each that lies in each quarter, (N, 4), row by row; nan for an empty map."""
    quarters = maps.unflatten(2, (2, -1)).unflatten(1, (2, -1)).sum((2, 4)).flatten(1)
    return quarters / quarters.sum(1, keepdim=True)


# %% tags=["nbval-check-output"]
maps = torch.rand(5, 8, 8, generator=torch.Generator().manual_seed(0))
by_slices = torch.stack([maps[:, r : r + 4, c : c + 4].sum((1, 2)) for r in (0, 4) for c in (0, 4)], 1)
torch.testing.assert_close(share_in_quarters(maps), by_slices / maps.sum((1, 2))[:, None])
torch.testing.assert_close(share_in_quarters(maps).mean(1), torch.full((5,), 0.25))
print("a map that knows no class scores a quarter")

# %%
def pointing(name, count):
    """Share of each class's map in its own quarter, a mean over the four classes of each picture."""
    images, labels = sample(kinds[name], len(test[kinds[name]]))
    belief = answers(models[name], images).softmax(1).gather(1, labels[:, None])[:, 0]
    count_sure = min(len(images), max(40, len(images) // 4))
    sure = belief.topk(count_sure).indices  # where it believes most in the true class
    images, labels = images[sure], labels[sure]
    if kinds[name] == "flowers":  # a ViT takes one size only: each image at half its side
        images = F.avg_pool2d(images, 2)
    pictures, classes = mosaics(images, labels, count, torch.Generator().manual_seed(run.seed))
    scores = {}
    for title, method in (("Grad-CAM", grad_cam), ("HiResCAM", hires_cam), ("saliency", None)):
        shares = []
        for place in range(4):
            aims = classes[:, place]
            maps = look(name, pictures, aims, method) if method else slopes(models[name], pictures, aims)
            shares.append(share_in_quarters(maps)[:, place])
        scores[title] = torch.stack(shares).nanmean(0)
    return pictures, classes, scores


rows, pictures_of = {}, {}
for name in (PLAIN, "noisy ResNet-18", BEST, VIT):
    count = settings.mosaics if kinds[name] == "cifar" else settings.mosaics_vit
    *pictures_of[name], scores = pointing(name, count)
    rows |= {(name, title): summary(values) for title, values in scores.items()}
placed = pd.DataFrame.from_dict(rows, orient="index", columns=SUMMARY)
placed.index = pd.MultiIndex.from_tuples(placed.index, names=["network", "map"])
run.table("pointing", placed, "Share of a class's map that lies in its own quarter (a quarter is chance)")

# %%
rows, below = {}, {}
for name in (BEST, VIT):
    picture, classes = (values[0] for values in pictures_of[name])
    row = fill(name, 14)
    four = picture[None].expand(4, -1, -1, -1)
    rows |= {row + "\nimage": four, row + "\nmap": (four, look(name, four, classes))}
    below[row + "\nmap"] = [readable(kinds[name], label) for label in classes]
figure = map_rows(rows, below, ["upper left", "upper right", "lower left", "lower right"], size=1.5)
run.figure("mosaics", figure, "One picture of four images; below it the map of each of its four classes")

# %% [markdown]
# ⟦pointing: which networks' maps find the right quarter beyond a quarter with their interval⟧

# %% [markdown]
# ## 9 · Local and global, frequencies, heads, dropout
# The fourth theory question asks how a ResNet and a transformer differ under attack. Its usual arguments can be
# measured.
#
# **A limit first.** The ResNets see CIFAR at 32 pixels, the ViTs see Flowers at 112 (in `lite`); they differ in data,
# size and pre-training as well as in architecture. What follows therefore describes these networks. Where it compares
# the two families, it gives shares of the image's side and a reference for each, and it claims no effect of the
# architecture alone.
#
# ### (a) How far does a token look?
# The mean distance between a token and the patches it takes from, weighted by attention, as a share of the image's side
# (Dosovitskiy et al. 2021). The class token is left out.

# %%
def attention_distance(table):
    """Tables (N, heads, T, T), class token first, to each head's mean distance, (heads,), in sides of the image."""
    patches = table[:, :, 1:, 1:]  # (N, heads, S * S, S * S)
    patches = patches / patches.sum(3, keepdim=True)
    side = round(patches.shape[-1] ** 0.5)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    places = torch.stack([rows, columns], -1).flatten(0, 1).to(table) / side  # (S * S, 2)
    return (patches * torch.cdist(places, places)).sum(3).mean((0, 2))


# %% tags=["nbval-check-output"]
eye = torch.eye(17)[None, None]  # every token takes from itself
torch.testing.assert_close(attention_distance(eye), torch.zeros(1))
swap = eye[..., [0, 2, 1, *range(3, 17)]]  # the first two patches of a 4 x 4 grid take from each other
torch.testing.assert_close(attention_distance(swap), torch.tensor([2 * 0.25 / 16]))
print("distance 0 for a token that looks at itself, a patch's width for one that looks at its neighbour")

# %%
images, _ = sample("flowers", min(settings.look_images, len(test["flowers"])))
looked_at = [name for name in everything if kinds[name] == "flowers"]
heads_of = {name: [attention_distance(table) for table in attention_tables(everything[name], images)]
            for name in looked_at}  # fmt: skip
even = torch.full_like(attention_tables(vit, images[:1])[0], 1.0)
reach = pd.DataFrame({name: [heads.mean().item() for heads in found] for name, found in heads_of.items()})
reach.index = pd.Index(range(1, len(reach) + 1), name="block")
run.value("attention_distance_even", attention_distance(even).mean().item())
lowest, highest = heads_of[VIT][0].min().item(), heads_of[VIT][0].max().item()
run.value("attention_nearest_head_first_block", lowest), run.value("attention_farthest_head_first_block", highest)
run.table("attention_distance", reach, "Mean attention distance by block, in sides of the image, mean over heads")

# %%
marked = reach.assign(**{"all patches alike": run.results["values"]["attention_distance_even"]})
figure = plotting.lines(marked, "block", "distance (sides of the image)", percent=False)
run.figure("attention_distance", figure, "How far tokens look, block by block")

# %% [markdown]
# ### (b) The effective receptive field
# Which pixels does one cell in the middle really depend on? Not those that it could reach, but those by which it
# changes: the size of its gradient by each pixel (Luo et al. 2016).

# %%
def receptive_field(model, layer, images):
    """How much the middle cell of a layer depends on each pixel, a mean over images, (H, W), summing to 1."""
    kept = []
    hook = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    x = images.clone().requires_grad_()
    with eval_mode(model):
        model(x)
    hook.remove()
    cells = kept[0] if kept[0].ndim == 4 else patches_as_grid(kept[0])  # (N, C, h, w)
    middle = cells[:, :, cells.shape[2] // 2, cells.shape[3] // 2]  # (N, C)
    signs = torch.randint(0, 2, middle.shape, generator=torch.Generator().manual_seed(run.seed)) * 2 - 1
    (gradient,) = torch.autograd.grad((middle * signs.to(middle)).sum(), x)  # one random mixture of channels an image
    field = gradient.abs().mean((0, 1))  # (H, W)
    return field / field.sum()


def radius(field, cells):
    """Mean distance of a field's weight from the middle of its cell, in sides of the image."""
    height, width = field.shape
    rows = (torch.arange(height) + 0.5) / height - (cells[0] // 2 + 0.5) / cells[0]
    columns = (torch.arange(width) + 0.5) / width - (cells[1] // 2 + 0.5) / cells[1]
    return (field.cpu() * torch.hypot(rows[:, None], columns[None])).sum().item()


# %% tags=["nbval-check-output"]
field = receptive_field(resnet, resnet.network.conv1, sample("cifar", 8)[0])
assert (field > 0).sum() == 49
print("a cell of the first convolution, 7x7, depends on 49 pixels and on no other")

# %%
rows, fields = {}, {}
for name in (PLAIN, BEST, f"{PLAIN}, untrained {run.seed}", VIT, f"{VIT}, untrained {run.seed}"):
    images, _ = sample(kinds[name], min(settings.look_images, len(test[kinds[name]])))
    titles = layers_of(name)
    for number, (title, layer) in enumerate(titles.items(), 1):
        field, cells = receptive_field(everything[name], layer, images), grids[name][title] or (1, 1)
        alike = torch.full_like(field, 1 / field.numel())
        rows[name, title] = (number / len(titles), radius(field, cells), radius(alike, cells))
        fields[name, title] = field
columns = ["share of the depth", "radius", "radius of all pixels alike"]
receptive = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
receptive.index = pd.MultiIndex.from_tuples(receptive.index, names=["network", "layer"])
run.table("receptive", receptive, "Effective receptive field of the middle cell, in sides of the image")

# %%
def relative(field):
    """A field over that of all pixels alike, enlarged to the size of the largest, on a white image."""
    return F.interpolate((field * field.numel())[None, None], (settings.size,) * 2, mode="bilinear")[0, 0].cpu()


rows, below = {}, {}
for name in (PLAIN, BEST, VIT):
    titles = list(layers_of(name))
    titles = [titles[n * len(titles) // 4 - 1] for n in (1, 2, 3, 4)]
    row = fill(name, 14)
    white = torch.ones(4, 3, settings.size, settings.size)
    rows[row] = white, torch.stack([relative(fields[name, title]) for title in titles])
    below[row] = titles
figure = map_rows(rows, below, size=1.6)
run.figure("receptive", figure, "What the middle cell depends on, layer by layer: gradient by pixel, times its mean")

# %% [markdown]
# ⟦reach_reading: distance of attention in first and last blocks beside the even one; radius of the ResNet layers and of
# the ViT blocks beside that of all pixels alike⟧
#
# ### (c) Which frequencies does an attack use?
# The Fourier transform of a perturbation says how much of its energy lies in slow changes over the image and how much
# in fast ones. Four bands, equally wide, from 0 to the fastest that the pixels can hold; the corners of the spectrum
# belong to the last. The reference is random noise of the same ε, whose energy is spread evenly.

# %%
def band_of(height, width, count):
    """The band of each frequency of an image, 0 the slowest, (H, W)."""
    rows, columns = torch.fft.fftfreq(height), torch.fft.fftfreq(width)  # in cycles a pixel, at most 0.5
    return (torch.hypot(rows[:, None], columns[None]) / 0.5 * count).long().clamp_max(count - 1)


def band_energy(change, count):
    """Share of a perturbation's energy (N, 3, H, W) in each band, (N, count)."""
    power = torch.fft.fft2(change).abs().square().sum(1)  # (N, H, W)
    bands = band_of(*change.shape[2:], count)
    energy = torch.stack([(power * (bands == band)).sum((1, 2)) for band in range(count)], 1)
    return energy / energy.sum(1, keepdim=True)


def only(change, bands):
    """The part of a perturbation that lies in these bands."""
    kept = torch.isin(band_of(*change.shape[2:], settings.bands), torch.tensor(bands))
    return torch.fft.ifft2(torch.fft.fft2(change) * kept).real


# %% tags=["nbval-check-output"]
wave = torch.sin(2 * torch.pi * 2 * torch.arange(32) / 32).expand(1, 3, 32, 32)  # two waves over the image
torch.testing.assert_close(band_energy(wave, 4), torch.tensor([[1.0, 0, 0, 0]]), atol=1e-5, rtol=0)
any_change = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) - 0.5
slow, fast = only(any_change, [0, 1]), only(any_change, [2, 3])
torch.testing.assert_close(slow + fast, any_change, atol=1e-5, rtol=0)
energy = slow.square().sum() + fast.square().sum()
torch.testing.assert_close(energy, any_change.square().sum(), rtol=1e-4, atol=0)  # Parseval
print("two waves lie in the slowest band; the parts add up to the whole, in pixels and in energy")

# %%
rows = {}
names = [PLAIN, "noisy ResNet-18", BEST, f"{PLAIN}, untrained {run.seed}", *looked_at]
for name in names:
    energy = band_energy(drift[name]["PGD"]["change"], settings.bands)
    rows[name] = [value for band in energy.T for value in summary(band)[:3]] + [len(energy)]
for kind, title in (("cifar", "random noise, ResNets' size"), ("flowers", "random noise, ViTs' size")):
    noise = torch.rand(sample(kind, 8)[0].shape, generator=torch.Generator().manual_seed(0)) - 0.5
    rows[title] = [value for band in band_energy(noise, settings.bands).T for value in summary(band)[:3]] + [8]
columns = [f"band {band}{end}" for band in range(1, settings.bands + 1) for end in ("", " low", " high")] + ["images"]
spectrum = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("perturbation of PGD against")
run.table("spectrum", spectrum, "Share of PGD's energy in each band of frequency, slowest first, 95 % intervals")

# %%
shown = [PLAIN, BEST, "random noise, ResNets' size", VIT, "random noise, ViTs' size"]
ends = [[f"band {band}{end}" for band in range(1, settings.bands + 1)] for end in ("", " low", " high")]
frames = [spectrum.loc[shown, columns].T.reset_index(drop=True) for columns in ends]
frames = [frame.set_axis(pd.Index([f"band {n + 1}" for n in frame.index])) for frame in frames]
figure = plotting.bars(frames[0], "share of the energy", low=frames[1], high=frames[2])
run.figure("spectrum", figure, "Where the energy of PGD lies, from slow (band 1) to fast (band 4)")

# %% [markdown]
# Energy is where the attack *went*; whether the network needed it there is another question. So take one half of the
# spectrum away and ask again. The halves differ in energy, so a half that fools more may just be the larger one: its
# share stands beside it.

# %%
rows = {}
for name in (PLAIN, "noisy ResNet-18", BEST, VIT):
    change = drift[name]["PGD"]["change"].to(run.device)
    images, labels = sample(kinds[name], len(change))
    own = answers(models[name], images).argmax(1)
    energy = band_energy(change.cpu(), settings.bands)
    first, last = list(range(settings.bands // 2)), list(range(settings.bands // 2, settings.bands))
    for title, bands in {"all": first + last, "slow half": first, "fast half": last}.items():
        part = only(change.cpu(), bands).to(run.device)
        held = answers(models[name], (images + part).clamp(0, 1)).argmax(1) == own
        rows[name, title] = [*summary(held.float().cpu()), energy[:, bands].sum(1).mean().item()]
columns = ["answer held", "low", "high", "images", "share of the energy"]
halves = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
halves.index = pd.MultiIndex.from_tuples(halves.index, names=["network", "part of PGD's perturbation"])
run.table("halves", halves, "How often the answer holds against one half of the perturbation's spectrum")

# %% [markdown]
# ⟦spectrum_reading: plain vs best vs ViT beside noise; which half does the damage⟧
#
# ### (d) Heads and blocks as an ensemble
# A residual network is a sum over paths, and the heads of a transformer are summed as well. If the members of this sum
# were independent voters, two things should follow: one can be taken out without much loss, and an attack that is made
# against all together should fool the remaining ones less.

# %%
@contextmanager
def without_heads(network, heads):
    """While open, these heads, pairs (block, head), give nothing: their slice of what is projected is 0."""

    def silence(numbers):
        def hook(proj, inputs):
            x = inputs[0].unflatten(2, (count, -1)).clone()  # (N, T, heads, D / heads)
            x[:, :, numbers] = 0
            return (x.flatten(2),)

        return hook

    count = network.blocks[0].attn.num_heads
    with ExitStack() as stack:
        for number, block in enumerate(network.blocks):
            if silent := [head for of, head in heads if of == number]:
                stack.callback(block.attn.proj.register_forward_pre_hook(silence(silent)).remove)
        yield


@contextmanager
def without_block(block):
    """While open, this residual block returns what came in."""
    hook = block.register_forward_hook(lambda module, inputs, output: inputs[0])
    yield
    hook.remove()


# %% tags=["nbval-check-output"]
attn, every_block = vit.network.blocks[0].attn, range(len(vit.network.blocks))
heads, (few, _) = attn.num_heads, sample("flowers", 4)
before, x = answers(vit, few), torch.rand(2, 17, attn.qkv.in_features).to(run.device)
with without_heads(vit.network, [(0, head) for head in range(heads)]), torch.inference_mode():
    torch.testing.assert_close(attn(x), attn.proj.bias.expand_as(x))
    assert not torch.allclose(answers(vit, few), before)
torch.testing.assert_close(answers(vit, few), before, rtol=0, atol=0)
print("without any head, attention returns its bias; afterwards the network is as it was")

# %%
images, labels = sample("flowers", min(settings.heads_images, len(test["flowers"])))
full = answers(vit, images).argmax(1)
alone = {}
for block in every_block:
    for head in range(heads):
        with without_heads(vit.network, [(block, head)]):
            alone[block, head] = (answers(vit, images).argmax(1) == labels).float().cpu()
whole = (full == labels).float().cpu()
rows = {}
for block in every_block:
    losses = torch.stack([whole - alone[block, head] for head in range(heads)])  # (heads, N)
    worst = losses[losses.mean(1).argmax()]
    rows[block + 1] = [100 * value for value in (*summary(losses.mean(0))[:3], *summary(worst)[:3])] + [len(labels)]
columns = ["mean head", "low", "high", "worst head", "its low", "its high", "images"]
lesions = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("block")
run.value("accuracy_all_heads", whole.mean().item())
run.table("heads", lesions, "Points of accuracy lost without one head, ViT (the worst is chosen, so it is too large)")

# %%
def kept_answers(model, own, images, attacked):
    """Whether answers are those of the full network, on clean and on attacked images: two (N,)."""
    return [(answers(model, shown).argmax(1) == own).float().cpu() for shown in (images, attacked)]


def draw_half(seed):
    """Half of all heads of the ViT, at random."""
    places = [(block, head) for block in every_block for head in range(heads)]
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))
    return [places[n] for n in order[: len(places) // 2]]


change = drift[VIT]["PGD"]["change"][: len(images)].to(run.device)
images, full = images[: len(change)], full[: len(change)]
rows, members = {("ViT", "all heads"): kept_answers(vit, full, images, images + change)}, []
for seed in range(settings.head_draws):
    with without_heads(vit.network, draw_half(seed)):
        members.append(torch.stack(kept_answers(vit, full, images, images + change)))
rows["ViT", f"half of the heads, mean of {settings.head_draws} draws"] = list(torch.stack(members).mean(0))
for name in (PLAIN, BEST):
    change = drift[name]["PGD"]["change"].to(run.device)
    images, _ = sample("cifar", len(change))
    own = answers(models[name], images).argmax(1)
    rows[name, "all blocks"] = kept_answers(models[name], own, images, images + change)
    plain_blocks = [m for m in models[name].network.modules() if isinstance(m, BasicBlock) and m.downsample is None]
    members = []
    for block in plain_blocks:
        with without_block(block):
            members.append(torch.stack(kept_answers(models[name], own, images, images + change)))
    rows[name, f"without one block, mean of {len(plain_blocks)}"] = list(torch.stack(members).mean(0))
members = {key: summary(clean)[:3] + summary(attacked)[:3] + [len(clean)] for key, (clean, attacked) in rows.items()}
columns = ["clean", "low", "high", "attacked", "its low", "its high", "images"]
members = pd.DataFrame.from_dict(members, orient="index", columns=columns)
members.index = pd.MultiIndex.from_tuples(members.index, names=["network", "what is left"])
run.table("members", members, "How often a part gives the whole network's clean answer; PGD was made against the whole")

# %% [markdown]
# ⟦members_reading: heads can be removed at little loss; attack against the whole fools the parts nearly as much or not⟧
#
# ### (e) Dropout
# Dropout trains an ensemble of networks that share weights. Left on at test time, it answers by a random member, and
# the mean of several passes is a small ensemble. An attack on the network *without* dropout then meets another network
# than it was made for. Is that robustness? Only an attack that knows of the dropout can say so: one whose gradient is
# itself the mean of several passes (EOT, Athalye et al. 2018).

# %%
class WithDropout(nn.Module):
    """A network with dropout behind every block, also when it answers: the mean logits of several passes."""

    def __init__(self, model, samples):
        super().__init__()
        self.model, self.samples = deepcopy(model), samples
        for block in self.model.network.modules():
            if isinstance(block, BasicBlock | type(vit.network.blocks[0])):
                block.register_forward_hook(self.drop)

    @staticmethod
    def drop(module, inputs, output):
        return F.dropout(output, settings.dropout, training=True)

    def forward(self, images):
        return torch.stack([self.model(images) for _ in range(self.samples)]).mean(0)  # (N, classes)


def robust(name):
    """Right answers, clean and attacked, without dropout and with it: one number an image for each."""
    count = settings.dropout_images if kinds[name] == "cifar" else settings.dropout_images_vit
    images, labels = sample(kinds[name], count)
    model, voters = models[name], WithDropout(models[name], settings.samples)
    options = dict(eps=settings.eps, alpha=settings.eps / 4, steps=settings.steps)
    with seeded(run.seed, run.device):
        plain = in_parts(PGD(model, **options), images, labels)
        aware = in_parts(PGD(WithDropout(model, 1), **options, eot_iter=settings.eot), images, labels)
        asked = {"no dropout, clean": (model, images), "no dropout, PGD": (model, plain),
                 "dropout, clean": (voters, images), "dropout, PGD on the network without it": (voters, plain),
                 "dropout, PGD that knows of it": (voters, aware)}  # fmt: skip
        return {title: (answers(m, shown).argmax(1) == labels).float().cpu() for title, (m, shown) in asked.items()}


answered = {(name, title): right for name in (PLAIN, BEST, VIT) for title, right in robust(name).items()}
dropped = pd.DataFrame.from_dict({key: summary(right) for key, right in answered.items()}, orient="index",
                                 columns=["accuracy", "low", "high", "images"])  # fmt: skip
dropped.index = pd.MultiIndex.from_tuples(dropped.index, names=["network", "dropout and attack"])
run.table("dropout", dropped, f"Dropout of {settings.dropout} at test time, PGD at 8/255 with {settings.steps} steps")

# %%
unaware, aware = "dropout, PGD on the network without it", "dropout, PGD that knows of it"
PAIRS = {"seems to gain (unaware attack − no dropout)": (unaware, "no dropout, PGD"),
         "really gains (aware attack − no dropout)": (aware, "no dropout, PGD")}  # fmt: skip
rows = {(name, title): summary(answered[name, first] - answered[name, second])
        for name in (PLAIN, BEST, VIT) for title, (first, second) in PAIRS.items()}  # fmt: skip
gained = pd.DataFrame.from_dict(rows, orient="index", columns=SUMMARY)
gained.index = pd.MultiIndex.from_tuples(gained.index, names=["network", "dropout"])
run.table("dropout_gain", gained, "What dropout at test time gains under PGD, paired on the same images")

# %% [markdown]
# ⟦dropout_reading: what seems gained against the unaware attack and what is left against the aware one⟧

# %% [markdown]
# ## 10 · Theory 6.4: ResNet and transformer under attack, by dropout and ensemble
# **Local against global.** A convolution sees its neighbours. What a cell of a ResNet depends on grows layer by layer,
# and less than the arithmetic of kernels suggests, since most paths to the border are long and their products small
# (Luo et al. 2016). Attention may look anywhere from the first block on. Both are seen in part 9: ⟦theory_local:
# attention distance first and last block, even reference; radii⟧. Two consequences for attacks follow, and they pull in
# opposite directions. A local perturbation (a sticker) stays local for long in a CNN, whereas in a transformer every
# token may read the attacked patch at once. A perturbation of small amplitude everywhere, as here, finds in a CNN the
# same filter at every place, so that one pattern that excites it works all over the image.
#
# **Frequencies.** Filters of a few pixels respond to texture and edges. Attention is an average over tokens, and an
# average removes what changes fast (Park and Kim 2022). So attacks on a CNN should sit in higher frequencies than those
# on a transformer (Shao et al. 2021). Measured: ⟦theory_frequency: band shares plain, best, ViT beside the noise; which
# half does the damage⟧. Two things besides architecture shape such a spectrum: the sign in FGSM and PGD, which turns
# any gradient into steps of full height and so spreads energy over all bands, and the patch grid of a ViT, where two
# neighbouring pixels on either side of a border go into different tokens.
#
# **Residual networks as ensembles.** Unrolled, $x + f_1(x) + f_2(x + f_1(x)) + \dots$ is a sum over $2^n$ paths through
# $n$ blocks, and without one block half of the paths are still there (Veit et al. 2016). For a transformer each block
# adds two terms, and attention is in turn a sum over heads:
#
# $$ x \leftarrow x + \sum_{h} \operatorname{softmax}\!\Big(\frac{Q_h K_h^\top}{\sqrt{d}}\Big) V_h W_h, \qquad
#    x \leftarrow x + \operatorname{MLP}(x). $$
#
# Measured: ⟦theory_members: loss without one head, with half of the heads, without one block; and how far the attack on
# the whole carries over to the part⟧. An ensemble averages errors that its members make *independently*. Noise in the
# input is such an error. An attack is not: it is computed through the sum, along the mean of the members' gradients,
#
# $$ \nabla_x \frac1m\sum_{i} L_i = \frac1m \sum_i \nabla_x L_i , $$
#
# and wherever these gradients have a common direction, one step raises all losses. Only members whose gradients
# disagree make the attack weaker, and members that share their input, their data and most of their weights seldom do
# (notebook 03 measures the angle between gradients, and what an ensemble of separate networks gains).
#
# **Dropout.** With masks $m$ drawn at random, training lowers $\mathbb E_m\,L(f_{w \odot m}(x), y)$: an ensemble of
# $2^n$ networks with shared weights, which hinders units from relying on one another, and which in linear regression is
# a penalty on weights scaled by the size of their inputs (Srivastava et al. 2014). Stochastic depth does the same with
# whole blocks. It usually improves accuracy on clean images. Against an attack it gives at test time a moving target,
# and a moving target is only hard for those who do not know that it moves: ⟦theory_dropout: gain against
# the unaware and against the aware attack⟧. Averaging gradients over masks gives the attacker the gradient of the mean
# network, which is as smooth as any other.
#
# **So which is more robust?** The evidence is mixed. Bhojanapalli et al. (2021) and Shao et al. (2021) found
# transformers at least as robust as ResNets, the latter with attacks of lower frequency; Bai et al. (2021) trained both
# with the same recipe and found no advantage under attack, only under shifts of the data. Neither is robust without
# adversarial training: ⟦theory_both: accuracy under PGD, plain ResNet and fine-tuned ViT⟧.

# %% [markdown]
# ## Common mistakes
# What they do to a figure, measured on the networks of this notebook.

# %%
images, labels = sample("cifar", len(test["cifar"]))
own = answers(models[PLAIN], images).argmax(1)
attacked = changed(models[PLAIN], images, own)["PGD"]
own_before, own_after = look(PLAIN, images, own), look(PLAIN, attacked)
new_answer = summary(map_iou(own_before, own_after, settings.share))[0]
rates = overlaps["empty maps"].unstack()["PGD"]
emptiest = rates.idxmax()
as_one = overlap_of(emptiest, "PGD").nan_to_num(1.0).mean().item()
MISTAKES = [
    ("the new answer explained in the attacked image", f"overlap under PGD, {PLAIN}", plain, new_answer),
    ("two empty maps counted as 1", f"overlap under PGD, {emptiest}", overlaps.overlap[emptiest]["PGD"], as_one),
    ("attack made against another network", f"overlap under PGD, {BEST}", best, summary(on_same[BEST])[0]),
    ("no control", f"overlap under PGD, {PLAIN}, less that under random noise",
     plain - overlaps.overlap[PLAIN]["random noise"], plain),
]  # fmt: skip
columns = ["mistake", "quantity", "done right", "with the mistake"]
mistakes = pd.DataFrame(MISTAKES, columns=columns).set_index("mistake")
run.table("mistakes", mistakes, "Common mistakes and what they do to a figure")

# %% [markdown]
# - **Explaining the new answer.** An attack changes the answer. If the map of the attacked image explains the new one,
#   it moves because it answers another question. Fix the class, or show both and say so.
# - **Empty maps that agree.** A network at chance often has evidence against every class; then nothing is left behind
#   the ReLU, before and after. Such a network would look perfectly steady.
# - **A picture that is not the one explained.** In a figure every map needs the image that was given to *its* network.
# - **No control.** An overlap means something beside that of random noise, of an untrained network, of another image.
# - **A scale for each map.** Stretched from its own lowest to its own highest value, the faintest map shines like the
#   strongest. Here every map is shown in units of its own mean, on one scale.
# - **A layer behind the last attention** of a ViT (part 3): the gradient is zero there, and some libraries draw a map
#   of zeros without a word.
# - **One image.** It can be found for any claim.

# %% [markdown]
# ## Exercises
# Change the cell, write down what you expect, run it.
#
# **1.** If two maps know nothing of each other, what is the expected overlap of their brightest shares $s$? Derive it,
# put it in, check at 0.1, 0.2 and 0.5.

# %%
def my_overlap(s):
    return s / 2  # your formula


free = random_maps(torch.zeros(200, 3, 32, 32), 1), random_maps(torch.zeros(200, 3, 32, 32), 2)
for s in (0.1, 0.2, 0.5):
    print(f"share {s}: measured {map_iou(*free, s).mean():.3f}, yours {my_overlap(s):.3f}")

# %% [markdown]
# **2.** Double all weights of the last layer, `fc`. What happens to the logits, to the confidence, to Grad-CAM's
# values, to its brightest fifth? Predict all four. The cell below checks the last one.

# %%
FACTOR = 2.0
louder = deepcopy(models[PLAIN])
with torch.no_grad():
    louder.network.fc.weight.mul_(FACTOR)
images, labels = sample("cifar", 16)
layer = louder.network.get_submodule(chosen[PLAIN])
print(map_iou(look(PLAIN, images, labels), grad_cam(louder, layer, images, labels)).nanmean())

# %% [markdown]
# **3.** What speaks *against* a class? Grad-CAM of the negative logit shows it. Can a cell speak for and against at
# once? Predict how much the two maps share, and whether the result is the same for two classes, answer and runner-up.

# %%
def against(logits, targets):
    return class_logit(logits, targets)  # change the sign


images, labels = sample("cifar", 16)
for_it = grad_cam(models[PLAIN], layer_of[PLAIN], images, labels)
not_it = grad_cam(models[PLAIN], layer_of[PLAIN], images, labels, score=against)
print(f"share of the weight that both maps have: {torch.minimum(for_it, not_it).sum() / for_it.sum():.2f}")

# %% [markdown]
# **4.** Repeat the verdict of part 6 with ε = 1/255 and 4/255. At which does the plain network's map move no more than
# under random noise? Set the budget here; the cell measures fifty images.

# %%
EPS = 8 / 255
images, _ = sample("cifar", 50)
own = answers(models[PLAIN], images).argmax(1)
moved = PGD(models[PLAIN], EPS, EPS / 4, settings.steps)(images, own)
print(summary(map_iou(look(PLAIN, images, own), look(PLAIN, moved, own), settings.share)))

# %% [markdown]
# ## What this shows, and what it does not
# - Grad-CAM says which *cells* of one layer speak for a class. With 16 cells that is coarse, and 32 pixels allow no
#   better with this network.
# - Steadiness under attack is a property of a map under this attack. It is not accuracy, and it is not correctness of
#   the map: a network that hardly reacts to its input is steady as well.
# - Insertion and deletion show the network pictures that it never saw (grey holes, blur); the mosaics show four objects
#   to networks that were trained on one.
# - One network of each kind: intervals are over images, not over trainings.
# - ResNets and ViTs differ here in data, size and pre-training too.

# %% [markdown]
# ## References
# - S. Abnar, W. Zuidema. *Quantifying attention flow in transformers.* ACL 2020, arXiv:2005.00928
# - J. Adebayo et al. *Sanity checks for saliency maps.* NeurIPS 2018, arXiv:1810.03292
# - A. Athalye, L. Engstrom, A. Ilyas, K. Kwok. *Synthesizing robust adversarial examples.* ICML 2018, arXiv:1707.07397
# - Y. Bai, J. Mei, A. Yuille, C. Xie. *Are transformers more robust than CNNs?* NeurIPS 2021, arXiv:2111.05464
# - S. Bhojanapalli et al. *Understanding robustness of transformers for image classification.* ICCV 2021,
#   arXiv:2103.14586
# - M. Böhle, M. Fritz, B. Schiele. *Convolutional dynamic alignment networks for interpretable classifications.* CVPR
#   2021, arXiv:2104.00032
# - A. Dosovitskiy et al. *An image is worth 16x16 words.* ICLR 2021, arXiv:2010.11929
# - R. Draelos, L. Carin. *Use HiResCAM instead of Grad-CAM for faithful explanations.* 2020, arXiv:2011.08891
# - W. Luo, Y. Li, R. Urtasun, R. Zemel. *Understanding the effective receptive field in deep convolutional neural
#   networks.* NeurIPS 2016, arXiv:1701.04128
# - N. Park, S. Kim. *How do vision transformers work?* ICLR 2022, arXiv:2202.06709
# - V. Petsiuk, A. Das, K. Saenko. *RISE: randomized input sampling for explanation.* BMVC 2018, arXiv:1806.07421
# - R. Selvaraju et al. *Grad-CAM: visual explanations from deep networks.* ICCV 2017, arXiv:1610.02391
# - R. Shao, Z. Shi, J. Yi, P.-Y. Chen, C.-J. Hsieh. *On the adversarial robustness of vision transformers.* 2021,
#   arXiv:2103.15670
# - K. Simonyan, A. Vedaldi, A. Zisserman. *Deep inside convolutional networks.* 2013, arXiv:1312.6034
# - N. Srivastava et al. *Dropout: a simple way to prevent neural networks from overfitting.* JMLR 15, 2014
# - A. Veit, M. Wilber, S. Belongie. *Residual networks behave like ensembles of relatively shallow networks.* NeurIPS
#   2016, arXiv:1605.06431

# %%
run.finish(
    f"Overlap of Grad-CAM maps before and after PGD at 8/255: plain ResNet-18 {plain:.2f}, untrained {bare:.2f}, best "
    f"defended {best:.2f}; gain beyond that under random noise {beyond['mean']:+.2f} ({beyond['low']:+.2f} to "
    f"{beyond['high']:+.2f}, {beyond['images']:.0f} images)"
)
