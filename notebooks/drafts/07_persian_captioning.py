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
# # 07 · Persian captions: regions, attention, and an LSTM
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/notebooks/07_persian_captioning.ipynb)
#
# Someone who cannot see asks what is in a photograph. A classifier answers "dog", which is true and of little use: the
# answer wanted is a sentence, *a black dog runs over the grass*, and in the asker's language. Writing it is harder
# than it looks, and judging it is harder still. One and the same sentence for *every* photograph reaches a BLEU-4 of
# ⟦constant_bleu4⟧ in `lite`, the committed run, and a decoder that never sees an image reaches ⟦blind_bleu4⟧. A
# captioner has to beat both before any of its scores says that it looked.
#
# **The assignment.** Describe photographs in Persian: clean and count the captions, read the image as a grid of
# regions, look at a part of it for each word, write the caption word by word. Search greedily and with beams, score
# with BLEU, explain five bad captions by where the decoder looked, and try two changes: scheduled sampling, and
# scaled dot-product attention.
#
# **What you will build.** Both attentions, a decoder step with its LSTM, the masked loss, greedy and beam search, the
# choice of scheduled sampling, and BLEU, each in a few lines and shown to be equal to the general version. With them
# five kinds of decoder are trained, each from several seeds, and judged by the scores of the field.
#
# **What to expect**, `lite`, beam 3, mean over three seeds:
#
# | ⟦expect_table: rows additive, dot-product, one caption for all, no image; columns BLEU-1, BLEU-4, CIDEr-D⟧ |
# |---|
#
# | part | question |
# |---|---|
# | 1 | What are the captions like? |
# | 2 | How does the model read an image and write a word? |
# | 3 | How is it trained? |
# | 4 | How good are its captions, and how sure is that? |
# | 5 | Does it look at the image at all? |
# | 6 | Why are some captions bad? |
# | 7 | Does scheduled sampling help? |
# | 8 | Does dot-product attention help? |
# | 9 | What does attention add, and does it point at the thing it names? |
# | 10 | And an image of your own? |

# %% [markdown]
# ## 0 · Set up
# `PROFILE` decides how much is computed: `toy` draws its scenes and needs no network and a minute and a half, `lite`
# reads 3,546 photographs on a laptop's CPU, `full` 11,000 on one GPU. All three run the same cells.

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
import math
from collections import Counter
from dataclasses import replace
from functools import cache
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from nltk import ngrams
from nltk.translate.meteor_score import meteor_score
from torch import nn

from helpers import plotting
from helpers.captions.captioner import FILE, Captioner, read_image
from helpers.captions.cider import cider_d
from helpers.captions.decoder import AdditiveAttention, CaptionDecoder, DotAttention, caption_loss
from helpers.captions.encoder import toy_network
from helpers.captions.evidence import loss_without, mean_log_prob, word_log_probs
from helpers.captions.regions import load_regions, sharded_features
from helpers.captions.scores import bleu, chrf
from helpers.captions.search import EOS_ID, FOR_PEOPLE, PAD_ID, SOS_ID, beam_search, greedy
from helpers.captions.text import Vocabulary, most_frequent, pad, statistics, tokenize
from helpers.captions.training import Described, Recipe, always_told, exponential, linear, said, train_captioner, write
from helpers.contract import epoch_seed, seeded
from helpers.course.run import Run
from helpers.data import Batches, load, toy
from helpers.data.captions import load_captions, toy_captions
from helpers.explain.scores import pointing_game
from helpers.plotting import caption_diagrams as diagrams
from helpers.plotting.captions import length_histogram
from helpers.training import fit
from helpers.training.checkpoints import checkpoint_root, load_weights

run = Run("07_persian_captioning", PROFILE, seed=0)
plotting.use_style()
pd.options.display.float_format = "{:.3f}".format
pd.options.display.max_colwidth = None
run

# %% [markdown]
# Every number that decides the run stands in one table, a column for each profile, with its reason. The cells below
# take their values from here and nowhere else.

# %%
BOTH = "efficientnet_lite0+vit_small_patch14"
SETTINGS = pd.DataFrame([  # name, toy, lite, full, reason
    ("data", "drawn", "flickr8k-fa", "coco-flickr-fa-40k", "toy: scenes with one object, drawn in memory"),
    ("images", (700, 80, 160), (2_846, 350, 350), (10_000, 500, 500), "training, validation, test: by image"),
    ("encoder", "toy", BOTH, "efficientnet_b7", "B7 is the assignment's; lite: two small networks side by side"),
    ("pixels", None, (224, 196), 380, "of an image as the encoder sees it; 196: the photographs have 192"),
    ("grid", 4, 7, 8, "regions a side: 49 or 64 fit on disk, and a decoder can weigh them"),
    ("least", 1, 5, 5, "a word enters the vocabulary if training captions have it so often; usual on Flickr8k"),
    ("embed", 64, 256, 300, "values of a word's vector; 300 is fastText's size"),
    ("hidden", 128, 256, 512, "values of the LSTM's state; lite: half of full, for time"),
    ("dropout", 0.1, 0.4, 0.5, "of regions, word vectors and before the last layer"),
    ("epochs", 4, 5, 12, "lite: as many as the hour allows for all the trainings"),
    ("batch", 25, 13, 64, "images, each with all its captions: about 65 captions in lite, 64 in full"),
    ("lr", 8e-3, 2e-3, 1e-3, "peak rate; up for a tenth of the steps, then along a cosine to 0"),
    ("decay", 0.01, 0.01, 0.01, "weight decay of AdamW"),
    ("smoothing", 0.1, 0.1, 0.1, "of the labels: a caption's word is one of several right ones"),
    ("penalty", 0.0, 0.1, 0.1, "weight of the doubly stochastic term; 0 where one object is all there is"),
    ("max_norm", 5.0, 5.0, 5.0, "gradients are clipped to this length"),
    ("longest", 20, 20, 20, "words of a caption, <eos> counted; the few longer ones are cut for training"),
    ("seeds", (0, 1), (0, 1, 2), (0, 1, 2), "each decides first weights, order and dropout; toy: two, for time"),
    ("width", 3, 3, 3, "beams: the assignment's"),
    ("powers", (0.7, 1.0), (0.4, 0.7, 1.0, 1.3), (0.4, 0.7, 1.0, 1.3), "of the length; chosen on validation images"),
    ("constants", 10, 60, 60, "part 5: captions tried as the one for all images"),
    ("resamples", 500, 2_000, 2_000, "of the test images, for 95 % intervals"),
    ("checked", 20, 100, 100, "parts 6 and 9: images whose regions are taken away"),
    ("sampled_to", 0.5, 0.5, 0.5, "part 7: p falls from 1 to this, as in the assignment's example"),
    ("drawn_images", (700, 80, 160), (1_500, 100, 200), (1_500, 100, 200), "part 9: scenes with masks"),
    ("drawn_epochs", 4, 8, 8, "part 9"),
    ("encoder_images", 3_000, 6_000, 6_000, "part 9: labelled scenes that the small encoder learns from"),
    ("encoder_epochs", 3, 3, 3, "part 9"),
    ("encoder_lr", 1e-2, 1e-2, 1e-2, "part 9: peak rate of Adam"),
], columns=["setting", "toy", "lite", "full", "reason"]).set_index("setting")  # fmt: skip
settings = SimpleNamespace(**SETTINGS[run.profile])
DRAWN = SETTINGS.toy.to_dict() | {"epochs": settings.drawn_epochs}  # decoders of drawn scenes are the same everywhere
run.table("settings", SETTINGS, "Every setting, by profile, with its reason")

# %% [markdown]
# ## 1 · The captions
# The split is by image: all captions of a photograph lie in the same part, else a test caption would have been read in
# training. What could not be used is listed, not dropped in silence.
#
# **The shape of the images.** The archive of `lite` holds photographs that were squashed to 192 × 192 pixels, so people
# are a little too wide or too thin in all its figures; the original proportions are lost. In `full` the images have
# their own shape, the figures keep it, and only the encoder squashes them to its square input.

# %%
def drawn_sets(counts):
    """Drawn scenes for training, validation and test, and the masks of the test scenes' objects."""
    scenes = [toy.draw(count, 32, seed) for count, seed in zip(counts, (11, 12, 13), strict=True)]
    return [toy_captions(each) for each in scenes], scenes[-1].masks


if run.profile == "toy":
    sets, masks = drawn_sets(settings.images)
else:
    sets, masks = load_captions(settings.data).split(*settings.images, seed=run.seed), None
run.used(*sets)
names = ("training", "validation", "test")
parts = pd.DataFrame([{"images": len(part), "captions": sum(map(len, part.captions)), "lines left out":
                       len(part.left_out)} for part in sets], index=pd.Index(names, name="part"))  # fmt: skip
run.table("parts", parts, f"The split; source: {sets[0].source}")


# %%
def pixels(place, of=sets[2]):
    """One image of a set, float (3, H, W) in [0, 1]."""
    return of.image(place) / 255


chosen = range(0, len(sets[0]), len(sets[0]) // 6)[:6]
cards = [{f"reference {n}": text for n, text in enumerate(sets[0].captions[place][:3], 1)} for place in chosen]
figure = diagrams.caption_cards([pixels(place, sets[0]) for place in chosen], cards)
run.figure("samples", figure, "Training images with their first captions, as they are written in the file")

# %% [markdown]
# **Cleaning.** hazm's normaliser brings letters to one form (Arabic ye and kaf become Persian), puts the half-space
# where it belongs and makes digits Persian; its tokeniser cuts words. Punctuation, numbers and words in Latin letters
# are dropped. Each token stands in a row of its own below: side by side, a viewer that sorts lines from right to left
# would turn the list around.

# %%
sentence = "كتاب ها و 2 سگ مي دوند، WOW!"
tokens = pd.DataFrame({"token": tokenize(sentence)}).rename_axis("place")
run.table("tokens", tokens.assign(letters=tokens.token.str.len()), f"The tokens of the sentence {sentence}")


# %% [markdown]
# The vocabulary holds the words of the *training* captions that occur often enough, and four marks: `<pad>` fills up,
# `<sos>` starts, `<eos>` ends, `<unk>` stands for every other word. Here both directions are written out.

# %%
def number_of(words, least):
    """The number of each word that occurs at least `least` times; the most frequent first, after the four marks."""
    counts = Counter(words)
    kept = sorted((word for word, count in counts.items() if count >= least), key=lambda word: (-counts[word], word))
    return {word: number for number, word in enumerate(["<pad>", "<sos>", "<eos>", "<unk>", *kept])}


def encode(words, numbers):
    """Words to int64 (2 + words,)."""
    inside = [numbers.get(word, numbers["<unk>"]) for word in words]
    return torch.tensor([numbers["<sos>"], *inside, numbers["<eos>"]])


# %% tags=["nbval-check-output"]
words_of = [[[tokenize(caption) for caption in captions] for captions in part.captions] for part in sets]
said_in_training = [caption for captions in words_of[0] for caption in captions]
numbers = number_of((word for caption in said_in_training for word in caption), settings.least)
vocabulary = Vocabulary.build(said_in_training, settings.least)
assert tuple(numbers) == vocabulary.words
for caption in [*said_in_training[:5], tokenize(sentence)]:
    assert torch.equal(encode(caption, numbers), vocabulary.encode(caption))
print("vocabulary and encoding by hand = helpers.captions.text")

# %%
example = said_in_training[0]
table = pd.DataFrame({"word": ["<sos>", *example, "<eos>"], "number": vocabulary.encode(example).tolist()})
run.table("encoded", table.rename_axis("place"), "A caption as the decoder is given it, first word first")

# %%
flat = {name: [words for own in part for words in own] for name, part in zip(names, words_of, strict=True)}
table = pd.DataFrame({name: statistics(captions, vocabulary) for name, captions in flat.items()}).T.rename_axis("part")
run.value("vocabulary", len(vocabulary))
run.table("statistics", table, "The captions after cleaning")

# %%
lengths = [len(caption) for caption in flat["training"]]
run.value("longer_than_longest", float(np.mean([length >= settings.longest for length in lengths])))
run.figure("lengths", length_histogram(lengths), "How many training captions have how many words")

# %%
frequent = most_frequent(flat["training"]).rename_axis("word").to_frame()
frequent["share"] = frequent.times / sum(lengths)
run.value("ten_words_share", frequent.share.sum())
run.table("frequent", frequent, "The ten most frequent words of the training captions, and their share of the text")

# %%
unknown = table.loc["test", ["unknown words, share of the text", "unknown words, share of different words"]]
run.finding(
    f"A caption has {np.mean(lengths):.1f} words on average; the ten most frequent are {frequent.share.sum():.0%} of "
    f"the text. Of the test text {unknown.iloc[0]:.1%} is unknown, of its different words {unknown.iloc[1]:.0%}."
)

# %% [markdown]
# ⟦captions_reading: what the lengths, the ten words and the unknown share say; validation and test captions are never
# counted, so their unknown words are a fact to report⟧

# %% [markdown]
# ## 2 · The model
# ### The encoder
# A network trained on other images, without its pooling and classifier: what is left is a grid of region vectors
# $a_1 \dots a_R$. It is frozen and always in evaluation mode (in training mode its BatchNorm statistics would drift
# with every batch), so that each image is encoded once and kept on disk as float16, a file for every 1,000 images: a
# run that is stopped goes on with the next file. `lite` puts two networks side by side: EfficientNet-Lite0, trained
# on ImageNet's labels, and a ViT-S/14 trained without labels, whose 14 × 14 tokens are averaged to the same 7 × 7
# regions.
#
# `toy` and part 9 use a small network that first learns to name drawn scenes:

# %%
def toy_encoder():
    """A small network after learning the drawn scenes' 100 classes; its last feature map becomes 4 x 4 regions."""
    train, val = (load("toy", part).take(count, run.seed) for part, count in
                  (("train", settings.encoder_images), ("val", 200)))  # fmt: skip
    with seeded(run.seed):
        network = toy_network().to(run.device)
    batches = Batches(train, 50, shuffle=True, device=run.device, seed=run.seed)
    adam = torch.optim.Adam(network.parameters(), lr=settings.encoder_lr)
    steps = settings.encoder_epochs * len(batches)
    cycle = torch.optim.lr_scheduler.OneCycleLR(adam, settings.encoder_lr, steps)
    fit(network, batches, Batches(val, 200, device=run.device), epochs=settings.encoder_epochs, optimizer=adam,
        scheduler=cycle, folder=run.folder("toy encoder"))  # fmt: skip
    best = load_weights(network, run.folder("toy encoder") / "best.safetensors")
    return load_regions("toy", grid=SETTINGS.toy["grid"], network=best)


def world(sets, words, vocabulary, encoder, masks=None):
    """Images as features with their captions as words: training, validation and test."""
    folder = checkpoint_root() / "features"
    features = [sharded_features(encoder, part, folder, device=run.device) for part in sets]
    cut = [[caption[: settings.longest - 1] for caption in captions] for captions in words[0]]  # <eos> makes it longest
    train, val, test = (Described(f, w, vocabulary) for f, w in zip(features, [cut, *words[1:]], strict=True))
    return SimpleNamespace(train=train, val=val, test=test, vocabulary=vocabulary, masks=masks)


encoder_of_scenes = toy_encoder()
chosen = dict(size=settings.pixels, grid=settings.grid)
encoder = encoder_of_scenes if run.profile == "toy" else load_regions(settings.encoder, **chosen)
photos = world(sets, words_of, vocabulary, encoder, masks)
train, val, test = photos.train, photos.val, photos.test
run.value("regions", train.features.shape[1]), run.value("channels", train.features.shape[2])
run.value("features_megabytes", sum(part.features.nbytes for part in (train, val, test)) / 1e6)
run.finding(
    f"An image is {train.features.shape[1]} regions of {train.features.shape[2]:,} values; all {sum(map(len, sets)):,} "
    f"images take {sum(part.features.nbytes for part in (train, val, test)) / 1e6:,.0f} MB on disk."
)

# %% [markdown]
# The files are memory-mapped: memory holds a batch at a time. In `full`, EfficientNet-B7 at 380 pixels averaged to 64
# regions of 2,560 values makes 3.6 GB for 11,000 images, which fits on Colab's disk beside the images.

# %% [markdown]
# ### Attention
# "Show, Attend and Tell" (Xu et al. 2015) has two. *Hard* attention draws one region and learns by reinforcement;
# *soft* attention takes the weighted mean of all and learns by backpropagation. Here it is soft. Each region $a_i$ is
# compared with the LSTM's state $h$:
#
# $$\alpha = \operatorname{softmax}_i\, v^\top \tanh(W a_i + U h) \quad\text{(additive)} \qquad
# \alpha = \operatorname{softmax}_i\, \frac{(K a_i)^\top (Q h)}{\sqrt{d}} \quad\text{(scaled dot product)}$$
#
# The context $z = \beta \sum_i \alpha_i a_i$ is a weighted mean of the regions, times a gate $\beta = \sigma(w^\top
# h)$ that can turn the image down for words that need none.

# %%
def additive_attention(regions, hidden, attention):
    """Where to look, (N, R): regions (N, R, D) against the state (N, H), in a space of K dimensions."""
    of_regions = regions @ attention.keys.weight.T + attention.keys.bias  # W a: (N, R, K)
    of_state = hidden @ attention.query.weight.T  # U h: (N, K), the same for all regions
    fits = torch.tanh(of_regions + of_state[:, None]) @ attention.score.weight[0]  # v . tanh(...): (N, R)
    return fits.exp() / fits.exp().sum(1, keepdim=True)  # softmax over the regions


def dot_attention(regions, hidden, attention):
    """Where to look, (N, R): the state asks, the regions answer."""
    keys = regions @ attention.keys.weight.T + attention.keys.bias  # K a: (N, R, d)
    query = hidden @ attention.query.weight.T + attention.query.bias  # Q h: (N, d)
    fits = (keys * query[:, None]).sum(2) / keys.shape[2] ** 0.5  # (N, R); without the root, softmax saturates
    return fits.softmax(1)


def gated_context(looks, regions, hidden, gate):
    """What is seen, (N, D): the mean of regions (N, R, D) weighted by looks (N, R), times a gate of one number."""
    seen = (looks[..., None] * regions).sum(1)  # (N, D)
    beta = torch.sigmoid(hidden @ gate.weight.T + gate.bias)  # (N, 1)
    return beta * seen


# %% tags=["nbval-check-output"]
with seeded(0):
    some, state, gate = torch.randn(5, 9, 24), torch.randn(5, 16), nn.Linear(16, 1)
    for by_hand, kind in ((additive_attention, AdditiveAttention), (dot_attention, DotAttention)):
        attention = kind(24, 16, 32)
        looks = by_hand(some, state, attention)
        torch.testing.assert_close(looks, attention(attention.keys(some), state))
        torch.testing.assert_close(looks.sum(1), torch.ones(5))
    torch.testing.assert_close(gated_context(looks, some, state, gate),
                               gate(state).sigmoid() * torch.einsum("nr,nrd->nd", looks, some))  # fmt: skip
print("both attentions by hand = helpers.captions.decoder's; the weights of an image sum to 1")


# %% [markdown]
# ### One step of the decoder
# The LSTM reads the last word and the context. Its four gates are one matrix product: what to let in ($i$), what to
# keep ($f$), what is new ($g$), what to show ($o$). The next word is named from the word, the state and the context
# together. Each region also carries its place in the grid (x, y), since attention forgets where it looked.

# %%
def lstm_cell(x, hidden, cell, lstm):
    """Next hidden state and cell, (N, H) each, from the input (N, X) and those before."""
    gates = x @ lstm.weight_ih.T + lstm.bias_ih + hidden @ lstm.weight_hh.T + lstm.bias_hh  # (N, 4 H)
    i, f, g, o = gates.chunk(4, 1)  # (N, H) each
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)  # keep some of the old, let in some of the new
    return torch.sigmoid(o) * torch.tanh(cell), cell


def decoder_step(decoder, state, words, attend=additive_attention):
    """One word on: logits (N, V), the next state, where it looked (N, R). Words are numbers (N,)."""
    hidden, cell, _, regions = state
    looks = attend(regions, hidden, decoder.attention)  # (N, R)
    context = gated_context(looks, regions, hidden, decoder.gate)  # (N, H)
    word = decoder.embed.weight[words]  # (N, E)
    hidden, cell = lstm_cell(torch.cat([word, context], 1), hidden, cell, decoder.cell)
    meant = torch.tanh(word + decoder.from_hidden(hidden) + decoder.from_context(context))  # (N, E)
    return meant @ decoder.out.weight.T + decoder.out.bias, (hidden, cell, *state[2:]), looks


# %%
def new_decoder(data, attention=AdditiveAttention, seed=0):
    """A decoder with its first weights, which its seed decides; drawn scenes have a smaller one."""
    sizes = DRAWN if data.masks is not None else vars(settings)
    with seeded(seed):
        return CaptionDecoder(len(data.vocabulary), data.train.features.shape[2], attention, sizes["embed"],
                              sizes["hidden"], sizes["dropout"]).to(run.device)  # fmt: skip


# %% tags=["nbval-check-output"]
regions, captions, of = train.batch(range(4), run.device)  # (4, R, D), (captions, T), of which image each is
for attend, kind in ((additive_attention, AdditiveAttention), (dot_attention, DotAttention)):
    decoder = new_decoder(photos, kind).eval()  # no dropout
    with torch.no_grad():
        ours = theirs = decoder.start(regions)
        for words in captions[:4, :3].T:  # three words of four captions, (4,) each
            logits, ours, looks = decoder_step(decoder, ours, words, attend)
            expected, theirs, their_looks = decoder.step(theirs, words)
            torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(looks, their_looks, rtol=1e-4, atol=1e-5)
print("a decoder step by hand, LSTM and all = CaptionDecoder.step")

# %%
decoder = new_decoder(photos)
name = type(encoder).__name__ if run.profile == "toy" else settings.encoder
figure = diagrams.captioner_diagram(decoder, encoder, name, train.features.shape[1:])
run.figure("architecture", figure, "What is computed for one word; below each box its parameters")

# %%
owners = {"encoder": encoder, "decoder": decoder}
count = {name: sum(p.numel() for p in owner.parameters()) for name, owner in owners.items()}
table = pd.DataFrame({"parameters": count, "trained": count | {"encoder": 0}}).rename_axis("part")
table.loc["total"] = table.sum()
run.table("parameters", table, "Parameters")

# %% [markdown]
# ## 3 · Training
# **The loss** is the cross-entropy of the next word, with smoothed labels, plus the doubly stochastic penalty
# $\lambda \operatorname{mean}_i (1 - \sum_t \alpha_{ti})^2$ of the paper. Captions of a batch have different lengths,
# so they are filled up with `<pad>`, and padding must take no part in either term. The penalty asks that every region
# be looked at once. A caption of $T$ words has only $T$ looks to give to $R$ regions; for $T < R$ it mostly asks for
# an even spread.

# %%
def masked_loss(logits, looks, captions, penalty, smoothing):
    """Logits (N, T - 1, V), looks (N, T - 1, R), captions (N, T) to one number; padding has no part in it."""
    wanted = captions[:, 1:]  # (N, T - 1): the word that comes next
    real = (wanted != PAD_ID).float()  # 1 at words and <eos>, 0 at <pad>
    log_probs = logits.log_softmax(2)
    right = log_probs.gather(2, wanted[..., None])[..., 0]  # (N, T - 1): of the right word
    nats = -(1 - smoothing) * right - smoothing * log_probs.mean(2)  # a little for every other word
    attended = (looks * real[..., None]).sum(1)  # (N, R): how much each region was looked at, over the caption
    return (nats * real).sum() / real.sum() + penalty * (1 - attended).square().mean()


# %% tags=["nbval-check-output"]
decoder, longest = new_decoder(photos).eval(), captions.shape[1]
wide = F.pad(captions, (0, 3), value=PAD_ID)  # three more places of padding
logits, looks = (part.detach().requires_grad_() for part in decoder(regions, wide, of=of))
ours, theirs = masked_loss(logits, looks, wide, 0.5, 0.1), sum(caption_loss(logits, looks, wide, 0.5, 0.1))
torch.testing.assert_close(ours, theirs)
torch.testing.assert_close(ours, masked_loss(logits[:, : longest - 1], looks[:, : longest - 1], captions, 0.5, 0.1))
felt = torch.autograd.grad(ours, [logits, looks])
padded = wide[:, 1:] == PAD_ID
assert all(torch.equal(part[padded], torch.zeros_like(part[padded])) for part in felt)
print("masked loss by hand = caption_loss; more padding changes nothing; no gradient reaches padding")

# %% [markdown]
# **Teacher forcing**: in training the decoder reads the caption's own words. **Choosing an epoch**: by BLEU-4 of
# captions that the decoder wrote *by itself* for validation images. BLEU of teacher-forced predictions would grade a
# decoder that is handed the right answer after each word.
#
# An epoch, written out:

# %%
def train_by_hand(decoder, data, recipe):
    """One epoch with teacher forcing, in place."""
    adamw = torch.optim.AdamW(decoder.parameters(), recipe.lr, weight_decay=recipe.weight_decay)
    steps = math.ceil(len(data) / recipe.images)
    cycle = torch.optim.lr_scheduler.OneCycleLR(adamw, recipe.lr, recipe.epochs * steps, pct_start=0.1)
    decoder.train()
    seed = epoch_seed(recipe.seed, 0)
    with seeded(seed, run.device):  # dropout follows from the seed
        for regions, captions, of in data.batches(recipe.images, run.device, seed):  # in an order drawn by it
            logits, looks = decoder(regions, captions, of=of)  # (N, T - 1, V), (N, T - 1, R)
            loss = masked_loss(logits, looks, captions, recipe.penalty, recipe.label_smoothing)
            adamw.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(decoder.parameters(), recipe.max_norm)
            adamw.step()
            cycle.step()
    return decoder


# %% tags=["nbval-check-output"]
few, watched = (replace(part, features=part.features[:32], captions=part.captions[:32]) for part in (train, val))
recipe = Recipe(epochs=1, images=4, lr=1e-3, seed=3)
by_hand = train_by_hand(new_decoder(photos), few, recipe)
decoder = new_decoder(photos)
with TemporaryDirectory() as folder:
    train_captioner(decoder, few, watched, recipe, folder, run.device)
for ours, theirs in zip(by_hand.parameters(), decoder.parameters(), strict=True):
    torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-3)
print("one epoch by hand = one epoch of train_captioner: the same weights")


# %% [markdown]
# The kinds of decoder that this notebook compares. Each differs from the first in one thing: the attention, the words
# it reads in training, or what it is shown. `even weights` is the control for attention itself: a decoder that cannot
# choose and sees the mean region at every word. `no image` is shown a single region of zeros, so it is a language
# model.

# %%
class EvenWeights(nn.Module):
    """No attention: every region has the same weight, whatever the state asks."""

    def __init__(self, region_dim, hidden_dim, dim):
        super().__init__()

    def keys(self, regions):
        return regions[..., :1]  # (N, R, 1): nothing to compare

    def forward(self, keys, hidden):
        return keys.new_full(keys.shape[:2], 1 / keys.shape[1])  # (N, R)


VARIANTS = {  # attention, probability of reading the caption's own word, shown the image
    "additive": (AdditiveAttention, always_told, True),
    "sampling, linear": (AdditiveAttention, linear, True),
    "sampling, exponential": (AdditiveAttention, exponential, True),
    "dot-product": (DotAttention, always_told, True),
    "even weights": (EvenWeights, always_told, True),
    "no image": (AdditiveAttention, always_told, False),
}


def blinded(part):
    """The same captions, but each image is one region of zeros."""
    return replace(part, features=np.zeros((len(part), 1, part.features.shape[2]), np.float16))


def learn(variant, seed, data=photos):
    """One decoder with the weights of its best epoch, and its history; resumes where it was stopped."""
    attention, truth, sees = VARIANTS[variant]
    drawn = data.masks is not None
    chosen = SimpleNamespace(**DRAWN) if drawn else settings
    recipe = Recipe(chosen.epochs, truth, chosen.batch, chosen.lr, chosen.decay, chosen.smoothing, chosen.penalty,
                    chosen.max_norm, chosen.longest, seed)  # fmt: skip
    parts = [part if sees else blinded(part) for part in (data.train, data.val)]
    folder = run.folder(f"{variant}, seed {seed}{', drawn' if data is not photos else ''}")
    precision = "bf16" if run.precision == "bf16" and not drawn else "no"
    decoder = new_decoder(data, attention, seed)
    history = train_captioner(decoder, *parts, recipe, folder, run.device, precision)
    return load_weights(decoder, folder / "best.safetensors").to(run.device).eval(), history


# %%
trained = {("additive", seed): learn("additive", seed) for seed in settings.seeds}
decoder, history = trained["additive", run.seed]
shown = history[["epoch", "train_loss", "val_loss", "val_bleu1", "val_bleu4", "val_distinct", "caption"]]
caption = "After each epoch, first seed: nats a word, BLEU and number of different greedy captions, validation images"
run.table("history", shown.set_index("epoch"), caption)

# %%
texts = {f"reference {n}": text for n, text in enumerate(sets[1].captions[0][:3], 1)}
texts |= {"epoch 1": history.caption.iloc[0], f"epoch {len(history)}": history.caption.iloc[-1]}
figure = diagrams.caption_cards([pixels(0, sets[1])], [texts], columns=1, size=2.2)
run.figure("first", figure, "The first validation image, its captions, and what the decoder wrote after two epochs")


# %%
def loss_curves(histories, column, title):
    """Mean over seeds with a band from the lowest to the highest; the axis is zoomed on what differs."""
    by_seed = {name: pd.concat([h.set_index("epoch")[column] for h in own], axis=1) for name, own in histories.items()}
    mean, low, high = (pd.DataFrame({name: getattr(frame, of)(axis=1) for name, frame in by_seed.items()})
                       for of in ("mean", "min", "max"))  # fmt: skip
    figure = plotting.lines(mean, "epoch", "cross-entropy (nats a word)", title, low, high, percent=False)
    bottom, top = low.to_numpy().min(), np.quantile(high.to_numpy(), 0.9)
    figure.axes[0].set_ylim(bottom - 0.05 * (top - bottom), top + 0.15 * (top - bottom))
    return figure


both = {"training": [h.rename(columns={"train_loss": "loss"}) for _, h in trained.values()],
        "validation": [h.rename(columns={"val_loss": "loss"}) for _, h in trained.values()]}  # fmt: skip
caption = "Loss under teacher forcing (training: with dropout), mean and range of the seeds"
run.figure("loss", loss_curves(both, "loss", "Additive attention"), caption)

# %%
by_loss, by_bleu = history.loc[history.val_loss.idxmin()], history.loc[history.val_bleu4.idxmax()]
run.value("val_loss_first", history.val_loss.iloc[0]), run.value("val_loss_best", history.val_loss.min())
run.finding(
    f"First seed: the validation loss falls from {history.val_loss.iloc[0]:.2f} to {history.val_loss.min():.2f} nats a "
    f"word. It would choose epoch {by_loss.epoch:.0f}; captions written freely choose epoch {by_bleu.epoch:.0f}."
)

# %% [markdown]
# ⟦training_reading: how the curves run, how many captions differ after the first and last epoch, what over-fitting
# there is⟧

# %% [markdown]
# ## 4 · Captions of test images
# ### Greedy, and beam search
# **Greedy** takes the likeliest word each time. **Beam search** keeps the `width` best beginnings, lets each go on
# with its likeliest words, and keeps the best again. What ends is put aside, and finished captions are compared by
# $\log p / \text{length}^{\gamma}$: without a norm ($\gamma = 0$) each further word lowers the score, and the shortest
# wins. `<unk>` may not be written, since no reader can use it. Both for one image:

# %%
def scores_of(decoder, state, words):
    """Log-probabilities (V,) of the word after `words`, the next state, and where the decoder looked."""
    last = torch.tensor(words[-1:], device=decoder.device)
    logits, state, looks = decoder.step(state, last)  # (1, V)
    logits[:, list(FOR_PEOPLE)] = -torch.inf
    return logits.log_softmax(1)[0], state, looks


@torch.no_grad()
def greedy_by_hand(decoder, regions, longest=20):
    """The caption of one image (1, R, D) as numbers."""
    words, state = [SOS_ID], decoder.start(regions)
    while len(words) <= longest and words[-1] != EOS_ID:
        log_probs, state, _ = scores_of(decoder, state, words)
        words.append(int(log_probs.argmax()))
    return torch.tensor(words[1:])


@torch.no_grad()
def beam_by_hand(decoder, regions, width, power, longest=20):
    """The caption of one image (1, R, D) as numbers, its row in the tree, and the tree: all that was looked at."""
    beams, done, tree = [(0.0, [SOS_ID], decoder.start(regions), -1)], [], []
    for step in range(longest):
        grown = []  # (log-probability, words, state after the last word but one, row of the parent)
        for total, words, state, row in beams:
            log_probs, after, _ = scores_of(decoder, state, words)
            best = zip(*map(torch.Tensor.tolist, log_probs.topk(2 * width)), strict=True)  # each can end only once
            grown += [(total + log_prob, [*words, word], after, row) for log_prob, word in best]
        grown, beams = sorted(grown, key=lambda each: -each[0])[: 2 * width], []
        for rank, (total, words, state, parent) in enumerate(grown):
            ended, kind = words[-1] == EOS_ID, "cut"
            if ended and rank < width:
                kind = "ended"
                done.append((total / len(words[1:]) ** power, words[1:], len(tree)))
            elif not ended and len(beams) < width:
                kind = "kept"
                beams.append((total, words, state, len(tree)))
            tree.append((step, parent, vocabulary.words[words[-1]], total, kind))
        open_scores = [total / len(words[1:]) ** power for total, words, _, _ in beams]
        if done and max(open_scores) <= max(done)[0]:  # nothing that goes on is better than the best that ended
            break
    _, words, row = max(done or [(s, b[1][1:], b[3]) for s, b in zip(open_scores, beams, strict=True)])
    return torch.tensor(words), row, pd.DataFrame(tree, columns=["step", "parent", "word", "log_prob", "kind"])


# %% [markdown]
# `helpers.captions.search` does both for a batch. It must find the same captions, image by image and all at once, and
# with one beam it must be greedy.

# %% tags=["nbval-check-output"]
regions = val.regions(range(8), run.device)
with torch.no_grad():
    start = decoder.start(regions)
    greedily = greedy(decoder.step, start, settings.longest, FOR_PEOPLE)
    beamed = beam_search(decoder.step, start, settings.width, settings.longest, 0.7, FOR_PEOPLE)
    one_beam = beam_search(decoder.step, start, 1, settings.longest, 0.7, FOR_PEOPLE)
assert torch.equal(one_beam.words, greedily.words)
for image in range(8):
    by_hand = greedy_by_hand(decoder, regions[image : image + 1], settings.longest)
    assert torch.equal(by_hand, greedily.words[image, : len(by_hand)].cpu())
    by_hand, _, _ = beam_by_hand(decoder, regions[image : image + 1], settings.width, 0.7, settings.longest)
    assert torch.equal(by_hand, beamed.words[image, : len(by_hand)].cpu())
print("greedy and beam search by hand, one by one = helpers.captions.search in a batch; one beam = greedy")


# %% [markdown]
# What a search looked at for one validation image, as a tree. Persian runs from the right, and so does the tree; below
# each word stands the log-probability of the sentence so far.

# %%
def on_the_way(tree, row):
    """The tree with the rows that lead to `row` marked as the best."""
    tree = tree.copy()
    while row >= 0:
        tree.loc[row, "kind"], row = "best", tree.parent[row]
    return tree


_, row, tree = beam_by_hand(decoder, val.regions([0], run.device), settings.width, 0.7, settings.longest)
run.figure("tree", diagrams.beam_tree(on_the_way(tree, row)), "A beam search: what was kept, what was cut, what ended")

# %% [markdown]
# ⟦tree_reading: where the best caption was not the first in its step, and what was cut⟧
#
# **How long should captions be?** The exponent $\gamma$ is chosen on validation images, by the mean BLEU-4 of all
# seeds.

# %%
def captions_of(decoder, part, width=settings.width, power=1.0):
    """The words of each image's caption."""
    found = write(decoder, part.features, width=width, power=power, longest=settings.longest, barred=FOR_PEOPLE,
                  device=run.device)  # fmt: skip
    return said(found, photos.vocabulary)


rows = {}
for power in settings.powers:
    written = [captions_of(trained["additive", seed][0], val, power=power) for seed in settings.seeds]
    by_seed = [bleu(words, val.captions) for words in written]
    length = np.mean([len(words) for own in written for words in own])
    rows[power] = np.mean(by_seed), min(by_seed), max(by_seed), length
columns = ["BLEU-4", "lowest seed", "highest seed", "mean length"]
powers = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("exponent")
POWER = run.value("power", float(powers["BLEU-4"].idxmax()))
run.value("reference_length", float(np.mean([len(words) for own in val.captions for words in own])))
run.table("powers", powers, "The exponent of the length, on validation images (beam search, additive attention)")

# %% [markdown]
# ⟦powers_reading: which exponent was taken, how much it matters beside the range of the seeds⟧

# %% [markdown]
# ### How captions are scored
# The paper reports BLEU-1 to BLEU-4 and METEOR; the field since then also CIDEr.
#
# - **BLEU-n** (Papineni et al. 2002): the geometric mean of the precision of 1- to n-grams over the whole set,
#   against all references of an image, times a penalty for short texts. It counts every n-gram alike.
# - **CIDEr-D** (Vedantam et al. 2015) weighs n-grams by tf-idf: what people say of *this* image and of few others
#   counts most. It runs from 0 to 10 and is usually printed times 100.
# - **chrF** (Popović 2015) counts matching letters and forgives endings, of which Persian has many.
# - **METEOR** aligns words by form, stem and synonym. There is no Persian stemmer or WordNet in it, so the figure below
#   aligns equal words only: it lacks just what sets METEOR apart, and compares with no published figure.
#
# A caption is cut at its first `<eos>`, and all scores see hazm's words without punctuation. BLEU by hand, from
# counts that can be summed over any set of images, which makes the intervals below cheap:

# %%
def bleu_counts(written, references):
    """For each image the matches and n-grams for n = 1 to 4, its length, and its closest reference's: (N, 10)."""
    rows = []
    for words, own in zip(written, references, strict=True):
        row = []
        for n in range(1, 5):
            mine, most = Counter(ngrams(words, n)), Counter()
            for reference in own:
                most |= Counter(ngrams(reference, n))  # the most often that any one reference has it
            row += [(mine & most).total(), max(mine.total(), 1)]  # a match counts as often as a reference has it
        closest = min((abs(len(reference) - len(words)), len(reference)) for reference in own)[1]
        rows.append([*row, len(words), closest])
    return torch.tensor(rows, dtype=torch.float64)


def bleu_of(sums, order=4):
    """BLEU (...) from summed counts (..., 10)."""
    matches, grams = sums[..., 0 : 2 * order : 2], sums[..., 1 : 2 * order : 2]  # (..., order)
    matches = matches.where(matches > 0, 0.1)  # else one order without a match makes it 0
    short = (1 - sums[..., 9] / sums[..., 8]).clamp(max=0).exp()  # 1 where the text is long enough
    return short * (matches / grams).log().mean(-1).exp()


# %% tags=["nbval-check-output"]
CAPTIONS = {("additive", seed): captions_of(trained["additive", seed][0], test, power=POWER) for seed in settings.seeds}
greedy_words = captions_of(decoder, test, width=1)
beam_words = CAPTIONS["additive", run.seed]
for words in (greedy_words, beam_words):
    counts = bleu_counts(words, test.captions)
    for order in range(1, 5):
        expected = torch.tensor(bleu(words, test.captions, order), dtype=torch.float64)
        torch.testing.assert_close(bleu_of(counts.sum(0), order), expected)
print("BLEU-1 to BLEU-4 by hand = nltk's")


# %%
class EqualWords:
    """For METEOR: a stemmer that leaves words as they are, and a WordNet without synonyms."""

    @staticmethod
    def stem(word):
        return word

    @staticmethod
    def synsets(word):
        return []


def scores(words):
    """All scores of captions of the test images; how many captions differ, and their mean length."""
    counts = bleu_counts(words, test.captions).sum(0)
    found = {f"BLEU-{order}": bleu_of(counts, order).item() for order in range(1, 5)}
    pairs = list(zip(test.captions, words, strict=True))
    meteor = [meteor_score(own, caption, stemmer=EqualWords, wordnet=EqualWords) for own, caption in pairs]
    found |= {"CIDEr-D": cider_d(words, test.captions).mean(), "chrF": chrf(words, test.captions)}
    found["METEOR, equal words"] = float(np.mean(meteor))
    return found | {"different": len({" ".join(w) for w in words}), "mean length": np.mean([len(w) for w in words])}


@cache
def scores_by_seed(variant):
    """A row of scores for each seed."""
    return pd.DataFrame([scores(CAPTIONS[variant, seed]) for seed in settings.seeds], index=settings.seeds)


GREEDY = {("additive", seed): captions_of(trained["additive", seed][0], test, width=1) for seed in settings.seeds}
greedily = pd.DataFrame([scores(GREEDY["additive", seed]) for seed in settings.seeds])
rows = {"greedy": greedily.mean(), f"beam {settings.width}": scores_by_seed("additive").mean()}
table = pd.DataFrame(rows).T
run.value("bleu1", table["BLEU-1"].iloc[1]), run.value("bleu4", table["BLEU-4"].iloc[1])
run.value("greedy_bleu4", table["BLEU-4"].iloc[0]), run.value("cider", table["CIDEr-D"].iloc[1])
caption = f"Additive attention, {len(test)} test images, {sum(map(len, test.captions)):,} references, mean of the seeds"
run.table("test", table.rename_axis("search"), caption)

# %% [markdown]
# **How sure is it?** Two things could have been otherwise: the test images, and the training (first weights, order,
# dropout). For the intervals both are drawn anew, with replacement: the images some thousand times, and for each draw
# as many seeds as there are. Two kinds of captions are compared on the *same* draws of images, each with its own
# draws of seeds. Three seeds say little about the spread between trainings, so that these intervals are rather too
# short than too long.

# %%
COUNT, SEEDS = len(test), len(settings.seeds)
draws = np.random.default_rng(run.seed).multinomial(COUNT, [1 / COUNT] * COUNT, settings.resamples)
draws = torch.from_numpy(draws).double()  # (resamples, N): how often each image was drawn


def resampled(variant):
    """BLEU-4 and CIDEr-D of the variant on each draw of images, mean over drawn seeds: (resamples,) each."""
    words = [CAPTIONS[variant, seed] for seed in settings.seeds]
    by_bleu = torch.stack([bleu_of(draws @ bleu_counts(own, test.captions)) for own in words], 1)  # (resamples, S)
    ciders = torch.stack([torch.from_numpy(cider_d(own, test.captions)) for own in words], 1)  # (N, S)
    own_draws = np.random.default_rng([run.seed, list(VARIANTS).index(variant)])  # not those of another variant
    seeds = torch.from_numpy(own_draws.integers(SEEDS, size=(settings.resamples, SEEDS)))
    found = {"BLEU-4": by_bleu, "CIDEr-D": draws @ ciders / COUNT}
    return {name: by_seed.gather(1, seeds).mean(1) for name, by_seed in found.items()}


def compared(variants, base="additive"):
    """For each variant BLEU-4 and CIDEr-D with 95 % intervals, and the same of the difference from `base`."""
    rows, drawn = {}, {variant: resampled(variant) for variant in dict.fromkeys([base, *variants])}
    for variant in variants:
        by_seed, of_base = scores_by_seed(variant), scores_by_seed(base)
        for name in ("BLEU-4", "CIDEr-D"):
            ends = drawn[variant][name].quantile(torch.tensor([0.025, 0.975]).double()).tolist()
            change = drawn[variant][name] - drawn[base][name]
            apart = change.quantile(torch.tensor([0.025, 0.975]).double()).tolist()
            difference = by_seed[name].mean() - of_base[name].mean()
            rows[variant, name] = [by_seed[name].mean(), *ends, by_seed[name].std(), difference, *apart]
    columns = ["mean", "low", "high", "deviation of seeds", f"minus {base}", "low of it", "high of it"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def indexed(table):
    """Pairs of names as two columns of the index."""
    return table.set_index(pd.MultiIndex.from_tuples(table.index, names=["captions", "score"]))


table = indexed(compared(["additive"])).iloc[:, :4]
run.value("bleu4_low", table["low"].iloc[0]), run.value("bleu4_high", table["high"].iloc[0])
run.value("cider_low", table["low"].iloc[1]), run.value("cider_high", table["high"].iloc[1])
run.table("intervals", table, "Additive attention, beam search: mean of the seeds, 95 % interval over images and seeds")

# %%
run.table("seeds", scores_by_seed("additive").rename_axis("seed"), "Each seed by itself, beam search, test images")

# %%
run.finding(
    f"BLEU-4 is {table['mean'].iloc[0]:.3f} ({table['low'].iloc[0]:.3f} to {table['high'].iloc[0]:.3f}) and CIDEr-D "
    f"{table['mean'].iloc[1]:.2f} ({table['low'].iloc[1]:.2f} to {table['high'].iloc[1]:.2f}), means of {SEEDS} seeds."
)


# %% [markdown]
# **The seeds together.** Several decoders can write one caption: at each word their probabilities are averaged. It is
# an extra row, not another seed; it costs as many trainings as it has members.

# %%
class Ensemble(nn.Module):
    """Decoders that write together; a state is all of their states, one after the other."""

    def __init__(self, decoders):
        super().__init__()
        self.decoders, self.device = nn.ModuleList(decoders), decoders[0].device

    def start(self, regions):
        return tuple(part for decoder in self.decoders for part in decoder.start(regions))

    def step(self, state, words):
        parts = [decoder.step(state[4 * n : 4 * n + 4], words) for n, decoder in enumerate(self.decoders)]
        log_probs = torch.stack([logits.log_softmax(1) for logits, _, _ in parts])  # (members, M, V)
        looks = torch.stack([looks for _, _, looks in parts]).mean(0)
        return log_probs.logsumexp(0), tuple(part for _, state, _ in parts for part in state), looks


together = Ensemble([trained["additive", seed][0] for seed in settings.seeds])
ensemble_words = captions_of(together, test, power=POWER)
table = pd.DataFrame({"one decoder, mean of the seeds": scores_by_seed("additive").mean(),
                      "all seeds together": scores(ensemble_words)})  # fmt: skip
run.value("ensemble_bleu4", table.loc["BLEU-4"].iloc[1]), run.value("ensemble_cider", table.loc["CIDEr-D"].iloc[1])
run.table("ensemble", table.T.rename_axis("captions by"), "The seeds one by one and together, beam search, test images")

# %%
some = np.random.default_rng(run.seed).choice(len(test), 6, replace=False)


def card(place, **written):
    """Two references of a test image and captions by name."""
    own = {f"reference {n}": text for n, text in enumerate(sets[2].captions[place][:2], 1)}
    return own | {name.replace("_", " "): " ".join(words[place]) for name, words in written.items()}


cards = [card(place, greedy=greedy_words, beam=beam_words, all_seeds=ensemble_words) for place in some]
figure = diagrams.caption_cards([pixels(place) for place in some], cards)
run.figure("captions", figure, "Test images drawn at random: references, greedy, beam search, and all seeds together")

# %% [markdown]
# **Reading part 4**, in `lite`. ⟦test_reading: BLEU-4 mean of three seeds with its interval and CIDEr; greedy against
# beam; what all seeds together gain; that beam captions are shorter and how BLEU-1 and the length go together; Xu et
# al. report BLEU-1 0.67 and BLEU-4 0.195 for soft attention on English Flickr8k with 6,000 training images, a larger
# encoder and captions that people wrote (not the same test)⟧

# %% [markdown]
# ## 5 · Does it look at the image?
# A decoder that has learnt how captions *sound* scores well above zero without an image. Four controls, on the same
# test images:
#
# - **other images**: the captions of our model, each given to another image, in ten random orders. A caption depends
#   on its own image only, whatever batch it is in, so that exchanging captions is exchanging features.
# - **one caption for all**: of the captions that our model writes most often for validation images, the one with the
#   best BLEU-4 there.
# - **no image**: the same decoder trained on a single region of zeros.
# - **another's reference**: a caption of another test image, not written by a model.

# %%
orders = [np.random.default_rng(seed).permutation(COUNT) for seed in range(10)]
exchanged = pd.DataFrame([scores([beam_words[place] for place in order]) for order in orders])
often = Counter(tuple(words) for words in captions_of(decoder, val, power=POWER)).most_common(settings.constants)
constant = max((list(words) for words, _ in often), key=lambda words: bleu([words] * len(val), val.captions))
trained |= {("no image", seed): learn("no image", seed) for seed in settings.seeds}
CAPTIONS |= {("no image", seed): captions_of(trained["no image", seed][0], blinded(test), power=POWER)
             for seed in settings.seeds}  # fmt: skip
table = pd.DataFrame({
    "additive": scores_by_seed("additive").mean(), "other images": exchanged.mean(),
    "one caption for all": scores([constant] * COUNT), "no image": scores_by_seed("no image").mean(),
    "another's reference": scores([test.captions[place][0] for place in orders[0]]),
}).T  # fmt: skip
run.value("shuffled_bleu4", exchanged["BLEU-4"].mean()), run.value("shuffled_bleu4_most", exchanged["BLEU-4"].max())
run.value("constant_bleu4", table.loc["one caption for all", "BLEU-4"])
run.value("blind_bleu4", table.loc["no image", "BLEU-4"])
run.table("controls", table.rename_axis("captions"), "What captions score that do not come from the image")

# %%
run.table("constant", pd.DataFrame({"caption": [" ".join(constant)]}), "The one caption for all")

# %%
table = indexed(compared(["no image"]))
run.table("no_image", table, "A decoder that sees no image against additive attention, with 95 % intervals")

# %% [markdown]
# **Reading it**, in `lite`. ⟦controls_reading: BLEU-1 of the controls beside ours (much of BLEU-1 is the language's),
# BLEU-4 of the best control, and CIDEr-D, which the one caption for all cannot earn; a safe sentence beats a
# particular one about the wrong image⟧

# %% [markdown]
# ## 6 · Five bad captions
# Bad: the five test images with the lowest CIDEr-D, first seed. Beside each the numbers that could name a cause:
#
# - **unknown**: the share of the references' words that the vocabulary lacks (cause: data);
# - **gain from the image**: nats a word by which the decoder finds its caption likelier than the decoder without
#   image does (if small, the words come from the language, not the image);
# - **reference above own**: the likeliest reference's log-probability minus the caption's, nats a word (above 0 the
#   search missed a caption that the model likes better);
# - **largest weight** of the attention, in times an even spread, mean over the words (near 1: it looked nowhere in
#   particular).
#
# What is a small gain? The same numbers for the *good* captions, the quarter with the highest CIDEr-D, give the
# scale: the value that 10 % of them lie below, their median, and the value that 10 % lie above.

# %%
each = cider_d(beam_words, test.captions)
language = trained["no image", run.seed][0]


def evidence(places):
    """The four numbers for each of these test images."""
    regions, nothing = test.regions(places, run.device), blinded(test).regions(places, run.device)
    words, references = ([part[place] for place in places] for part in (beam_words, test.captions))
    own = mean_log_prob(decoder, regions, words, vocabulary)
    without = mean_log_prob(language, nothing, words, vocabulary)
    most = max(map(len, references))
    tried = [mean_log_prob(decoder, regions, [of[n % len(of)] for of in references], vocabulary) for n in range(most)]
    _, looks = word_log_probs(decoder, regions, pad([vocabulary.encode(w) for w in words]).to(run.device))
    largest = [looks[row, : len(w)].amax(1).mean().item() * looks.shape[2] for row, w in enumerate(words)]
    strange = [np.mean([word not in vocabulary.numbers for r in of for word in r]) for of in references]
    return pd.DataFrame({"CIDEr-D": each[places], "unknown": strange, "gain from the image": (own - without).cpu(),
                         "reference above own": (torch.stack(tried).amax(0) - own).cpu(), "largest weight": largest},
                        index=places)  # fmt: skip


ranked = np.argsort(each, kind="stable")
worst, good = ranked[:5], ranked[-(COUNT // 4) :]
bad, scale = evidence(worst), evidence(good).quantile([0.1, 0.5, 0.9])
bad.index = [f"bad {n}" for n in range(1, 6)]
scale.index = ["good, 10 % below", "good, median", "good, 10 % above"]
run.table("bad", pd.concat([bad, scale]).rename_axis("caption"), "Five bad captions beside the good ones, test images")

# %%
cards = [card(place, beam=beam_words) for place in worst]
figure = diagrams.caption_cards([pixels(place) for place in worst], cards)
run.figure("bad", figure, "The five bad captions, with two references each")


# %%
def tiles(place):
    """Where the decoder looked for each word of its caption of a test image."""
    words, regions = beam_words[place], test.regions([place], run.device)
    _, looks = word_log_probs(decoder, regions, vocabulary.encode(words)[None].to(run.device))  # (1, T - 1, R)
    side = math.isqrt(looks.shape[2])
    return diagrams.word_tiles(pixels(place), words, looks[0, : len(words)].cpu().unflatten(1, (side, side)))


run.figure("bad1", tiles(worst[0]), "Bad caption 1: where each word was looked for, from the right")

# %% [markdown]
# ⟦bad1: two sentences on the map, the word and the cause (wrong region, wrong word, data, or architecture)⟧

# %%
run.figure("bad2", tiles(worst[1]), "Bad caption 2")

# %% [markdown]
# ⟦bad2: two sentences⟧

# %%
run.figure("bad3", tiles(worst[2]), "Bad caption 3")

# %% [markdown]
# ⟦bad3: two sentences⟧

# %%
run.figure("bad4", tiles(worst[3]), "Bad caption 4")

# %% [markdown]
# ⟦bad4: two sentences⟧

# %%
run.figure("bad5", tiles(worst[4]), "Bad caption 5")

# %% [markdown]
# ⟦bad5: two sentences⟧

# %% [markdown]
# And one good caption, for the eye: the test image with the highest CIDEr-D.

# %%
run.figure("best", tiles(ranked[-1]), "The caption with the highest CIDEr-D")

# %% [markdown]
# ⟦best_reading: do the maps of a good caption look different from those of the bad ones?⟧

# %% [markdown]
# ## 7 · Scheduled sampling
# Under teacher forcing the decoder never reads its own mistakes. Scheduled sampling (Bengio et al. 2015) hands it the
# reference's word with probability $p$, else its own likeliest, and lowers $p$ from 1 to 0.5 over the epochs: in a
# straight line, or exponentially. The choice is one draw for each word:

# %%
def unroll(decoder, regions, caption, p):
    """Logits (T - 1, V) for one caption (T,) of regions (1, R, D); each word read is the caption's, or the own one."""
    state, word, found = decoder.start(regions), caption[:1], []
    for place in range(1, len(caption)):
        logits, state, _ = decoder.step(state, word)  # (1, V)
        found.append(logits)
        told = torch.rand(1, device=caption.device) < p
        word = torch.where(told, caption[place : place + 1], logits.argmax(1))
    return torch.cat(found)


# %% tags=["nbval-check-output"]
regions, captions, of = train.batch(range(3), run.device)
for n, row in enumerate(captions[:3]):
    caption, its = row[row != PAD_ID], regions[of[n]][None]
    for p in (1.0, 0.5, 0.0):
        with torch.no_grad(), seeded(5, run.device):
            ours = unroll(decoder, its, caption, p)
        with torch.no_grad(), seeded(5, run.device):
            theirs, _ = decoder(its, caption[None], p)
        torch.testing.assert_close(ours, theirs[0], rtol=1e-3, atol=1e-3)
assert (linear(0), linear(1), exponential(0), exponential(1)) == (1, settings.sampled_to, 1, settings.sampled_to)
print("scheduled sampling by hand = CaptionDecoder's; both schedules fall from 1 to 0.5")

# %% [markdown]
# All else is the same, first weights and order included. The validation loss is teacher-forced for all, so that the
# curves compare; a loss measured at the current $p$ would rise with the schedule itself.

# %%
SAMPLED = ["sampling, linear", "sampling, exponential"]
trained |= {(variant, seed): learn(variant, seed) for variant in SAMPLED for seed in settings.seeds}
CAPTIONS |= {(variant, seed): captions_of(trained[variant, seed][0], test, power=POWER)
             for variant in SAMPLED for seed in settings.seeds}  # fmt: skip
shown = {"teacher forcing": "additive", "linear": SAMPLED[0], "exponential": SAMPLED[1]}
histories = {name: [trained[key, seed][1] for seed in settings.seeds] for name, key in shown.items()}
figure = loss_curves(histories, "val_loss", "Validation loss, teacher-forced")
run.figure("sampling_loss", figure, "Validation loss of three ways of training, mean and range of the seeds")

# %%
figure = loss_curves(histories, "train_loss", "Training loss, on the words that each way reads")
run.figure("sampling_train", figure, "Training loss: the reference's next word need not follow the decoder's own words")

# %%
table = pd.DataFrame({variant: scores_by_seed(variant).mean() for variant in ["additive", *SAMPLED]}).T
table["best validation loss"] = [np.mean([h.val_loss.min() for h in own]) for own in histories.values()]
run.table("sampling", table.rename_axis("trained by"), "Scheduled sampling, test images, beam search, mean of seeds")

# %%
table = indexed(compared(SAMPLED))
for variant, place in (("linear", 0), ("exponential", 2)):
    run.value(f"sampling_{variant}", table["minus additive"].iloc[place])
run.table("sampling_compared", table, "Scheduled sampling minus teacher forcing, 95 % intervals over images and seeds")

# %% [markdown]
# **Reading it**, in `lite`. ⟦sampling_reading: the differences with their intervals; the mean length beside BLEU-1,
# since shorter captions raise precision and are no finding by themselves; the teacher-forced loss⟧

# %% [markdown]
# ## 8 · Scaled dot-product attention
# The state asks, the regions answer. The schedule, the dropout and the penalty $\lambda$ are the same: a comparison
# of two attentions under two values of $\lambda$ would compare penalties.

# %%
trained |= {("dot-product", seed): learn("dot-product", seed) for seed in settings.seeds}
CAPTIONS |= {("dot-product", seed): captions_of(trained["dot-product", seed][0], test, power=POWER)
             for seed in settings.seeds}  # fmt: skip
histories = {name: [trained[name, seed][1] for seed in settings.seeds] for name in ("additive", "dot-product")}
figure = loss_curves(histories, "val_loss", "Validation loss")
run.figure("attention_loss", figure, "Validation loss with either attention, mean and range of the seeds")


# %%
def largest_weight(variant):
    """The largest weight of a word's attention in times an even spread, mean over words and seeds."""
    found = []
    for seed in settings.seeds:
        captions = write(trained[variant, seed][0], test.features, width=settings.width, power=POWER, barred=FOR_PEOPLE)
        found += [each.looks[each.words > EOS_ID].amax(1).mean().item() * each.looks.shape[2] for each in captions]
    return float(np.mean(found))


table = pd.DataFrame({variant: scores_by_seed(variant).mean() for variant in ("additive", "dot-product")}).T
table["its parameters"] = [sum(p.numel() for p in trained[variant, run.seed][0].attention.parameters())
                           for variant in table.index]  # fmt: skip
table["largest weight"] = [largest_weight(variant) for variant in table.index]
caption = "Either attention on test images, beam search, mean of the seeds; largest weight: in times an even spread"
run.table("attention", table.rename_axis("attention"), caption)

# %%
table = indexed(compared(["dot-product"]))
run.value("dot_minus_additive", table["minus additive"].iloc[0])
run.table("attention_compared", table, "Dot product minus additive, 95 % intervals over images and seeds")

# %% [markdown]
# **Reading it**, in `lite`. ⟦attention_reading: the difference with its interval, how sharply each looks, parameters⟧

# %% [markdown]
# ## 9 · What does attention add, and does it point at the thing?
# Three measurements that are often taken for one another:
#
# 1. **Use**: how much better are captions than those of a decoder that weighs all regions evenly?
# 2. **Need**: what does a word lose if the tenth of the regions that was looked at most for it is replaced by the mean
#    region? As a control, as many regions drawn at random.
# 3. **Pointing**: does the largest weight lie on the thing when its word is written? On photographs nobody knows which
#    region a word belongs to. In the drawn scenes the thing's mask is known.
#
# To compare them, the decoders of drawn scenes go through all three, and those of photographs through the first two.

# %%
if run.profile == "toy":
    drawn = photos
else:
    drawn_parts, drawn_masks = drawn_sets(settings.drawn_images)
    words = [[[tokenize(caption) for caption in captions] for captions in part.captions] for part in drawn_parts]
    its = Vocabulary.build(caption for captions in words[0] for caption in captions)
    drawn = world(drawn_parts, words, its, encoder_of_scenes, drawn_masks)
trained |= {("even weights", seed): learn("even weights", seed) for seed in settings.seeds}
CAPTIONS |= {("even weights", seed): captions_of(trained["even weights", seed][0], test, power=POWER)
             for seed in settings.seeds}  # fmt: skip
KINDS = ("additive", "dot-product", "even weights")
of_scenes = trained if run.profile == "toy" else {(kind, seed): learn(kind, seed, drawn) for kind in KINDS
                                                  for seed in settings.seeds}  # fmt: skip
table = indexed(compared(["even weights", "dot-product"]))
run.value("even_minus_additive", table["minus additive"].iloc[0])
run.table("use", table, "Use: decoders without a choice, and with the other attention, minus additive; test images")

# %% [markdown]
# The same test images, described by every kind of decoder that this notebook trains:

# %%
cards = [card(place, **{kind: CAPTIONS[kind, run.seed] for kind in VARIANTS}) for place in some[:4]]
figure = diagrams.caption_cards([pixels(place) for place in some[:4]], cards, size=2.3)
run.figure("variants", figure, "Test images, described by each kind of decoder (first seed, beam search)")

# %% [markdown]
# ⟦variants_reading: what the six captions of an image share and where they part; which are wrong in the same way⟧
#
# Now what a word loses, and where attention points:


# %%
def need(decoder, data, seed):
    """Nats that a word loses on average without the regions most looked at, and without as many others."""
    places = list(range(min(settings.checked, len(data.test))))
    regions = data.test.regions(places, run.device)
    written = said(write(decoder, data.test.features[: len(places)], width=settings.width, power=POWER,
                         barred=FOR_PEOPLE, device=run.device), data.vocabulary)  # fmt: skip
    captions = pad([data.vocabulary.encode(words) for words in written]).to(run.device)
    few, real = max(1, regions.shape[1] // 10), captions[:, 1:] > EOS_ID  # words, not <eos>
    looked = loss_without(decoder, regions, captions, few)[real]
    other = loss_without(decoder, regions, captions, few, torch.Generator().manual_seed(seed))[real]
    return {"most looked at": looked.mean().item(), "drawn at random": other.mean().item()}


KIND_OF_WORD = {"shape": 1, "texture": 2, "colour": 3, "ground": 8}  # its place in the caption of a drawn scene


def points(decoder):
    """How often the largest weight lies on the thing, by the kind of word that is written."""
    found = write(decoder, drawn.test.features, width=settings.width, power=POWER, device=run.device)
    looks = torch.cat([F.pad(each.looks, (0, 0, 0, 20 - each.looks.shape[1])) for each in found]).cpu()  # (N, 20, R)
    side = math.isqrt(looks.shape[2])
    maps = F.interpolate(looks.unflatten(2, (side, side)), drawn.masks.shape[1:], mode="bilinear")  # (N, 20, S, S)
    return {kind: pointing_game(maps[:, n], drawn.masks).float().mean().item() for kind, n in KIND_OF_WORD.items()}


# %%
rows = {}
for kind in KINDS[:2]:
    for name, models, data in (("photographs", trained, photos), ("drawn scenes", of_scenes, drawn)):
        lost = pd.DataFrame([need(models[kind, seed][0], data, seed) for seed in settings.seeds])
        rows[name, kind] = [*lost.mean(), lost["most looked at"].min(), lost["most looked at"].max()]
columns = ["most looked at", "drawn at random", "lowest seed", "highest seed"]
table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
table.index = pd.MultiIndex.from_tuples(table.index, names=["images", "attention"])
for (name, kind), row in table.iterrows():
    run.value(f"need {name} {kind}", row["most looked at"]), run.value(f"random {name} {kind}", row["drawn at random"])
run.table("need", table, "Need: nats a word loses when a tenth of the regions is replaced by the mean region")

# %%
rows = {}
for kind in KINDS:
    by_seed = pd.DataFrame([points(of_scenes[kind, seed][0]) for seed in settings.seeds])
    written = [write(of_scenes[kind, seed][0], drawn.test.features, width=settings.width) for seed in settings.seeds]
    own = [bleu(said(found, drawn.vocabulary), drawn.test.captions) for found in written]
    thing = by_seed[["shape", "texture", "colour"]].mean(axis=1)
    rows[kind] = [np.mean(own), *by_seed.mean(), thing.mean(), thing.min(), thing.max()]
columns = ["BLEU-4", *KIND_OF_WORD, "the thing's three words", "lowest seed", "highest seed"]
table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("attention")
table["chance"] = run.value("pointing_chance", drawn.masks.float().mean().item())
run.value("pointing_additive", table.loc["additive", "the thing's three words"])
run.value("pointing_dot", table.loc["dot-product", "the thing's three words"])
run.table("pointing", table, "Pointing, drawn scenes: how often the largest weight lies on the thing; mean of seeds")

# %% [markdown]
# (A decoder with even weights points nowhere: all regions tie and share the point, and its score is chance.)
#
# **What fits together**, in `lite`. ⟦use_need_pointing: resolve the contradiction: on photographs attention adds (or
# does not add) BLEU/CIDEr over even weights, and removal costs little because the state has read the whole image
# before the first word and neighbours know much of a region; in drawn scenes compare all three on the same yardstick
# (use, need, pointing); say what a map then shows⟧

# %% [markdown]
# ## 10 · An image of your own
# The model is saved as one file; the cell below and `python -m helpers.captions IMAGE` read it. Any format and size
# will do.

# %%
path = checkpoint_root() / f"{run.notebook}.{run.profile}" / FILE
Captioner(encoder, settings.encoder, decoder, vocabulary).save(path)
model = Captioner.load(path)

IMAGE = None  # the path of your image; None takes a test image
image = pixels(0)[None] if IMAGE is None else read_image(IMAGE)
((words, looks),) = model(image, settings.width, POWER)
run.figure("own", diagrams.word_tiles(image[0], words, looks), "A caption and where its words were looked for")

# %% [markdown]
# ## The questions of the assignment
# **Which attentions does "Show, Attend and Tell" implement?** Two. *Deterministic soft* attention, as here, uses the
# expected context $\sum_i \alpha_i a_i$, which is smooth in all parameters, so that the whole model learns by
# backpropagation. *Stochastic hard* attention draws the region $s_t \sim \operatorname{Multinoulli}(\alpha)$. A draw
# has no gradient, so the paper maximises a lower bound of $\log p(\text{caption})$, whose gradient is estimated from
# sampled regions as in REINFORCE, with a running mean of the log-likelihood as baseline and an entropy term to lower
# the variance. Soft attention is the approximation that puts the expectation inside the network.
#
# **Which metrics does the paper use?** BLEU-1 to BLEU-4, without a penalty for short captions in the tables that it
# compares with, and METEOR, on Flickr8k, Flickr30k and COCO.
#
# **Why divide by $\sqrt{d}$?** If the entries of a key and of a query are independent with mean 0 and variance 1,
# their dot product is a sum of $d$ terms of variance 1 and has a standard deviation of $\sqrt{d}$. For $d = 256$
# differences between regions would be around 16, softmax would put nearly all its weight on one, and its gradient
# $\alpha_i (\delta_{ij} - \alpha_j)$ would be nearly 0: attention would stop learning before it had begun. The division
# brings the scores back to a standard deviation of 1.
#
# **Why no loss on `<pad>`?** With padding in the mean, the loss of a batch would depend on its longest caption. A
# decoder learns in a few steps that `<pad>` follows `<pad>`; most of its gradient would then come from places that
# hold no word, and the printed loss would look small. Part 3 shows that here more padding changes nothing.

# %% [markdown]
# ## Common mistakes
# - **Scoring what comes after `<eos>`.** The tail of a caption is not part of it. Cut at the first `<eos>`.
# - **Choosing the epoch by teacher-forced BLEU.** It grades single words, each after a right beginning.
# - **Attention that is not re-ordered with the beams.** After each step the beams change places; a history of maps that
#   does not follow shows the maps of other sentences.
# - **No norm for the length.** Then the search prefers to stop early (exercise 1).
# - **An encoder in training mode.** `model.train()` reaches it too: its BatchNorm statistics drift, and the cached
#   features no longer fit.
# - **The doubly stochastic term on padded places.** Each region is then looked at by words that do not exist.
# - **Two attentions compared under two penalties**, or two ways of training whose losses are measured on different
#   words.
# - **BLEU-1 alone.** In part 5 one sentence for all images earns much of it.
# - **A difference between two trainings.** In part 4 the seeds of one and the same recipe differ, too.

# %% [markdown]
# ## Exercises
# Change the cell, write down what you expect, run it.
#
# **1.** Let the beam search compare captions without a norm for their length (`power=0`). Are captions longer or
# shorter than with $\gamma$ as chosen? The check must hold for any model; why?

# %%
found = [write(decoder, val.features, width=settings.width, power=power, barred=FOR_PEOPLE) for power in (0.0, POWER)]
without, with_norm = (torch.cat([captions.log_probs for captions in each]) for each in found)
print("never less likely without a norm:", bool((without >= with_norm - 1e-4).all()))
words = [np.mean([len(caption) for caption in said(each, vocabulary)]) for each in found]
print(f"words: {words[0]:.2f} and {words[1]:.2f}")

# %% [markdown]
# **2.** What does padding do to a loss that does not mask it? Write the loss without the mask and compare the
# gradient's share at padded places. The cell has the answer with the mask; take it out.

# %%
def my_loss(logits, captions):
    wanted = captions[:, 1:]
    return F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=PAD_ID)  # take the mask out


regions, captions, of = train.batch(range(4), run.device)
logits = decoder(regions, F.pad(captions, (0, 5), value=PAD_ID), of=of)[0].detach().requires_grad_()
(felt,) = torch.autograd.grad(my_loss(logits, F.pad(captions, (0, 5), value=PAD_ID)), logits)
at_padding = felt[F.pad(captions, (0, 5), value=PAD_ID)[:, 1:] == PAD_ID].abs().sum() / felt.abs().sum()
print(f"share of the gradient at padded places: {at_padding:.1%}")

# %% [markdown]
# **3.** How sure is a decoder where to look? Write the entropy of its weights in nats, and compare it with that of an
# even spread, $\log R$.

# %%
def my_entropy(looks):
    """Of weights (..., R), in nats."""
    return torch.zeros(looks.shape[:-1])  # your line


looks = write(decoder, val.features[:8])[0].looks[:, 0].cpu()  # (8, R): for the first word
print(torch.allclose(my_entropy(looks), torch.distributions.Categorical(looks).entropy(), atol=1e-4))

# %% [markdown]
# **4.** Predict the CIDEr-D of captions whose words are each written twice, and of captions that repeat the first reference
# of their image. In `toy`, where an image has one reference, the latter is 10. Why is it less in `lite`?

# %%
twice = [[word for word in words for _ in range(2)] for words in beam_words]
copied = [own[0] for own in test.captions]
for name, words in (("as written", beam_words), ("each word twice", twice), ("the first reference", copied)):
    print(f"{name}: {cider_d(words, test.captions).mean():.2f}")

# %% [markdown]
# **5.** Train the additive decoder with `penalty` at 1, the paper's value, in the settings (its training folder tells
# the two apart by itself). Does attention become more even, and does BLEU-4 change by more than the seeds do?

# %% [markdown]
# ## What this shows, and what it does not
# - The captions of `lite` are machine translations by their look, some of them wrong. Scores on them measure
#   agreement with that translator too.
# - Intervals cover other images of the same kind and, roughly, other seeds; not another split, set or vocabulary.
# - No person judged the captions. CIDEr-D and BLEU follow people's judgement of captions only in part (Vedantam et
#   al.).
# - Word vectors are learnt from nothing; those of fastText were not tried.
#
# ## References
# - K. Xu et al. Show, attend and tell: neural image caption generation with visual attention. 2015. arXiv:1502.03044
# - D. Bahdanau, K. Cho, Y. Bengio. Neural machine translation by jointly learning to align and translate. 2014.
#   arXiv:1409.0473
# - A. Vaswani et al. Attention is all you need. 2017. arXiv:1706.03762
# - S. Bengio et al. Scheduled sampling for sequence prediction with recurrent neural networks. 2015. arXiv:1506.03099
# - K. Papineni et al. BLEU: a method for automatic evaluation of machine translation. 2002
# - R. Vedantam, C. L. Zitnick, D. Parikh. CIDEr: consensus-based image description evaluation. 2015. arXiv:1411.5726
# - S. Banerjee, A. Lavie. METEOR: an automatic metric for MT evaluation with improved correlation with human
#   judgments. 2005
# - M. Popović. chrF: character n-gram F-score for automatic MT evaluation. 2015
# - J. Zhang et al. Top-down neural attention by excitation backprop. 2016. arXiv:1608.00507 (the pointing game)
# - R. Liu et al. An intriguing failing of convolutional neural networks and the CoordConv solution. 2018.
#   arXiv:1807.03247
# - M. Tan, Q. Le. EfficientNet: rethinking model scaling for convolutional neural networks. 2019. arXiv:1905.11946
# - M. Oquab et al. DINOv2: learning robust visual features without supervision. 2023. arXiv:2304.07193
#
# **Where the data come from**: `data/README.md`.

# %%
best = compared(["additive"])
run.finish(
    f"Persian captions of {COUNT:,} test images, beam {settings.width}, mean of {SEEDS} seeds: BLEU-4 "
    f"{best['mean'].iloc[0]:.3f} ({best['low'].iloc[0]:.3f} to {best['high'].iloc[0]:.3f}), CIDEr-D "
    f"{best['mean'].iloc[1]:.2f}; one caption for all: BLEU-4 {run.results['values']['constant_bleu4']:.3f}"
)
