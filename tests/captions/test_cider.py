"""CIDEr-D is pycocoevalcap's, and what the paper's formula gives when it is written with plain arrays."""

from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.captions.cider import cider_d

REFERENCES = [
    ["یک سگ سیاه روی چمن می‌دود", "سگ سیاه در پارک بازی می‌کند", "سگی روی چمن"],
    ["دو پسر روی یخ بازی می‌کنند", "دو کودک در برف"],
    ["زنی با لباس قرمز روی صندلی نشسته است", "یک زن روی صندلی است", "زنی نشسته است"],
    ["یک مرد در حال دوچرخه سواری در پارک است"],
]
WRITTEN = [
    "یک سگ سیاه در پارک می‌دود",
    "دو پسر پسر پسر روی چمن بازی می‌کنند",
    "زنی با لباس آبی روی صندلی نشسته است",
    "یک مرد در حال دوچرخه سواری در پارک است",
]
# pycocoevalcap 1.2, CiderScorer(n=4, sigma=6.0), on the eight strings above
PYCOCOEVALCAP = [2.948147228316867, 1.2284620040684782, 2.7759722010482295, 10.0]


def cut(texts):
    return [text.split() for text in texts]


def by_arrays(written, references):
    """The formula with a dense vector for each caption and length of n-gram."""
    total = np.zeros(len(written))
    for n in range(1, 5):
        grams = [[[tuple(c[at : at + n]) for at in range(len(c) - n + 1)] for c in own] for own in references]
        mine = [[tuple(c[at : at + n]) for at in range(len(c) - n + 1)] for c in written]
        names = sorted({*chain.from_iterable(mine), *chain.from_iterable(chain.from_iterable(grams))})
        seen = np.array([sum(any(name in one for one in own) for own in grams) for name in names])
        idf = np.log(len(references) / np.maximum(seen, 1))
        for image, own in enumerate(grams):
            g = np.array([mine[image].count(name) for name in names]) * idf
            for reference, one in zip(references[image], own, strict=True):
                r = np.array([one.count(name) for name in names]) * idf
                near = np.exp(-((len(written[image]) - len(reference)) ** 2) / 72)
                size = np.linalg.norm(g) * np.linalg.norm(r)
                if size > 0:
                    total[image] += near * (np.minimum(g, r) @ r) / size / len(own)
    return 10 * total / 4


def test_the_values_of_pycocoevalcap():
    found = cider_d(cut(WRITTEN), [cut(own) for own in REFERENCES])
    assert found == pytest.approx(PYCOCOEVALCAP, abs=1e-9)


def test_by_hand():
    # "a" is everywhere, so it weighs nothing. First caption: "b" and "a b" fit, there are no 3- and 4-grams. Second:
    # "c" twice counts once, (1 x 1) / (2 x 1). Then six words too many, which is one sigma.
    references = [[["a", "b"]], [["a", "c"]]]
    assert cider_d([["a", "b"], ["c", "c"]], references) == pytest.approx([10 * 2 / 4, 10 * 0.5 / 4])
    long = ["a", "b", *["a"] * 6]  # "b" 1; "a b" 1 of sqrt(1 + 1 + 5 * 5), for "b a" and "a a" are in no reference
    expected = 10 * np.exp(-0.5) * (1 + 1 / np.sqrt(27)) / 4
    assert cider_d([long, ["x"]], references) == pytest.approx([expected, 0])


CAPTION = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=9)


@given(st.lists(st.tuples(CAPTION, st.lists(CAPTION, min_size=1, max_size=4)), min_size=2, max_size=6))
@settings(max_examples=60, deadline=None)
def test_the_formula_on_any_words(pairs):
    written, references = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    assert cider_d(written, references) == pytest.approx(by_arrays(written, references), abs=1e-9)


def test_some_images_of_a_set_score_as_in_the_whole_set():
    references = [cut(own) for own in REFERENCES]
    some = cider_d(cut(WRITTEN)[1:3], references[1:3], references)
    assert some == pytest.approx(cider_d(cut(WRITTEN), references)[1:3])
    assert cider_d(cut(WRITTEN)[1:2], references[1:2]) == pytest.approx([0])  # one image has no frequencies


def test_an_empty_caption_scores_nothing_and_what_cannot_be_scored_is_refused():
    references = [cut(own) for own in REFERENCES]
    assert cider_d([[], *cut(WRITTEN)[1:]], references)[0] == 0
    for written, of in ((cut(WRITTEN)[:2], references), ([], []), (cut(WRITTEN)[:1], [[]])):
        with pytest.raises(ValueError, match="references"):
            cider_d(written, of)
