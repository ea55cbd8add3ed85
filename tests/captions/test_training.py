"""Training a decoder on features: what it sees, resuming after a kill, choosing by free captions."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SEED

from helpers.captions import training as captioning
from helpers.captions.decoder import CaptionDecoder
from helpers.captions.evidence import loss_without, mean_log_prob, word_log_probs
from helpers.captions.scores import bleu
from helpers.captions.text import Vocabulary
from helpers.captions.training import Described, Recipe, always_told, exponential, linear, said, train_captioner, write
from helpers.training.checkpoints import load_weights, weights_checksum

WORDS = ["سگ", "گربه", "اسب", "سیاه", "سفید"]
VOCABULARY = Vocabulary.build([WORDS])
RECIPE = Recipe(epochs=3, images=4, lr=1e-2, longest=8)


def described(count=12, seed=0):
    """Images whose two regions of 4 cells tell their two words; two captions each."""
    random = np.random.default_rng(seed + SEED)
    kinds = random.integers(0, [3, 2], (count, 2))
    features = np.zeros((count, 4, 6), np.float16)
    features[np.arange(count), 0, kinds[:, 0]] = 3
    features[np.arange(count), 3, 3 + kinds[:, 1]] = 3
    captions = [[[WORDS[a], WORDS[3 + b]], [WORDS[3 + b], WORDS[a], WORDS[a]]] for a, b in kinds]
    return Described(features, captions, VOCABULARY)


def decoder(seed=0, dropout=0.2):
    torch.manual_seed(seed + SEED)
    return CaptionDecoder(len(VOCABULARY), 6, embed_dim=12, hidden_dim=16, dropout=dropout)


def trained(folder, recipe=RECIPE, seed=0):
    model = decoder(seed)
    history = train_captioner(model, described(24), described(8, 1), recipe, folder)
    return model, history


def test_a_batch_has_all_captions_of_its_images():
    data = described()
    regions, captions, of = data.batch([2, 5], "cpu")
    assert regions.shape == (2, 4, 6)
    assert of.tolist() == [0, 0, 1, 1]
    assert [VOCABULARY.decode(row) for row in captions] == [*data.captions[2], *data.captions[5]]
    assert torch.equal(regions[1], torch.from_numpy(data.features[5]).float())


def test_an_epoch_sees_each_image_once_in_an_order_of_its_seed():
    data = described()
    drawn = [torch.cat([regions for regions, _, _ in data.batches(5, "cpu", seed)]) for seed in (0, 0, 1)]
    whole = torch.from_numpy(data.features).float()
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(drawn[2].sum(0), whole.sum(0))
    assert torch.equal(torch.cat([regions for regions, _, _ in data.batches(5, "cpu")]), whole)


def test_features_and_captions_must_be_as_many():
    with pytest.raises(ValueError, match="12 images have features, but 11"):
        Described(described().features, described().captions[:-1], VOCABULARY)


@pytest.mark.trains
def test_it_learns_what_the_regions_say(tmp_path):
    _, history = trained(tmp_path, replace(RECIPE, epochs=40, label_smoothing=0.0, penalty=0.0))
    test = described(20, 2)
    assert history.val_loss.iloc[-1] < 0.5 * history.val_loss.iloc[0]
    best = load_weights(decoder(1), tmp_path / "best.safetensors")
    own, others = (
        bleu(said(write(best, features), VOCABULARY), test.captions, 1)
        for features in (test.features, np.roll(test.features, 1, 0))
    )
    assert own > 0.6
    assert own > others + 0.2


@pytest.mark.trains
def test_the_best_epoch_is_chosen_by_free_captions(tmp_path, monkeypatch):
    scores = iter([0.1, 0.3, 0.2])
    weights = []

    def watch(model, val, device, longest):
        weights.append(weights_checksum(model))
        return {
            "val_loss": 1.0 / len(weights),
            "val_bleu1": 0.0,
            "val_bleu4": next(scores),
            "val_distinct": 1,
            "caption": "",
        }

    monkeypatch.setattr(captioning, "watch", watch)
    model, _ = trained(tmp_path)
    assert weights_checksum(load_weights(model, tmp_path / "best.safetensors")) == weights[1]  # the loss would take 2


def test_validation_is_free_running_and_teacher_forced_where_it_says_so():
    model, val = decoder().eval(), described(40, 1)
    val.captions[39][1] = [WORDS[0]] * 7  # in the second batch: a batch counts by its words, without padding
    row = captioning.watch(model, val, "cpu", 8)
    words = said(write(model, val.features, longest=8), VOCABULARY)
    assert row["val_bleu1"] == bleu(words, val.captions, 1)
    assert row["caption"] == " ".join(words[0])
    captions = [caption for own in val.captions for caption in own]
    regions = torch.from_numpy(np.repeat(val.features, 2, 0)).float()
    nats = mean_log_prob(model, regions, captions, VOCABULARY)
    lengths = torch.tensor([len(caption) + 1.0 for caption in captions])
    assert row["val_loss"] == pytest.approx(-((nats * lengths).sum() / lengths.sum()).item(), rel=1e-5)


@pytest.mark.trains
def test_a_killed_training_ends_with_the_same_weights(tmp_path):
    code = (
        "import os, signal, sys; sys.path[:0] = sys.argv[4:]\n"
        "import torch; torch.set_num_threads(1)\n"
        "import test_training as t; from helpers.captions import training as captioning\n"
        "real, calls = captioning.caption_loss, [0]\n"
        "def counted(*a, **k):\n"
        "    calls[0] += 1\n"
        "    if calls[0] == int(sys.argv[3]): os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(*a, **k)\n"
        "captioning.caption_loss = counted\n"
        "model, history = t.trained(sys.argv[2])\n"
        "os.write(1, f\"{t.weights_checksum(model)} {history.drop(columns='seconds').to_json()}\".encode())\n"
    )

    here = Path(__file__).parent

    def start(folder, kill_at):
        command = [sys.executable, "-c", code, "-", str(folder), str(kill_at), str(here.parent), str(here)]
        return subprocess.run(command, capture_output=True, check=False, env=os.environ)

    assert start(tmp_path / "a", 20).returncode == -signal.SIGKILL
    assert list((tmp_path / "a").glob("epoch_0001"))
    resumed, whole = start(tmp_path / "a", -1), start(tmp_path / "b", -1)
    assert resumed.returncode == whole.returncode == 0
    assert resumed.stdout == whole.stdout
    assert whole.stdout


@pytest.mark.trains
def test_the_callers_random_state_stays(tmp_path):
    model = decoder()
    before = torch.get_rng_state()
    train_captioner(model, described(), described(), RECIPE, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.trains
def test_the_callers_random_state_has_no_part(tmp_path):
    histories = []
    for seed in range(2):
        model = decoder()
        torch.manual_seed(seed)
        histories.append(train_captioner(model, described(), described(), RECIPE, tmp_path / f"{seed}").train_loss)
    assert histories[0].equals(histories[1])


@pytest.mark.trains
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_half_precision_is_of_the_training_steps_only(tmp_path, monkeypatch, precision):
    seen, forward = [], CaptionDecoder.forward

    def watched(self, *args):
        seen.append((self.training, torch.is_autocast_enabled("cpu")))
        return forward(self, *args)

    monkeypatch.setattr(CaptionDecoder, "forward", watched)
    model = decoder()
    train_captioner(model, described(), described(8, 1), replace(RECIPE, epochs=1), tmp_path, precision=precision)
    assert set(seen) == {(True, precision == "bf16"), (False, False)}
    assert all(value.dtype == torch.float32 for value in model.state_dict().values())


def test_no_other_precision(tmp_path):
    with pytest.raises(ValueError, match="'no' or 'bf16', got 'fp16'"):
        train_captioner(decoder(), described(), described(), RECIPE, tmp_path, precision="fp16")


@pytest.mark.trains
def test_another_recipe_does_not_go_on_from_this_folder(tmp_path, capsys):
    first, _ = trained(tmp_path / "run")
    other, history = trained(tmp_path / "run", replace(RECIPE, truth=linear))
    assert "run was trained with other settings, so run-2 is used: truth always_told there, linear now" in (
        capsys.readouterr().out
    )
    assert history.truth.iloc[-1] == 0.5
    assert {path.name for path in tmp_path.glob("run*")} == {"run", "run-2"}
    again, _ = trained(tmp_path / "run")
    assert weights_checksum(again) == weights_checksum(first) != weights_checksum(other)


@pytest.mark.trains
def test_a_loss_that_is_nan_stops(tmp_path):
    with pytest.raises(FloatingPointError, match="lower lr"):
        train_captioner(
            decoder(), replace(described(), features=described().features * np.nan), described(), RECIPE, tmp_path
        )


@pytest.mark.parametrize(("schedule", "half"), [(always_told, 1.0), (linear, 0.75), (exponential, 0.5 + 0.5 * 2**-2.5)])
def test_sampling_goes_from_one_to_a_half(schedule, half):
    assert schedule(0.0) == 1
    assert schedule(0.5) == pytest.approx(half)
    assert schedule(1.0) == (1 if schedule is always_told else 0.5)


@pytest.mark.trains
def test_the_schedule_reaches_the_decoder(tmp_path, monkeypatch):
    seen, forward = [], CaptionDecoder.forward

    def told(self, regions, captions, truth=1.0, of=None):
        seen.append(truth) if self.training else None
        return forward(self, regions, captions, truth, of)

    monkeypatch.setattr(CaptionDecoder, "forward", told)
    _, history = trained(tmp_path, replace(RECIPE, truth=linear))
    assert history.truth.tolist() == [1, 0.75, 0.5]
    assert seen == [1] * 6 + [0.75] * 6 + [0.5] * 6


def test_captions_do_not_depend_on_the_batch():
    model, data = decoder().double().eval(), described(9)
    for width in (1, 3):
        at_once = said(write(model.float(), data.features, width=width, batch=9), VOCABULARY)
        assert at_once == said(write(model, data.features, width=width, batch=2), VOCABULARY)


def test_log_probabilities_are_those_of_the_search():
    model, data = decoder().eval(), described(5)
    (found,) = write(model, data.features, width=3)
    words = torch.cat([torch.ones(5, 1, dtype=torch.long), found.words], 1)
    nats, _ = word_log_probs(model, data.regions(range(5)), words)
    # the search leaves out <pad> and <sos>, which are no words
    assert ((found.log_probs - nats.sum(1)) >= -1e-5).all()
    assert (nats[words[:, 1:] == 0] == 0).all()


@pytest.mark.trains
def test_the_regions_taken_away_are_those_most_looked_at(tmp_path):
    model, _ = trained(tmp_path, replace(RECIPE, epochs=15, label_smoothing=0.0, penalty=0.0))
    test = described(30, 2)
    captions = torch.stack([VOCABULARY.encode(own[0]) for own in test.captions])
    regions = test.regions(range(30))
    looked = loss_without(model, regions, captions, 1)
    assert looked.shape == (30, 3)
    whole, looks = word_log_probs(model, regions, captions)
    gone = regions.clone()
    best = looks[:, 1].argmax(1)
    gone[torch.arange(30), best] = regions.mean(1)
    assert torch.allclose(looked[:, 1], (whole - word_log_probs(model, gone, captions)[0])[:, 1], atol=1e-5)
    drawn = [loss_without(model, regions, captions, 1, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_as_many_regions_are_taken_away_as_asked():
    model, data = decoder().eval(), described(6)
    regions, captions, of = data.batch(range(6), "cpu")
    regions = regions[of]
    whole, looks = word_log_probs(model, regions, captions)
    padded = captions[:, 1:] == 0
    assert padded.any()
    assert (whole[padded] == 0).all()
    assert (whole[~padded] < 0).all()
    for count in (2, 4):
        gone = regions.clone()
        gone[torch.arange(12)[:, None], looks[:, 2].topk(count).indices] = regions.mean(1, keepdim=True)
        expected = whole - word_log_probs(model, gone, captions)[0]
        lost = loss_without(model, regions, captions, count)
        assert torch.allclose(lost[:, 2], expected[:, 2], atol=1e-6)
        assert (lost[padded] == 0).all()
        assert (lost[:, 2] != 0).any()
