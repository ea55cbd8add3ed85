"""BLEU and chrF are those of nltk and sacrebleu on the same tokens."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF

from helpers.captions.scores import bleu, chrf

REFERENCES = [
    [["یک", "سگ", "سیاه", "می‌دود"], ["سگ", "در", "چمن", "است"]],
    [["دو", "پسر", "روی", "یخ", "بازی", "می‌کنند"]],
]
WRITTEN = [["یک", "سگ", "سیاه", "در", "چمن", "می‌دود"], ["دو", "پسر", "روی", "یخ", "هستند"]]


def sacre(written, references, order):
    most = max(map(len, references))
    columns = [[" ".join(of[n]) if n < len(of) else None for of in references] for n in range(most)]
    metric = BLEU(tokenize="none", max_ngram_order=order, force=True, smooth_method="none")
    return metric.corpus_score([" ".join(words) for words in written], columns).score / 100


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_bleu_is_sacrebleus(order):
    assert bleu(WRITTEN, REFERENCES, order) == pytest.approx(sacre(WRITTEN, REFERENCES, order), abs=1e-6)
    assert 0 < bleu(WRITTEN, REFERENCES, order) < 1


WORD = st.sampled_from(["سگ", "گربه", "یک", "سیاه", "در", "چمن"])
CAPTION = st.lists(WORD, min_size=5, max_size=9)


@given(st.lists(st.tuples(CAPTION, st.lists(CAPTION, min_size=1, max_size=3)), min_size=4, max_size=6))
@settings(max_examples=40, deadline=None)
def test_bleu_is_sacrebleus_on_any_words(pairs):
    written, references = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    assert bleu(written, references, 1) == pytest.approx(sacre(written, references, 1), abs=1e-6)
    expected = sacre(written, references, 4)
    if expected > 0:  # else ours is smoothed
        assert bleu(written, references, 4) == pytest.approx(expected, abs=1e-6)


def test_bleu_by_hand():
    # 1-grams: 3 of 4 match, 2-grams: 1 of 3; as long as the reference, so no penalty
    assert bleu([["a", "b", "x", "c"]], [[["a", "b", "c", "d"]]], 1) == pytest.approx(3 / 4)
    assert bleu([["a", "b", "x", "c"]], [[["a", "b", "c", "d"]]], 2) == pytest.approx((3 / 4 * 1 / 3) ** 0.5)
    assert bleu([["a", "b"]], [[["a", "b", "c", "d"]]], 1) == pytest.approx(2.718281828 ** (1 - 4 / 2), rel=1e-6)


def test_the_same_words_score_one_and_chrf_is_sacrebleus():
    same = [captions[0] for captions in REFERENCES]
    assert bleu(same, REFERENCES) == pytest.approx(1)
    assert chrf(same, REFERENCES) == pytest.approx(1)
    columns = [["یک سگ سیاه می‌دود", "دو پسر روی یخ بازی می‌کنند"], ["سگ در چمن است", None]]
    expected = CHRF().corpus_score([" ".join(words) for words in WRITTEN], columns).score / 100
    for references in (REFERENCES, [captions[::-1] for captions in REFERENCES]):  # all count, whichever comes first
        assert chrf(WRITTEN, references) == pytest.approx(expected)
    assert 0.3 < expected < 0.95


@pytest.mark.parametrize(("written", "references"), [([], []), (WRITTEN, REFERENCES[:1])])
def test_nothing_to_compare(written, references):
    with pytest.raises(ValueError, match="references for each caption"):
        bleu(written, references)
