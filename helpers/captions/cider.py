"""CIDEr-D: how much of what people say of *this* image, and of few others, a caption says too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

NGRAMS, SIGMA = 4, 6.0

Gram = tuple[str, ...]
Weigh = Callable[[Sequence[str]], list[dict[Gram, float]]]


def cider_d(
    written: Sequence[Sequence[str]],
    references: Sequence[Sequence[Sequence[str]]],
    corpus: Sequence[Sequence[Sequence[str]]] | None = None,
) -> np.ndarray:
    """CIDEr-D of each caption, float `(N,)` from 0 to 10; the score of a set is their mean.

    Vedantam et al. 2015 (arXiv 1411.5726): n-grams of one to four words are weighted by tf-idf, and a caption is
    compared with each reference of its image by cosine, clipped so that repeating a word gains nothing, times a
    Gaussian (sigma 6) of the difference in length. As in pycocoevalcap, but words are taken as they are given: no
    stemming, no other tokens.

    Args:
        written: one caption an image, as words.
        references: for each image one caption or more, as words.
        corpus: the references of the images that document frequencies are counted on; None: `references`, as is usual.
            Give all images of a set to score some of them (one image has no frequencies: everything would be 0).

    Raises:
        ValueError: the lengths differ, there is nothing to compare, or an image has no reference.
    """
    if len(written) != len(references) or not written or not all(references):
        raise ValueError(f"need references for each caption, got {len(written)} captions for {len(references)} images")
    corpus = references if corpus is None else corpus
    frequency = Counter(gram for own in corpus for gram in {gram for words in own for gram in _grams(words)})
    weigh = partial(_weights, frequency=frequency, images=len(corpus))
    return np.array([_score(words, own, weigh) for words, own in zip(written, references, strict=True)])


def _score(words: Sequence[str], references: Sequence[Sequence[str]], weigh: Weigh) -> float:
    """CIDEr-D of one caption, from 0 to 10."""
    mine, found = weigh(words), 0.0
    for reference in references:
        near = np.exp(-((len(words) - len(reference)) ** 2) / (2 * SIGMA**2))
        found += near * np.mean([_clipped_cosine(*pair) for pair in zip(mine, weigh(reference), strict=True)])
    return 10 * found / len(references)


def _weights(words: Sequence[str], frequency: Counter[Gram], images: int) -> list[dict[Gram, float]]:
    """For n = 1 to 4 the tf-idf of each n-gram; one that no reference has counts as if a single image had it."""
    weights: list[dict[Gram, float]] = [{} for _ in range(NGRAMS)]
    for gram, count in _grams(words).items():
        weights[len(gram) - 1][gram] = count * np.log(images / max(1, frequency[gram]))
    return weights


def _grams(words: Sequence[str]) -> Counter[Gram]:
    """How often each n-gram of one to four words occurs."""
    return Counter(tuple(words[at : at + n]) for n in range(1, NGRAMS + 1) for at in range(len(words) - n + 1))


def _clipped_cosine(mine: dict[Gram, float], theirs: dict[Gram, float]) -> float:
    """Cosine where each of my weights counts up to theirs; 0 where one of the two is empty."""
    shared = sum(min(mine[gram], theirs[gram]) * theirs[gram] for gram in mine.keys() & theirs.keys())
    norms = np.sqrt(sum(w * w for w in mine.values()) * sum(w * w for w in theirs.values()))
    return float(shared / norms) if norms else 0.0
