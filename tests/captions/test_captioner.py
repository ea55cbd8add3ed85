"""One file holds a captioner; the command captions any image and says what is wrong when it cannot."""

import os

import pytest
import torch
from conftest import made_images, png

from helpers.captions.__main__ import main, newest
from helpers.captions.captioner import FILE, Captioner, read_image
from helpers.captions.decoder import CaptionDecoder, DotAttention
from helpers.captions.encoder import GridEncoder, load_encoder
from helpers.captions.search import EOS_ID
from helpers.captions.text import SPECIAL, Vocabulary
from helpers.data import toy
from helpers.plotting import captions as plotting_captions
from helpers.plotting.captions import length_histogram, persian
from helpers.training.checkpoints import CheckpointError

VOCABULARY = Vocabulary((*SPECIAL, *toy.SHAPES.values()))


def captioner(seed=0):
    torch.manual_seed(seed)
    encoder, decoder = load_encoder("toy", grid=4), CaptionDecoder(len(VOCABULARY), 64, DotAttention, 8, 12)
    decoder.bias.data[EOS_ID] -= 5  # it writes words before it ends
    return Captioner(encoder, "toy", decoder, VOCABULARY)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(png(made_images(1, 40)[0]))
    return path


def test_what_is_saved_writes_the_same_captions(tmp_path):
    model, images = captioner(), torch.rand(3, 3, 32, 32)
    model.save(tmp_path / "captioner.safetensors")
    for (words, looks), (again, looked) in zip(
        model(images), Captioner.load(tmp_path / "captioner.safetensors")(images), strict=True
    ):
        assert len(words) > 1
        assert words == again
        assert torch.equal(looks, looked)
        assert looks.shape == (len(words), 4, 4)
        assert torch.allclose(looks.sum((1, 2)), torch.ones(len(words)))


def test_a_captioner_that_cannot_be_read(tmp_path):
    path = tmp_path / "captioner.safetensors"
    with pytest.raises(CheckpointError, match="no captioner at .*: train one"):
        Captioner.load(path)
    captioner().save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"captioner.safetensors is damaged"):
        Captioner.load(path)


def test_a_captioner_with_broken_words(tmp_path):
    model, path = captioner(), tmp_path / "captioner.safetensors"
    object.__setattr__(model.vocabulary, "words", ("سگ",))
    try:
        model.save(path)
    finally:
        object.__setattr__(model.vocabulary, "words", (*SPECIAL, *toy.SHAPES.values()))
    with pytest.raises(CheckpointError, match="captioner.safetensors is damaged or no captioner .*begins with"):
        Captioner.load(path)


def test_images_and_regions_go_to_where_the_networks_are(monkeypatch):
    model, moves = captioner(), []

    class Pixels:
        def to(self, device):
            moves.append(("images", device))
            return torch.zeros(1, 3, 32, 32)

    class Regions(torch.Tensor):
        def to(self, *args, **options):
            moves.append(("regions", *args))
            return self.as_subclass(torch.Tensor)

    monkeypatch.setattr(GridEncoder, "device", "the encoder's")
    monkeypatch.setattr(CaptionDecoder, "device", "the decoder's")
    monkeypatch.setattr(model.encoder, "forward", lambda images: torch.rand(1, 16, 64).as_subclass(Regions))
    model(Pixels())
    assert moves == [("images", "the encoder's"), ("regions", "the decoder's")]


def test_the_command_says_the_words_of_the_newest_captioner(image, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CHECKPOINT_DIR", str(tmp_path / "checkpoints"))
    for seed, (run, saved) in enumerate({"some.toy": 200, "other.lite": 300, "last.in.the.alphabet": 100}.items()):
        path = tmp_path / "checkpoints" / run / FILE
        captioner(seed).save(path)
        os.utime(path, (saved, saved))
    assert newest().parent.name == "other.lite"
    ((words, _),) = captioner(1)(read_image(image))
    main([str(image), "--figure", str(tmp_path / "maps.png")])
    assert " ".join(words) in capsys.readouterr().out
    assert (tmp_path / "maps.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("none.png", None, r"there is no file .*none.png"), ("text.png", b"words", "text.png is not an image")],
)
def test_no_image(tmp_path, name, content, message):
    if content:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SystemExit, match=message):
        main([str(tmp_path / name)])


def test_no_captioner(image, tmp_path, monkeypatch):
    monkeypatch.setenv("CHECKPOINT_DIR", str(tmp_path / "nothing"))
    with pytest.raises(SystemExit, match="no captioner at nothing/captioner.safetensors: train one"):
        main([str(image)])


def test_a_captioner_that_is_named_is_taken(image, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CHECKPOINT_DIR", str(tmp_path / "checkpoints"))
    for seed, path in enumerate((tmp_path / "mine.safetensors", tmp_path / "checkpoints" / "newer" / FILE)):
        captioner(seed).save(path)
    ((words, _),) = captioner(0)(read_image(image))
    main([str(image), "--captioner", str(tmp_path / "mine.safetensors")])
    assert capsys.readouterr().out.strip().endswith(" ".join(words))


def widths(text):
    """How wide matplotlib draws a text, and the same letters unjoined."""
    import matplotlib.pyplot as plt

    figure = plt.figure()
    drawn = [figure.text(0, 0, part) for part in (persian(text), " ".join(text))]
    spaces = figure.text(0, 0, " " * (len(text) - 1) + "x")
    single = figure.text(0, 0, "x")
    joined, apart, gaps, x = (part.get_window_extent().width for part in [*drawn, spaces, single])
    plt.close(figure)
    return joined, apart - (gaps - x)


def test_persian_letters_are_joined():
    joined, apart = widths("میمنت")
    assert joined < 0.9 * apart


def test_persian_for_a_matplotlib_that_does_not_shape(monkeypatch):
    monkeypatch.setattr(plotting_captions, "SHAPES_ITSELF", False)
    assert persian("سلام") == "\ufee1\ufefc\ufeb3"  # meem, lam-alef, seen: presentation forms, turned
    monkeypatch.setattr(plotting_captions, "SHAPES_ITSELF", True)
    assert persian("سلام") == "سلام"


def test_the_histogram_has_a_bar_a_length():
    figure = length_histogram([3, 3, 5])
    assert [round(bar.get_height()) for bar in figure.axes[0].patches] == [2, 0, 1]
