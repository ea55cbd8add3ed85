"""SimpleNet, its rivals and SimpleViT: sizes as the assignment gives them, and what their layers promise."""

import pytest
import torch
import torch.nn.functional as F
from conftest import SEED
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from helpers.conv import CustomConv2d
from helpers.models import CustomNet, CustomNet2, MyNet, SimpleNet, SimpleViT
from helpers.models.simple_vit import Attention, Block, DropPath, in_windows, partition, unpartition

SIZES = {SimpleNet: 365_028, CustomNet: 4_687_780, CustomNet2: 4_634_468, MyNet: 3_195_876, SimpleViT: 1_959_076}


@pytest.mark.parametrize("network", SIZES)
def test_sizes(network):
    assert sum(p.numel() for p in network().parameters()) == SIZES[network]


@pytest.mark.parametrize("network", [SimpleNet, CustomNet, CustomNet2, MyNet])
def test_every_convolution_can_be_exchanged(network):
    kinds = {type(m) for m in network(5, CustomConv2d).modules() if isinstance(m, nn.Conv2d)}
    assert kinds == {CustomConv2d}


@pytest.mark.parametrize("network", [SimpleNet, CustomNet, CustomNet2, MyNet])
def test_the_convolution_does_not_change_the_function(network):
    torch.manual_seed(0)
    theirs = network(5)
    torch.manual_seed(0)
    ours = network(5, CustomConv2d)  # the same random numbers in the same order
    images = torch.rand(2, 3, 32, 32)
    assert torch.allclose(theirs(images), ours(images), atol=1e-4)


@pytest.mark.parametrize("network", [SimpleNet, CustomNet2, MyNet])
def test_activations_neither_vanish_nor_explode(network):
    torch.manual_seed(0)
    logits = network(100)(torch.randn(4, 3, 64, 64))
    assert 0.01 < logits.std() < 10


def losses(conv, steps):
    torch.manual_seed(SEED)
    model, generator, found = SimpleNet(10, conv), torch.Generator().manual_seed(SEED + 1), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.005)
    labels = torch.arange(32) % 10
    images = torch.rand(32, 3, 32, 32, generator=generator) + labels[:, None, None, None] / 10
    for _ in range(steps):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return torch.tensor(found)


@pytest.mark.trains
def test_the_same_loss_curve_with_either_convolution():
    theirs, ours = losses(nn.Conv2d, 50), losses(CustomConv2d, 50)
    assert theirs[-1] < theirs[0] - 0.1  # it learns, so there is a curve to compare
    assert (theirs - ours).abs().max() < 1e-3


sizes = st.integers(1, 9)


@given(n=st.integers(1, 3), height=sizes, width=sizes, window=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_unpartition_inverts_partition(n, height, width, window):
    tokens = torch.rand(n, height, width, 2)
    windows = partition(tokens, window)
    assert windows.shape == (n * -(-height // window) * -(-width // window), window, window, 2)
    assert torch.equal(unpartition(windows, window, tokens.shape), tokens)


def test_a_window_holds_neighbours():
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    windows = partition(torch.stack([rows, columns], -1)[None].float(), 4)
    assert ((windows // 4).flatten(1, 2).std(1) == 0).all()  # all tokens of a window from one quarter


def test_a_window_that_covers_the_grid_is_global_attention():
    torch.manual_seed(0)
    attention, tokens = Attention(8, 2), torch.rand(2, 5, 5, 8)
    assert torch.allclose(in_windows(attention, tokens, 5), attention(tokens), atol=1e-6)
    assert not torch.allclose(in_windows(attention, tokens, 3), attention(tokens), atol=1e-3)


def test_attention_is_torch_attention():
    torch.manual_seed(0)
    attention, tokens = Attention(12, 3).double(), torch.rand(2, 3, 5, 12, dtype=torch.float64)
    n, height, width, _ = tokens.shape
    qkv = attention.qkv(tokens).view(n, height * width, 3, 3, 4).permute(2, 0, 3, 1, 4)
    expected = F.scaled_dot_product_attention(*qkv).transpose(1, 2).reshape(tokens.shape)
    assert torch.allclose(attention(tokens), attention.projection(expected), atol=1e-12)
    weights = attention.weights(tokens)
    assert weights.shape == (2, 3, 15, 15)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 3, 15, dtype=torch.float64))


def test_global_attention_does_not_know_the_order():
    torch.manual_seed(0)
    block, tokens = Block(8, 2), torch.rand(1, 4, 4, 8)
    order = torch.randperm(16)

    def shuffled(values):
        return values.flatten(1, 2)[:, order].view(values.shape)

    assert torch.allclose(block(shuffled(tokens)), shuffled(block(tokens)), atol=1e-5)


def test_drop_path_leaves_out_whole_examples_and_keeps_the_mean():
    torch.manual_seed(0)
    layer, values = DropPath(0.3), torch.ones(20_000, 2, 2)
    dropped = layer(values)
    assert set(dropped.flatten(1).std(1).tolist()) == {0.0}  # an example as a whole
    assert dropped.flatten(1)[:, 0].unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert dropped.mean() == pytest.approx(1, abs=0.02)  # four standard errors
    assert torch.equal(layer.eval()(values), values)


def test_drop_path_grows_with_depth_and_windows_alternate():
    blocks = SimpleViT(10).blocks
    assert [block.drop_path.p for block in blocks] == pytest.approx([0, 0.1 / 3, 0.2 / 3, 0.1])
    assert [block.window for block in blocks] == [4, 0, 4, 0]
    assert {block.window for block in SimpleViT(10, window=0).blocks} == {0}


def test_the_three_places_of_the_norm():
    images, found = torch.rand(2, 3, 32, 32), {}
    for norm in ("then pool", "after pool", "none"):
        torch.manual_seed(0)
        found[norm] = SimpleViT(10, image_size=32, patch_size=8, dim=16, heads=2, norm=norm).eval()(images)
    assert len({round(logits.sum().item(), 6) for logits in found.values()}) == 3


def test_positions_matter():
    torch.manual_seed(0)
    model = SimpleViT(10, image_size=32, patch_size=8, dim=16, heads=2, window=0).eval()
    nn.init.normal_(model.positions)
    images = torch.rand(1, 3, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)  # a flip only moves whole patches
    assert not torch.allclose(model(images), model(images.flip(3)), atol=1e-4)


def test_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match="fill the image"):
        SimpleViT(10, image_size=30, patch_size=16)
    with pytest.raises(ValueError, match="fill the image"):
        SimpleViT(10, norm="somewhere")
    with pytest.raises(ValueError, match="heads"):
        Attention(10, 4)
    with pytest.raises(ValueError, match="probability"):
        DropPath(1.0)
