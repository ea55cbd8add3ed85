"""Greedy and beam search against each other, against searching everything, and one image against many."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.captions.search import EOS_ID, FOR_PEOPLE, PAD_ID, SOS_ID, UNK_ID, beam_search, greedy

WORDS, REGIONS = 7, 4  # 4 special ones and 3 words


class Decoder(torch.nn.Module):
    """A small recurrent decoder with random weights; the state remembers every word said."""

    def __init__(self, seed, sharp=3.0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.embed, self.turn, self.out = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in
                                           ((WORDS, 6), (6, 6), (6, WORDS)))  # fmt: skip
        self.sharp, self.calls = sharp, 0

    def __call__(self, state, words):
        self.calls += 1
        hidden = torch.tanh(state[0] @ self.turn + self.embed[words])
        return self.sharp * hidden @ self.out, (hidden,), (hidden @ self.turn[:, :REGIONS]).softmax(1)


def images(count, seed=0):
    return (torch.randn(count, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64),)


def log_prob(decoder, state, words):
    """Of a given caption, and where the decoder looked, word by word."""
    last, total, looked = torch.tensor([SOS_ID]), 0.0, []
    for word in words:
        logits, state, looks = decoder(state, last)
        logits[:, [PAD_ID, SOS_ID]] = -torch.inf
        total += logits.log_softmax(1)[0, word].item()
        looked.append(looks[0])
        last = torch.tensor([word])
    return total, torch.stack(looked)


def said(captions, row):
    return captions.words[row, : captions.lengths[row]].tolist()


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_one_beam_is_greedy(seed):
    decoder, state = Decoder(seed), images(5, seed)
    one, other = beam_search(decoder, state, width=1, longest=9), greedy(decoder, state, longest=9)
    assert torch.equal(one.words, other.words)
    assert torch.allclose(one.log_probs, other.log_probs)
    assert torch.allclose(one.looks, other.looks)


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_many_at_once_are_each_alone(seed):
    decoder, state = Decoder(seed), images(4, seed)
    for search in (greedy, beam_search):
        together = search(decoder, state, longest=8)
        for row in range(4):
            alone = search(decoder, (state[0][row : row + 1],), longest=8)
            assert said(alone, 0) == said(together, row)
            assert alone.log_probs.item() == pytest.approx(together.log_probs[row].item())


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_log_probability_and_attention_belong_to_the_words(seed):
    decoder, state = Decoder(seed), images(3, seed)
    for found in (greedy(decoder, state, 7), beam_search(decoder, state, 3, 7)):
        for row in range(3):
            total, looked = log_prob(decoder, (state[0][row : row + 1],), said(found, row))
            assert found.log_probs[row].item() == pytest.approx(total)
            assert torch.allclose(found.looks[row, : len(looked)], looked)
            assert (found.looks[row, len(looked) :] == 0).all()


@pytest.mark.parametrize("seed", range(8))
def test_a_wide_beam_finds_the_best_of_all_captions(seed):
    decoder, state, longest = Decoder(seed, sharp=1.0), images(1, seed), 3
    going_on = [word for word in range(WORDS) if word not in (PAD_ID, SOS_ID, EOS_ID)]
    everything = [[*words, EOS_ID] for n in range(longest) for words in itertools.product(going_on, repeat=n)]
    best = max(log_prob(decoder, state, words)[0] / len(words) ** 0.7 for words in everything)
    found = beam_search(decoder, state, width=30, longest=longest, power=0.7)
    assert found.normalized(0.7).item() >= best - 1e-9


def test_beams_are_better_on_average_than_greedy():
    gains = []
    for seed in range(30):
        decoder, state = Decoder(seed, sharp=1.5), images(10, seed)
        beams, first = beam_search(decoder, state, 3, 12), greedy(decoder, state, 12)
        ended = (first.words == EOS_ID).any(1) & (beams.words == EOS_ID).any(1)  # one that was cut off has no score
        gains.append((beams.normalized(0.7) - first.normalized(0.7))[ended])
    gains = torch.cat(gains)
    assert len(gains) > 50
    assert gains.mean() > 0.01
    assert (gains >= -1e-9).float().mean() > 0.8


def never_ends(state, words):
    logits = torch.zeros(len(words), WORDS, dtype=torch.float64)
    logits[:, EOS_ID] = -1e9
    logits[:, 5] = 1
    return logits, state, torch.ones(len(words), REGIONS)


@pytest.mark.parametrize("search", [greedy, beam_search])
def test_a_caption_even_when_nothing_ends(search):
    found = search(never_ends, images(2), longest=6)
    assert found.words.tolist() == [[5] * 6] * 2
    assert torch.isfinite(found.log_probs).all()


@pytest.mark.parametrize("search", [greedy, beam_search])
def test_a_caption_that_ends_at_once_stops_the_search(search):
    decoder = Decoder(0)

    def ends(state, words):
        logits, state, looks = decoder(state, words)
        logits[:, EOS_ID] = 100
        return logits, state, looks

    found = search(ends, images(3), longest=50)
    assert found.words.tolist() == [[EOS_ID]] * 3
    assert decoder.calls <= 3


def test_padding_and_start_are_never_said():
    def wants(state, words):
        logits = torch.zeros(len(words), WORDS, dtype=torch.float64)
        logits[:, [PAD_ID, SOS_ID]] = 100
        return logits, state, torch.ones(len(words), REGIONS)

    for search in (greedy, beam_search):
        found = search(wants, images(2), longest=5)
        assert found.words.min() > SOS_ID


def test_a_width_of_nothing():
    with pytest.raises(ValueError, match="1 or more"):
        beam_search(Decoder(0), images(1), width=0)


@pytest.mark.parametrize("search", [greedy, beam_search])
def test_what_is_barred_is_never_written(search):
    free = [search(Decoder(seed), images(6, seed), longest=8) for seed in range(5)]
    assert any((captions.words == UNK_ID).any() for captions in free)
    for seed in range(5):
        found = search(Decoder(seed), images(6, seed), longest=8, barred=FOR_PEOPLE)
        assert not (found.words == UNK_ID).any()
        masked = Decoder(seed)

        def without(state, words, masked=masked):
            logits, state, looks = masked(state, words)
            return logits.index_fill(1, torch.tensor([UNK_ID]), -torch.inf), state, looks

        expected = search(without, images(6, seed), longest=8)
        assert torch.equal(found.words, expected.words)
        assert torch.allclose(found.log_probs, expected.log_probs)


def test_what_a_step_leaves_alone_is_not_copied():
    decoder, (hidden,) = Decoder(1), images(4, 1)
    own, seen = hidden.flip(0), []

    def step(state, words):
        seen.append((state[1], len(words)))
        asked = state[0] + state[1].repeat_interleave(len(words) // len(state[1]), 0)
        logits, (moved,), looks = decoder((asked,), words)
        logits[:, EOS_ID] = -100  # nothing ends, so that no image leaves
        return logits, (moved, state[1]), looks

    def copied(state, words):
        logits, (moved, _), looks = step((state[0], state[1][:: len(state[1]) // 4]), words)
        return logits, (moved, state[1].clone()), looks

    found = beam_search(step, (hidden, own), longest=7)
    assert all(part is own for part, _ in seen)
    assert [count for _, count in seen] == [4] + [12] * 6  # the beams are one until the first word is said
    expected = beam_search(copied, (hidden, own), longest=7)
    assert torch.equal(found.words, expected.words)
    assert torch.equal(found.log_probs, expected.log_probs)


def test_images_that_are_done_leave_the_batch():
    decoder, (hidden,) = Decoder(3), images(20, 3)
    own, seen = torch.arange(20.0, dtype=torch.float64)[:, None], []

    def step(state, words):
        seen.append(state[1])
        assert torch.equal(state[2][:: len(words) // len(state[1])], state[1])  # each image's beams keep their image
        logits, (moved,), looks = decoder(state[:1], words)
        return logits, (moved, state[1], state[2].clone()), looks

    found = beam_search(step, (hidden, own, own), longest=12)
    counts = [len(part) for part in seen]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == 20 > counts[-1] > 0
    for row in range(20):
        alone = beam_search(decoder, (hidden[row : row + 1],), longest=12)
        assert said(alone, 0) == said(found, row)
        assert alone.log_probs.item() == pytest.approx(found.log_probs[row].item())
