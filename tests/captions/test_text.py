"""Persian captions: one spelling for each word, a vocabulary that counts, nothing lost between words and numbers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.captions.text import EOS, PAD, SOS, SPECIAL, UNK, Vocabulary, most_frequent, pad, statistics, tokenize

CAPTIONS = [["سگ", "سیاه", "می‌دود"], ["سگ", "سفید"], ["گربه", "سیاه"]]


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("كتاب ها", ["کتاب‌ها"]),  # Arabic kaf, a space where a half-space belongs
        ("علي", ["علی"]),  # Arabic yeh
        ("او می رود.", ["او", "می‌رود"]),
        ("سگ، گربه! (و) «اسب»", ["سگ", "گربه", "و", "اسب"]),
        ("یک dog سیاه", ["یک", "سیاه"]),
        ("٣ پسر و 12 دختر", ["پسر", "و", "دختر"]),
        ("سَگ", ["سگ"]),  # vowel marks
        ("  ", []),
        ("", []),
    ],
)
def test_one_spelling(written, words):
    assert tokenize(written) == words


def test_numbers_can_be_kept_in_one_kind_of_digits():
    assert tokenize("٣ پسر و 12 دختر", numbers=True) == ["۳", "پسر", "و", "۱۲", "دختر"]


def test_tokens_stay_tokens():
    words = tokenize("دختر بچه ای در حال بالا رفتن از یک خانه بازی چوبی خواهد رفت")
    assert tokenize(" ".join(words)) == words
    assert not any(" " in word or "_" in word for word in words)


def test_vocabulary_begins_with_the_special_words_and_the_frequent_ones():
    vocabulary = Vocabulary.build(CAPTIONS)
    assert vocabulary.words[:4] == SPECIAL == (PAD, SOS, EOS, UNK)
    assert set(vocabulary.words[4:6]) == {"سگ", "سیاه"}  # twice each
    assert len(vocabulary) == 4 + 5
    assert len(Vocabulary.build(CAPTIONS, least=2)) == 4 + 2


def test_the_order_of_the_captions_does_not_matter():
    assert Vocabulary.build(CAPTIONS) == Vocabulary.build(CAPTIONS[::-1])


@given(st.lists(st.sampled_from(["سگ", "سیاه", "می‌دود", "سفید", "گربه"]), max_size=8))
@settings(max_examples=30, deadline=None)
def test_decode_inverts_encode(caption):
    vocabulary = Vocabulary.build(CAPTIONS)
    numbers = vocabulary.encode(caption)
    assert (numbers[0].item(), numbers[-1].item(), len(numbers)) == (1, 2, len(caption) + 2)
    assert vocabulary.decode(numbers) == caption


def test_unknown_words_become_unk():
    assert Vocabulary.build(CAPTIONS).decode(Vocabulary.build(CAPTIONS).encode(["سگ", "اسب"])) == ["سگ", UNK]


def test_nothing_is_read_after_the_end():
    vocabulary = Vocabulary.build(CAPTIONS)
    numbers = torch.cat([vocabulary.encode(["سگ"]), vocabulary.encode(["سیاه"])])
    assert vocabulary.decode(numbers) == ["سگ"]
    assert vocabulary.decode([0, 1, 4, 0, 2]) == [vocabulary.words[4]]


def test_numbers_outside_the_vocabulary():
    with pytest.raises(ValueError, match=r"0 \.\. 8, got 9"):
        Vocabulary.build(CAPTIONS).decode([9])


def test_a_broken_vocabulary():
    with pytest.raises(ValueError, match="begins with"):
        Vocabulary(("سگ",))
    with pytest.raises(ValueError, match="once"):
        Vocabulary((*SPECIAL, "سگ", "سگ"))


def test_padding_is_zeros_at_the_end():
    padded = pad([torch.tensor([1, 5, 2]), torch.tensor([1, 2])])
    assert padded.tolist() == [[1, 5, 2], [1, 2, 0]]


def test_statistics_count():
    found = statistics([*CAPTIONS, ["اسب"]], Vocabulary.build(CAPTIONS))
    assert (found["captions"], found["words"], found["different words"], found["longest"]) == (4, 8, 6, 3)
    assert found["mean length"] == 2
    assert found["unknown words, share of the text"] == 1 / 8
    assert found["unknown words, share of different words"] == 1 / 6
    assert most_frequent(CAPTIONS, 2).to_dict() == {"سگ": 2, "سیاه": 2}
