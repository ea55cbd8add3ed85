"""Beam search for a batch against one image at a time, and an epoch on cached features against one that encodes again.

`python bench/decoding.py [REPEATS]`; both sides in turns, in one run, on images and captions that are made up.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable

import timm
import torch

from helpers.captions.decoder import CaptionDecoder
from helpers.captions.encoder import GridEncoder
from helpers.captions.features import cached_features, encode
from helpers.captions.regions import SideBySide, TokenGrid
from helpers.captions.text import Vocabulary, tokenize
from helpers.captions.training import Described, Recipe, train_captioner, write
from helpers.conv.memory import ratios, seconds_by_turns
from helpers.data import toy
from helpers.data.captions import toy_captions

IMAGES = 64


def decoder(region_dim: int, words: int = 3_000) -> CaptionDecoder:
    """The real size, with random weights: most captions run to the longest length, so that no image leaves early."""
    torch.manual_seed(0)
    return CaptionDecoder(words, region_dim).eval()


def searches() -> dict[str, Callable[[], object]]:
    model, features = decoder(1280), torch.rand(IMAGES, 49, 1280).half().numpy()
    return {
        "one image at a time": lambda: [write(model, features[n : n + 1], width=3) for n in range(IMAGES)],
        "a batch": lambda: write(model, features, width=3, batch=IMAGES),
    }


def encoder() -> SideBySide:
    """The two networks of notebook 07 in `lite`; their weights do not matter for time."""
    cnn = timm.create_model("tf_efficientnet_lite0")
    cnn.forward = cnn.forward_features
    vit = TokenGrid(timm.create_model("vit_small_patch14_dinov2", img_size=196, num_classes=0))
    half = (0.5,) * 3
    return SideBySide([GridEncoder(cnn, 224, half, half, 7), GridEncoder(vit, 196, half, half, 7)])


def epochs(folder: str) -> dict[str, Callable[[], object]]:
    """With that encoder, five captions an image, and the decoder and the recipe of `lite`."""
    both, images = encoder(), toy_captions(toy.draw(IMAGES, 32, 0))
    captions = [[tokenize(caption) for caption in own] * 5 for own in images.captions]
    vocabulary = Vocabulary.build(caption for own in captions for caption in own)
    cached_features(both, images, folder)

    def epoch(encodings: int) -> None:
        parts = [encode(both, images, range(n, n + 8)) for _ in range(encodings) for n in range(0, IMAGES, 8)]
        features = torch.cat(parts[: IMAGES // 8]).numpy() if encodings else cached_features(both, images, folder)
        part = Described(features, captions, vocabulary)
        model = CaptionDecoder(1_600, features.shape[2], embed_dim=256, hidden_dim=256, dropout=0.4)
        with tempfile.TemporaryDirectory() as fresh:
            train_captioner(model, part, Described(features[:1], captions[:1], vocabulary), Recipe(1, images=26),
                            fresh, precision="bf16")  # fmt: skip

    return {
        "encodes for each caption": lambda: epoch(5),
        "encodes each image": lambda: epoch(1),
        "cached features": lambda: epoch(0),
    }


def main(repeats: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for title, calls in (("Beam 3", searches()), ("An epoch", epochs(folder))):
            seconds = seconds_by_turns(calls, repeats)
            table = ratios(seconds, next(iter(calls)))
            print(f"{title}, {IMAGES} images, {torch.get_num_threads()} threads, median of {repeats} turns")
            print(table.assign(seconds=seconds.median()).round(3).to_string(), "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
