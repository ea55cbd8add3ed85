"""The captioner's attentions are the formulas, one step is one word, padding counts for nothing."""

import pytest
import torch
import torch.nn.functional as F

from helpers.captions.decoder import (
    AdditiveAttention,
    CaptionDecoder,
    DotAttention,
    caption_loss,
    looks_of_beams,
    positions,
)
from helpers.captions.search import beam_search, greedy

WORDS, REGIONS, DIM = 11, 9, 5
KINDS = [AdditiveAttention, DotAttention]


def decoder(kind=AdditiveAttention, seed=0):
    torch.manual_seed(seed)
    return CaptionDecoder(WORDS, DIM, kind, embed_dim=8, hidden_dim=7).double().eval()


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    captions = torch.tensor([[1, 5, 6, 2, 0, 0], [1, 7, 8, 9, 10, 2], [1, 4, 2, 0, 0, 0]])
    return torch.randn(3, REGIONS, DIM, generator=generator, dtype=torch.float64), captions


@pytest.mark.parametrize("kind", KINDS)
def test_attention_is_a_distribution_that_depends_on_the_question(kind):
    torch.manual_seed(0)
    attention, regions = kind(DIM, 7).double(), batch()[0]
    keys = attention.keys(regions)
    one, other = (attention(keys, torch.randn(3, 7, dtype=torch.float64)) for _ in range(2))
    assert torch.allclose(one.sum(1), torch.ones(3, dtype=torch.float64))
    assert not torch.allclose(one, other)


def test_dot_attention_is_torch_attention():
    torch.manual_seed(0)
    attention, regions = DotAttention(DIM, 7, 4).double(), batch()[0]
    hidden = torch.randn(3, 7, dtype=torch.float64)
    keys = attention.keys(regions)
    expected = F.scaled_dot_product_attention(attention.query(hidden)[:, None], keys, regions)[:, 0]
    assert torch.allclose((attention(keys, hidden)[:, None] @ regions)[:, 0], expected)


def test_additive_attention_is_its_formula():
    torch.manual_seed(0)
    attention, regions = AdditiveAttention(DIM, 7, 4).double(), batch()[0]
    hidden = torch.randn(3, 7, dtype=torch.float64)
    asked = (torch.tanh(attention.keys(regions[:, i]) + attention.query(hidden)) for i in range(REGIONS))
    scores = torch.stack([part @ attention.score.weight[0] for part in asked], 1)
    assert torch.allclose(attention(attention.keys(regions), hidden), scores.softmax(1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("scale", [1, 10])
def test_beams_look_where_each_would_look_alone(kind, dtype, atol, scale):
    torch.manual_seed(0)
    attention = kind(DIM, 7, 16).to(dtype)
    regions, hidden = scale * torch.randn(20, REGIONS, DIM, dtype=dtype), scale * torch.randn(20, 3, 7, dtype=dtype)
    keys = attention.keys(regions)
    together = looks_of_beams(attention, keys, hidden)
    assert together.shape == (20, 3, REGIONS)
    for beam in range(3):
        assert torch.allclose(together[:, beam], attention(keys, hidden[:, beam]), atol=atol)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_several_beams_is_each_beams_own(kind):
    model, (regions, _) = decoder(kind), batch()
    *_, keys, read = model.start(regions)
    hidden, cell = torch.randn(2, 6, 7, dtype=torch.float64)
    words = torch.tensor([4, 5, 6, 7, 8, 9])
    logits, (moved, *_), looks = model.step((hidden, cell, keys, read), words)
    for row in range(6):
        own = (part[row // 2][None] for part in (keys, read))
        expected, (alone, *_), look = model.step((hidden[row][None], cell[row][None], *own), words[row][None])
        for found, wanted in ((logits, expected), (moved, alone), (looks, look)):
            assert torch.allclose(found[row], wanted[0])


def test_extreme_keys_and_questions_give_numbers():
    attention, keys = AdditiveAttention(DIM, 7, 16), torch.full((1, REGIONS, 16), 200.0)
    keys[:, 0] *= -1
    with torch.no_grad():
        attention.query.weight.fill_(100.0)
        looks = looks_of_beams(attention, keys, torch.tensor([[[-1.0] * 7, [1.0] * 7]]))
    assert torch.isfinite(looks).all()


@pytest.mark.parametrize("kind", KINDS)
def test_teacher_forcing_is_stepping_along_the_caption(kind):
    model, (regions, captions) = decoder(kind), batch()
    logits, looks = model(regions, captions)
    state = model.start(regions)
    for place in range(5):
        expected, state, looked = model.step(state, captions[:, place])
        real = captions[:, place + 1] != 0
        assert torch.allclose(logits[real, place], expected[real])
        assert torch.allclose(looks[real, place], looked[real])
        assert (looks[~real, place] == 0).all()


def test_an_image_with_several_captions_is_read_once(monkeypatch):
    model, (regions, captions) = decoder(), batch()
    of, read = torch.tensor([0, 1, 1]), []  # not the same once the captions are sorted by length
    expected = model(regions[of], captions)
    start = model.start
    monkeypatch.setattr(model, "start", lambda regions: read.append(len(regions)) or start(regions))
    for part, whole in zip(model(regions[:2], captions, of=of), expected, strict=True):
        assert torch.allclose(part, whole)
    assert read == [2]


def test_a_word_is_named_by_the_vector_it_is_read_by():
    model, (regions, captions) = decoder(), batch()
    before, _ = model(regions, captions[:1, :2], of=torch.tensor([0]))
    model.embed.weight.data[9] += 1  # not in the caption: only its own logit may change
    after, _ = model(regions, captions[:1, :2], of=torch.tensor([0]))
    changed = (before != after)[0, 0]
    assert changed.nonzero().tolist() == [[9]]
    model.embed.weight.data[1] += 1  # <sos> is read: all logits change, but that of <pad>, whose vector is 0
    read, _ = model(regions, captions[:1, :2], of=torch.tensor([0]))
    assert (read != after)[0, 0].tolist() == [False] + [True] * (WORDS - 1)


def test_scheduled_sampling_reads_its_own_words():
    model, (regions, captions) = decoder(), batch()
    logits, _ = model(regions, captions, truth=0.0)
    state, words = model.start(regions), captions[:, 0]
    for place in range(5):
        values, state, _ = model.step(state, words)
        real = captions[:, place + 1] != 0
        assert torch.allclose(logits[real, place], values[real])
        words = values.argmax(1)
    torch.manual_seed(1)  # its own word is drawn where it is not the caption's
    half, forced = model(regions, captions, truth=0.5)[0], model(regions, captions)[0]
    assert torch.allclose(half[:, 0], forced[:, 0])  # the first word is always <sos>
    assert not torch.allclose(half, forced)


def test_the_image_decides_the_caption():
    model, (regions, captions) = decoder(), batch()
    assert not torch.allclose(model(regions, captions)[0], model(regions.flip(0), captions)[0])
    assert not torch.allclose(model(regions, captions)[1], model(regions * 2, captions)[1])


@pytest.mark.parametrize("kind", KINDS)
def test_the_searches_run_on_it(kind):
    model, (regions, _) = decoder(kind), batch()
    first = greedy(model.step, model.start(regions), longest=8)
    assert torch.equal(first.words, beam_search(model.step, model.start(regions), width=1, longest=8).words)
    alone = beam_search(model.step, model.start(regions[1:2]), width=3, longest=8)
    together = beam_search(model.step, model.start(regions), width=3, longest=8)
    length = alone.lengths[0]
    assert torch.equal(alone.words[0, :length], together.words[1, :length])
    assert first.looks.shape[2] == REGIONS


def test_places_are_x_and_y_row_by_row():
    assert positions(4).tolist() == [[-1, -1], [1, -1], [-1, 1], [1, 1]]
    assert positions(1).tolist() == [[0, 0]]
    with pytest.raises(ValueError, match="square grid, got 6"):
        positions(6)


def test_padding_has_no_part_in_the_loss():
    model, (regions, captions) = decoder(), batch()
    logits, looks = (part.detach().requires_grad_() for part in model(regions, captions))
    words, penalty = caption_loss(logits, looks, captions)
    by_logits, by_looks = torch.autograd.grad(words + penalty, [logits, looks])
    padded = captions[:, 1:] == 0
    assert (by_logits[padded] == 0).all()
    assert (by_looks[padded] == 0).all()
    assert (by_looks[~padded] != 0).all()
    longer = F.pad(captions, (0, 4))
    again = caption_loss(*model(regions, longer), longer)
    assert torch.allclose(torch.stack(again), torch.stack([words, penalty]))


def test_the_loss_by_hand():
    captions = torch.tensor([[1, 4, 2]])
    logits = torch.zeros(1, 2, WORDS, dtype=torch.float64)
    looks = torch.tensor([[[1.0, 0], [0.5, 0.5]]], dtype=torch.float64)
    words, penalty = caption_loss(logits, looks, captions, penalty=2.0)
    assert words.item() == pytest.approx(torch.tensor(float(WORDS)).log().item())
    assert penalty.item() == pytest.approx(2 * (0.5**2 + 0.5**2) / 2)


def test_only_what_is_looked_at_reaches_the_word(monkeypatch):
    model, (regions, captions) = decoder(), batch()
    looks = torch.zeros(3, REGIONS, dtype=torch.float64)
    looks[:, 2] = 1
    monkeypatch.setattr(model.attention, "forward", lambda keys, hidden: looks)
    hidden, cell, keys, read = model.start(regions)
    seen, unseen = read.clone(), read.clone()
    seen[:, 2] += 1
    unseen[:, 3] += 1
    logits = [model.step((hidden, cell, keys, part), captions[:, 0])[0] for part in (read, seen, unseen)]
    assert torch.equal(logits[0], logits[2])
    assert not torch.allclose(logits[0], logits[1])
