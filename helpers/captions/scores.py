"""How close written captions come to the references: BLEU (nltk) and chrF (sacrebleu), on captions cut into words."""

from __future__ import annotations

from collections.abc import Sequence

from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu
from sacrebleu.metrics import CHRF


def bleu(written: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]], order: int = 4) -> float:
    """Corpus BLEU of n-grams up to `order`, equal weights, 0 to 1, against all references of each image.

    Papineni et al. 2002. No smoothing but where an order has no match at all (a count of 0 becomes 0.1, smoothing
    method 1 of nltk), which happens with tiny sets only.

    Args:
        written: one caption an image, as words; without `<eos>`, and nothing after it.
        references: for each image one caption or more, as words.

    Raises:
        ValueError: the two differ in length, or there is nothing to compare.
    """
    if len(written) != len(references) or not written:
        raise ValueError(f"need references for each caption, got {len(written)} captions for {len(references)} images")
    weights = [1 / order] * order
    return float(corpus_bleu(references, written, weights=weights, smoothing_function=SmoothingFunction().method1))


def chrf(written: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> float:
    """Corpus chrF2 (Popovic 2015), 0 to 1: matches of up to six characters, kinder to Persian's many word endings."""
    most = max(map(len, references))
    columns = [[" ".join(of[place]) if place < len(of) else None for of in references] for place in range(most)]
    return CHRF().corpus_score([" ".join(caption) for caption in written], columns).score / 100
