"""Beam search for a batch against one image at a time, and an epoch on cached features against one that encodes again.

`python bench/decoding.py [REPEATS]`; both sides in turns, in one run, on images and captions that are made up.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable

import torch

from helpers.captions.decoder import CaptionDecoder
from helpers.captions.encoder import GridEncoder
from helpers.captions.features import cached_features, encode
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


def epochs(folder: str) -> dict[str, Callable[[], object]]:
    """With EfficientNet-B0's architecture (its weights do not matter for time) and five captions an image."""
    from torchvision.models import efficientnet_b0

    encoder = GridEncoder(efficientnet_b0().features, 224, (0.5,) * 3, (0.5,) * 3)
    images = toy_captions(toy.draw(IMAGES, 32, 0))
    captions = [[tokenize(caption) for caption in own] * 5 for own in images.captions]
    vocabulary = Vocabulary.build(caption for own in captions for caption in own)
    cached_features(encoder, images, folder)

    def epoch(encodings: int) -> None:
        parts = [encode(encoder, images, range(n, n + 8)) for _ in range(encodings) for n in range(0, IMAGES, 8)]
        features = torch.cat(parts[: IMAGES // 8]).numpy() if encodings else cached_features(encoder, images, folder)
        part = Described(features, captions, vocabulary)
        with tempfile.TemporaryDirectory() as fresh:
            train_captioner(decoder(1280, len(vocabulary)), part, Described(features[:1], captions[:1], vocabulary),
                            Recipe(1), fresh)  # fmt: skip

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
