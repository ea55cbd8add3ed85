"""Regions of a vision transformer, of networks side by side, and in files of a few images each."""

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from helpers.captions import regions as module
from helpers.captions.encoder import GridEncoder, load_encoder
from helpers.captions.features import cached_features
from helpers.captions.regions import Shards, SideBySide, TokenGrid, load_regions, sharded_features
from helpers.data import toy
from helpers.data.captions import toy_captions


def vit(size=32):
    torch.manual_seed(0)
    network = VisionTransformer(img_size=size, patch_size=8, embed_dim=24, depth=1, num_heads=2, num_classes=0).eval()
    return GridEncoder(TokenGrid(network), size, (0.5,) * 3, (0.5,) * 3, 2)


def test_a_token_stays_at_its_place():
    encoder, images = vit(), torch.rand(2, 3, 32, 32)
    tokens = encoder.body.network.forward_features(encoder.normalize(images))  # (2, 1 + 16, 24)
    grid = tokens[:, 1:].reshape(2, 2, 2, 2, 2, 24)  # rows in pairs, columns in pairs
    torch.testing.assert_close(encoder(images), grid.mean((2, 4)).flatten(1, 2))


def test_side_by_side():
    both, images = SideBySide([load_encoder("toy", grid=2), vit(48)]), torch.rand(2, 3, 40, 40)
    assert (both.size, both.grid) == ((32, 48), 2)
    pixels = both.resized(images)
    assert pixels.shape[2:] == (48, 48)
    found = both(pixels)
    torch.testing.assert_close(found[..., :64], both.encoders[0](pixels))
    torch.testing.assert_close(found[..., 64:], both.encoders[1](images))
    assert not any(part.training for part in both.train().modules())


def test_names(monkeypatch):
    asked = []
    monkeypatch.setattr(module, "load_encoder", lambda name, **options: asked.append((name, options)) or vit())
    both = load_regions("one+two", size=[32, 32], grid=2)
    assert [name for name, _ in asked] == ["one", "two"]
    assert len(both.encoders) == 2
    for size, grid in (([32, 32], None), ([32], 2)):
        with pytest.raises(ValueError, match="needs a grid and 2 sizes"):
            load_regions("one+two", size=size, grid=grid)


def test_files_of_a_few_images(tmp_path):
    images, encoder = toy_captions(toy.draw(7, 32, 0)), load_encoder("toy", grid=2)
    whole, parts = (
        cached_features(encoder, images, tmp_path / "a"),
        sharded_features(encoder, images, tmp_path / "b", 3),
    )
    assert len(list((tmp_path / "b").glob("*.npy"))) == 3
    assert (len(parts), parts.shape, parts.nbytes) == (7, whole.shape, whole.nbytes)
    for places in (slice(2, 5), slice(6, 99), np.array([6, 0, 3, 3])):
        np.testing.assert_allclose(parts[places], whole[places], rtol=1e-2, atol=1e-3)  # other batches, other rounding


def test_what_was_stopped_goes_on(tmp_path):
    images, encoder = toy_captions(toy.draw(6, 32, 0)), load_encoder("toy", grid=2)
    whole = sharded_features(encoder, images, tmp_path, 2)
    last = max(tmp_path.glob("*.npy"), key=lambda path: path.stat().st_mtime_ns)
    last.unlink()
    encoded = []
    encoder.register_forward_hook(lambda _, inputs, output: encoded.append(len(output)))
    again = sharded_features(encoder, images, tmp_path, 2)
    assert encoded == [2]  # two files were there; only the images of the last are encoded anew
    assert np.array_equal(again[:], whole[:])


def test_shards_of_one_array():
    one = np.arange(12.0).reshape(3, 2, 2)
    assert np.array_equal(Shards([one])[:], one)
