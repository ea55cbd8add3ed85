"""The path of profile `full` from an archive to a caption, offline: a small archive, an encoder that is not trained."""

import csv
import io
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import made_images, png
from torch import nn

from helpers.captions import encoder as encoder_module
from helpers.captions.__main__ import main, newest
from helpers.captions.captioner import FILE, Captioner
from helpers.captions.decoder import CaptionDecoder
from helpers.captions.regions import load_regions, sharded_features
from helpers.captions.search import EOS_ID, FOR_PEOPLE
from helpers.captions.text import SPECIAL, Vocabulary, tokenize
from helpers.captions.training import Described, Recipe, linear, said, train_captioner, write
from helpers.contract import seeded
from helpers.data.captions import load_captions
from helpers.training.checkpoints import checkpoint_root, load_weights

NAME, COUNTS = "coco-flickr-fa-40k", (14, 4, 4)
CAPTIONS = ["یک سگ سیاه می‌دود", "دو پسر، روی یخ، بازی می‌کنند", "یک گربه سفید خوابیده است"]


def untrained(name):
    assert name == "efficientnet_b7"
    with seeded(0):  # cells of 32 pixels, as EfficientNet's; a deep network without training would see nothing
        return SimpleNamespace(features=nn.Sequential(nn.Conv2d(3, 64, 32, 32), nn.ReLU()))


@pytest.fixture
def archive(data_root, monkeypatch):
    """22 images, two captions each, no header, one line without an image: as the set's own zip is laid out."""
    table = io.StringIO()
    lines = csv.writer(table)
    lines.writerows([f"{n}.png", CAPTIONS[(n + k) % 3]] for n in range(sum(COUNTS)) for k in range(2))
    lines.writerow(["lost.png", CAPTIONS[0]])
    with zipfile.ZipFile(data_root / f"{NAME}.zip", "w") as file:
        file.writestr(f"{NAME}/data.csv", table.getvalue())
        for number, pixels in enumerate(made_images(sum(COUNTS), 48)):
            file.writestr(f"{NAME}/images/{number}.png", png(pixels))
    monkeypatch.setattr(encoder_module, "_torchvision", untrained)


def described():
    """The archive's three parts, as captions and as features with words, and the encoder."""
    sets = load_captions(NAME).split(*COUNTS)
    words = [[[tokenize(caption) for caption in captions] for captions in part.captions] for part in sets]
    vocabulary = Vocabulary.build((caption for captions in words[0] for caption in captions), 1)
    encoder = load_regions("efficientnet_b7", size=96, grid=2)  # 3 x 3 cells
    features = [sharded_features(encoder, part, checkpoint_root() / "features", shard=5) for part in sets]
    return sets, [Described(*pair, vocabulary) for pair in zip(features, words, strict=True)], encoder


def trained(parts, folder, **recipe):
    """A decoder after one epoch, and its history."""
    with seeded(0):
        decoder = CaptionDecoder(len(parts[0].vocabulary), parts[0].features.shape[2])
    history = train_captioner(decoder, parts[0], parts[1], Recipe(1, images=2, **recipe), folder)
    return load_weights(decoder, folder / "best.safetensors"), history


@pytest.mark.trains
def test_from_the_archive_to_a_caption(archive, tmp_path, capsys):
    sets, parts, encoder = described()
    assert sets[0].left_out == (f"line {2 * sum(COUNTS) + 1}: the image lost.png is missing",)
    assert [part.features.shape for part in parts] == [(count, 4, 64) for count in COUNTS]
    assert all(isinstance(shard, np.memmap) for part in parts for shard in part.features.parts)
    assert set(parts[0].vocabulary.words[len(SPECIAL) :]) == {word for line in CAPTIONS for word in tokenize(line)}
    first = sets[2].image(0)[None] / 255
    assert torch.allclose(parts[2].regions([0]), encoder(first), rtol=2e-3, atol=2e-3)
    assert not torch.allclose(parts[2].regions([0]), parts[2].regions([1]), rtol=2e-2, atol=2e-2)
    own = int(sets[2].names[0].removesuffix(".png"))
    assert parts[2].captions[0] == [tokenize(CAPTIONS[(own + k) % 3]) for k in range(2)]

    decoder, history = trained(parts, tmp_path / "additive")
    assert history.epoch.tolist() == [1]
    decoder.bias.data[EOS_ID] -= 5  # one step has not taught it to write words before it ends
    written = said(write(decoder, parts[2].features, width=3, barred=FOR_PEOPLE), parts[0].vocabulary)
    assert all(written)
    assert {word for caption in written for word in caption} <= set(parts[0].vocabulary.words)

    model = Captioner(encoder, "efficientnet_b7", decoder, parts[0].vocabulary)
    model.save(checkpoint_root() / "a run" / FILE)
    ((words, looks),) = model(first)
    ((again, looked),) = Captioner.load(newest())(first)
    assert words == again
    assert torch.equal(looks, looked)
    assert looks.shape == (len(words), 2, 2)
    (tmp_path / "photo.png").write_bytes(sets[2].read(sets[2].names[0]))
    main([str(tmp_path / "photo.png")])
    assert capsys.readouterr().out.strip().endswith(" ".join(words))


@pytest.mark.trains
def test_a_second_start_trains_and_encodes_nothing(archive, monkeypatch, tmp_path):
    decoder, history = trained(described()[1], tmp_path / "one")
    monkeypatch.setattr("helpers.captions.features._write", lambda *args: pytest.fail("encoded again"))
    monkeypatch.setattr("helpers.captions.training._epoch", lambda *args: pytest.fail("trained again"))
    same, again = trained(described()[1], tmp_path / "one")
    assert again.equals(history)
    assert all(torch.equal(a, b) for a, b in zip(decoder.parameters(), same.parameters(), strict=True))


@pytest.mark.trains
def test_the_callers_random_state_stays(archive, tmp_path):
    parts = described()[1]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    trained(parts, tmp_path / "one", truth=linear)
    assert torch.equal(torch.get_rng_state(), before)


def test_two_networks_side_by_side_are_loaded_again(monkeypatch, tmp_path):
    monkeypatch.setattr(encoder_module, "_torchvision", untrained)
    name, vocabulary = "efficientnet_b7+efficientnet_b7", Vocabulary.build([tokenize(line) for line in CAPTIONS], 1)
    encoder = load_regions(name, size=(96, 64), grid=2)
    with seeded(0):
        decoder = CaptionDecoder(len(vocabulary), 128).eval()
    Captioner(encoder, name, decoder, vocabulary).save(tmp_path / FILE)
    again, images = Captioner.load(tmp_path / FILE), torch.rand(2, 3, 50, 70)
    assert again.encoder.size == (96, 64)
    assert torch.equal(again.encoder(images), encoder(images))
    for (words, looks), (same, looked) in zip(
        again(images), Captioner(encoder, name, decoder, vocabulary)(images), strict=True
    ):
        assert words == same
        assert torch.equal(looks, looked)
