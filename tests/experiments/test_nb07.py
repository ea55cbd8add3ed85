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
from helpers.captions.captioner import Captioner
from helpers.captions.search import EOS_ID, FOR_PEOPLE
from helpers.captions.text import SPECIAL, tokenize
from helpers.captions.training import said, write
from helpers.contract import seeded
from helpers.course.run import Run
from helpers.experiments import nb07 as captioners

NAME, COUNTS = "coco-flickr-fa-40k", (14, 4, 4)
CAPTIONS = ["یک سگ سیاه می‌دود", "دو پسر، روی یخ، بازی می‌کنند", "یک گربه سفید خوابیده است"]


def untrained(name):
    assert name == "efficientnet_b7"
    with seeded(0):  # cells of 32 pixels, as EfficientNet's; a deep network without training would see nothing
        return SimpleNamespace(features=nn.Sequential(nn.Conv2d(3, 64, 32, 32), nn.ReLU()))


@pytest.fixture
def archive(data_root):
    """22 images, two captions each, no header, one line without an image: as the set's own zip is laid out."""
    table = io.StringIO()
    lines = csv.writer(table)
    lines.writerows([f"{n}.png", CAPTIONS[(n + k) % 3]] for n in range(sum(COUNTS)) for k in range(2))
    lines.writerow(["lost.png", CAPTIONS[0]])
    with zipfile.ZipFile(data_root / f"{NAME}.zip", "w") as file:
        file.writestr(f"{NAME}/data.csv", table.getvalue())
        for number, pixels in enumerate(made_images(sum(COUNTS), 48)):
            file.writestr(f"{NAME}/images/{number}.png", png(pixels))


@pytest.fixture
def run(archive, monkeypatch):
    full = captioners.PHOTOGRAPHS["full"]
    assert full.name == NAME
    assert full.counts[0] >= 10_000
    small = full._replace(counts=COUNTS, encoder=full.encoder | {"size": 96, "grid": 2}, epochs=1)  # 3 x 3 cells
    monkeypatch.setitem(captioners.PHOTOGRAPHS, "full", small)
    monkeypatch.setattr(encoder_module, "_torchvision", untrained)
    return Run("07_persian_captioning", "full")


@pytest.mark.trains
def test_from_the_archive_to_a_caption(run, tmp_path, capsys):
    data = captioners.corpus(run)
    assert data.sets[0].left_out == (f"line {2 * sum(COUNTS) + 1}: the image lost.png is missing",)
    assert [part.features.shape for part in data.parts] == [(count, 4, 64) for count in COUNTS]
    assert all(isinstance(part.features, np.memmap) for part in data.parts)
    assert set(data.vocabulary.words[len(SPECIAL) :]) == {word for line in CAPTIONS for word in tokenize(line)}
    first = data.sets[2].image(0)[None] / 255
    assert torch.allclose(data.parts[2].regions([0]), data.encoder(first), rtol=2e-3, atol=2e-3)
    assert not torch.allclose(data.parts[2].regions([0]), data.parts[2].regions([1]), rtol=2e-2, atol=2e-2)
    own = int(data.sets[2].names[0].removesuffix(".png"))
    assert data.parts[2].captions[0] == [tokenize(CAPTIONS[(own + k) % 3]) for k in range(2)]

    trained = captioners.captioner(run, "additive")
    assert trained.history.epoch.tolist() == [1]
    trained.model.out.bias.data[EOS_ID] -= 5  # one step has not taught it to write words before it ends
    written = said(write(trained.model, data.parts[2].features, width=3, barred=FOR_PEOPLE), data.vocabulary)
    assert all(written)
    assert {word for caption in written for word in caption} <= set(data.vocabulary.words)

    model = Captioner(data.encoder, "efficientnet_b7", trained.model, data.vocabulary)
    model.save(captioners.captioner_file(run))
    ((words, looks),) = model(first)
    ((again, looked),) = Captioner.load(newest())(first)
    assert words == again
    assert torch.equal(looks, looked)
    assert looks.shape == (len(words), 2, 2)
    (tmp_path / "photo.png").write_bytes(data.sets[2].read(data.sets[2].names[0]))
    main([str(tmp_path / "photo.png")])
    assert capsys.readouterr().out.strip().endswith(" ".join(words))


@pytest.mark.trains
def test_a_second_start_trains_and_encodes_nothing(run, monkeypatch):
    first = captioners.captioner(run, "dot-product")
    monkeypatch.setattr("helpers.captions.features._write", lambda *args: pytest.fail("encoded again"))
    monkeypatch.setattr("helpers.captions.training._epoch", lambda *args: pytest.fail("trained again"))
    again = captioners.captioner(Run("07_persian_captioning", "full"), "dot-product")
    assert again.history.equals(first.history)
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), again.model.parameters(), strict=True))


@pytest.mark.trains
def test_the_callers_random_state_stays(run):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    captioners.captioner(run, "sampling, linear")
    assert torch.equal(torch.get_rng_state(), before)


def test_float16_is_no_precision_of_captions(run, monkeypatch):
    monkeypatch.setattr(run, "precision", "fp16")  # a T4
    assert captioners._precision(run, captioners.corpus(run)) == "no"
    monkeypatch.setattr(run, "precision", "bf16")
    assert captioners._precision(run, captioners.corpus(run)) == "bf16"
