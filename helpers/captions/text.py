"""Persian captions as words and as numbers: normalised and tokenised by hazm, a vocabulary from training captions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import pandas as pd
import torch
from torch import Tensor

PAD, SOS, EOS, UNK = "<pad>", "<sos>", "<eos>", "<unk>"
SPECIAL = (PAD, SOS, EOS, UNK)  # their numbers: 0 to 3
LETTER = re.compile(r"[\u0621-\u064a\u066e-\u06d3\u06fa-\u06ff]")  # of the Persian (Arabic) script; no digits, no marks
NUMBER = re.compile(r"[\d.٫٬]+")


def tokenize(text: str, numbers: bool = False) -> list[str]:
    """The Persian words of a caption, in one spelling: `"كتاب ها"` and `"کتاب‌ها"` give the same.

    hazm's normaliser unifies letters (yeh, kaf), digits, spaces and half-spaces (ZWNJ). Punctuation, marks and words
    in Latin letters are dropped.

    Args:
        numbers: keep numbers, in Persian digits.
    """
    normalizer, tokenizer = _hazm()
    words = tokenizer.tokenize(normalizer.normalize(text))
    return [word for word in words if LETTER.search(word) or (numbers and NUMBER.fullmatch(word))]


@cache
def _hazm() -> tuple:
    """One normaliser and one tokeniser for all: hazm's `word_tokenize` would build a new one for each caption."""
    import hazm  # seconds to import, and only captions need it

    return hazm.Normalizer(), hazm.WordTokenizer(join_verb_parts=False)


@dataclass(frozen=True)
class Vocabulary:
    """The words that a model can read and write.

    Args:
        words: `SPECIAL`, then the others; a word's place is its number.

    Raises:
        ValueError: `words` do not begin with `SPECIAL`, or one comes twice.
    """

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.words[: len(SPECIAL)] != SPECIAL or len(set(self.words)) != len(self.words):
            raise ValueError(f"a vocabulary begins with {', '.join(SPECIAL)} and has each word once")
        object.__setattr__(self, "numbers", {word: number for number, word in enumerate(self.words)})

    @classmethod
    def build(cls, captions: Iterable[Sequence[str]], least: int = 1) -> Vocabulary:
        """The words seen at least `least` times in tokenised *training* captions, the most frequent first."""
        counts = Counter(word for caption in captions for word in caption)
        kept = sorted(
            (word for word, count in counts.items() if count >= least), key=lambda word: (-counts[word], word)
        )
        return cls(SPECIAL + tuple(kept))

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, caption: Sequence[str]) -> Tensor:
        """Words to int64 `(2 + words,)`: `<sos>`, the words (unknown ones as `<unk>`), `<eos>`."""
        unknown = self.numbers[UNK]
        return torch.tensor(
            [self.numbers[SOS], *(self.numbers.get(word, unknown) for word in caption), self.numbers[EOS]]
        )

    def decode(self, numbers: Tensor | Sequence[int]) -> list[str]:
        """The words up to the first `<eos>`, without `<sos>` and `<pad>`.

        Raises:
            ValueError: a number outside the vocabulary.
        """
        found: list[str] = []
        for number in torch.as_tensor(numbers).tolist():
            if not 0 <= number < len(self):
                raise ValueError(f"numbers lie in 0 .. {len(self) - 1}, got {number}")
            word = self.words[number]
            if word == EOS:
                break
            if word not in (PAD, SOS):
                found.append(word)
        return found


def pad(captions: Sequence[Tensor]) -> Tensor:
    """Encoded captions of different lengths to int64 `(N, longest)`, filled up with `<pad>` (0)."""
    return torch.nn.utils.rnn.pad_sequence(list(captions), batch_first=True)


def statistics(captions: Sequence[Sequence[str]], vocabulary: Vocabulary) -> dict[str, float]:
    """What a set of tokenised captions is like: counts, lengths in words, and how much the vocabulary does not know."""
    words = Counter(word for caption in captions for word in caption)
    unknown = {word: count for word, count in words.items() if word not in vocabulary.numbers}
    lengths = pd.Series([len(caption) for caption in captions])
    return {
        "captions": len(captions),
        "words": words.total(),
        "different words": len(words),
        "mean length": lengths.mean(),
        "longest": int(lengths.max()),
        "unknown words, share of the text": sum(unknown.values()) / words.total(),
        "unknown words, share of different words": len(unknown) / len(words),
    }


def most_frequent(captions: Iterable[Sequence[str]], count: int = 10) -> pd.Series:
    """How often the `count` most frequent words occur, the first first."""
    words = Counter(word for caption in captions for word in caption)
    return pd.Series(dict(words.most_common(count)), name="times")
