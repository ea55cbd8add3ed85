"""Explanations: equal to pytorch-grad-cam and to cases worked out by hand, and the model is as it was before."""

import copy
import gc

import pytest
import timm
import torch
import torchvision
from pytorch_grad_cam import GradCAM, HiResCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from helpers.contract import cross_entropy
from helpers.explain.layers import Tokens, as_grid, find_tokens
from helpers.explain.maps import class_logit, grad_cam, hires_cam, saliency, scale_maps
from helpers.models import normalized

CAMS = [(grad_cam, GradCAM), (hires_cam, HiResCAM)]
METHODS = {
    "saliency": lambda model, images, labels=None: saliency(model, images, labels),
    "grad_cam": lambda model, images, labels=None: grad_cam(model, model.conv2, images, labels),
    "hires_cam": lambda model, images, labels=None: hires_cam(model, model.conv2, images, labels),
}
methods = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


class Net(nn.Module):
    """A small CNN with what can go wrong: BatchNorm, dropout, an in-place ReLU behind the explained layer."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.relu = nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU(inplace=True)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(8, 5)

    def forward(self, images):
        x = self.relu(self.conv2(self.norm(self.conv1(images)).tanh()))
        return self.head(self.drop(x).mean((2, 3)))


def make(factory, *args, seed=0, **kwargs):
    torch.manual_seed(seed)
    return factory(*args, **kwargs)


def pictures(count=4, height=16, width=16, seed=1):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def net():
    return make(Net)


@pytest.fixture(scope="module")
def resnet():
    model = make(torchvision.models.resnet18, num_classes=10)
    return normalized(model, [0.5] * 3, [0.25] * 3).eval()


def vit(**kwargs):
    sizes = dict(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=7) | kwargs
    return make(timm.models.VisionTransformer, **sizes).eval()


def reference(method, model, layer, images, targets, reshape=None):
    model = copy.deepcopy(model).eval()  # theirs leaves gradients behind
    layer = dict(model.named_modules())[layer]
    with method(model, [layer], reshape_transform=reshape) as cam:
        return torch.from_numpy(cam(images, [ClassifierOutputTarget(int(t)) for t in targets]))


def at(model, name):
    return dict(model.named_modules())[name]


# --- against pytorch-grad-cam


@pytest.mark.parametrize(("ours", "theirs"), CAMS)
@pytest.mark.parametrize("layer", ["network.layer4", "network.layer3.0", "network.layer2.1.conv1"])
@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
def test_cnn_equals_pytorch_grad_cam(resnet, ours, theirs, layer, size):
    images, targets = pictures(3, *size), torch.tensor([3, 0, 9])
    expected = reference(theirs, resnet, layer, images, targets)
    assert expected.std() > 0.05  # maps, not blanks
    maps = scale_maps(ours(resnet, at(resnet, layer), images, targets))
    torch.testing.assert_close(maps, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("ours", "theirs"), CAMS)
@pytest.mark.parametrize("layer", ["blocks.1.norm1", "blocks.0.norm1"])
@pytest.mark.parametrize(
    ("size", "registers", "prefix"),
    [((32, 32), 0, 1), ((32, 48), 0, 1), ((32, 32), 4, 5)],
    ids=["square", "wide", "reg"],
)
def test_vit_equals_pytorch_grad_cam(ours, theirs, layer, size, registers, prefix):
    model, images, targets = vit(img_size=size, reg_tokens=registers), pictures(3, *size), torch.tensor([3, 0, 6])
    rows, columns = size[0] // 8, size[1] // 8

    def reshape(x):
        return x[:, prefix:].reshape(len(x), rows, columns, -1).permute(0, 3, 1, 2)

    expected = reference(theirs, model, layer, images, targets, reshape)
    assert expected.std() > 0.05
    maps = scale_maps(ours(model, at(model, layer), images, targets))
    torch.testing.assert_close(maps, expected, atol=1e-5, rtol=0)


def test_none_explains_the_prediction(net):
    images = pictures()
    predicted = net.eval()(images).argmax(1)
    for method in METHODS.values():
        assert torch.equal(method(net, images), method(net, images, predicted))
        assert not torch.equal(method(net, images), method(net, images, (predicted + 1) % 5))


# --- by hand


def cam_net():
    """Convolution, global average, linear: the network for which class activation maps were defined."""
    return make(lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)))


@pytest.mark.parametrize("cam", [grad_cam, hires_cam])
def test_gap_network_gives_the_class_activation_map(cam):
    model, images, targets = cam_net(), pictures(5), torch.tensor([0, 1, 2, 3, 0])
    features = model[0](images)  # (N, 6, 14, 14)
    class_maps = torch.einsum("nc,nchw->nhw", model[3].weight[targets], features).relu() / (14 * 14)
    expected = nn.functional.interpolate(class_maps[:, None], (16, 16), mode="bilinear")[:, 0]
    assert expected.max() > 0
    torch.testing.assert_close(cam(model, model[0], images, targets), expected, atol=1e-7, rtol=1e-5)


def test_hires_cam_marks_only_cells_the_score_uses():
    conv = nn.Conv2d(3, 4, 1)
    model = nn.Sequential(conv, Corner(4), nn.Linear(1, 2))
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    images = pictures(2)
    hires, mean = (cam(model, conv, images, torch.tensor([0, 1])) for cam in (hires_cam, grad_cam))
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[:4, :4] = True
    assert torch.equal(hires > 0, inside.expand(2, -1, -1))
    assert (mean > 0).all()


class Corner(nn.Module):
    """The sum over the `side` x `side` pixels at the top left, `(N, 1)`; nothing else is read."""

    def __init__(self, side):
        super().__init__()
        self.side = side

    def forward(self, images):
        return images[:, :, : self.side, : self.side].sum((1, 2, 3))[:, None]


def test_saliency_of_a_linear_model_is_known():
    model = make(lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5)))
    images, labels = pictures(), torch.tensor([0, 1, 2, 3])
    weight = model[1].weight.detach()
    error = model(images).softmax(1) - nn.functional.one_hot(labels, 5)  # gradient of the loss by the logits
    expected = (error @ weight).view_as(images).abs().amax(1)
    torch.testing.assert_close(saliency(model, images, labels), expected)
    logit = weight[labels].view_as(images).abs().amax(1)
    torch.testing.assert_close(saliency(model, images, labels, score=class_logit), logit)


def test_scores_by_hand():
    logits, targets = torch.tensor([[1.0, 3.0, 2.0], [0.0, 0.0, 5.0]]), torch.tensor([2, 2])
    torch.testing.assert_close(class_logit(logits, targets), torch.tensor([2.0, 5.0]))
    torch.testing.assert_close(cross_entropy(logits, targets), logits.logsumexp(1) - logits[:, 2])


def test_scale_maps_own_and_shared():
    maps = torch.stack(
        [torch.tensor([[0.0, 2.0], [4.0, 1.0]]), torch.tensor([[0.0, 0.0], [1.0, 0.5]]), torch.ones(2, 2)]
    )
    own, shared = scale_maps(maps), scale_maps(maps, shared=True)
    torch.testing.assert_close(own[0], maps[0] / 4)
    torch.testing.assert_close(own[1], maps[1])
    assert torch.equal(own[2], torch.zeros(2, 2))
    torch.testing.assert_close(shared, maps / 4)
    torch.testing.assert_close(scale_maps(maps[:2, None] + 3, shared=True), maps[:2, None] / 4)


# --- a batch is its images


@methods
def test_batch_equals_loop(net, method):
    images = pictures(5) * torch.linspace(0.2, 1, 5)[:, None, None, None]
    one_by_one = torch.cat([method(net, images[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(method(net, images), one_by_one, atol=1e-7, rtol=1e-4)


# --- nothing is changed, and the caller's settings make no difference


def watch(model):
    """All that an explanation could leave behind."""
    hooks = [
        len(getattr(module, name))
        for module in model.modules()
        for name in vars(module)
        if name.endswith("_hooks") and getattr(module, name) is not None
    ]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    return hooks, state, grads, [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]


def assert_same(before, after):
    assert before[0] == after[0]
    assert all(torch.equal(value, after[1][key]) for key, value in before[1].items())
    assert all((a is None and b is None) or torch.equal(a, b) for a, b in zip(before[2], after[2], strict=True))
    assert before[3:] == after[3:]


def mixed(net):
    """In training, with a BatchNorm frozen by hand, a frozen weight, and one gradient waiting."""
    net.train()
    net.norm.eval()
    net.conv1.weight.requires_grad_(False)
    net.head.bias.grad = torch.ones(5)
    return net


@methods
def test_the_model_is_untouched(net, method):
    before = watch(mixed(net))
    images = pictures()
    kept = images.clone()
    maps = method(net, images)
    assert_same(before, watch(net))
    assert torch.equal(images, kept)
    assert not images.requires_grad
    assert maps.shape == (4, 16, 16)
    assert (maps >= 0).all()
    assert not maps.requires_grad


@methods
def test_the_model_is_untouched_after_an_exception(net, method):
    before = watch(mixed(net))
    net.drop.forward = lambda x: 1 / 0  # behind the explained layer, so that its hook has run
    with pytest.raises(ZeroDivisionError):
        method(net, pictures())
    assert_same(before, watch(net))


@methods
def test_frozen_weights_and_no_grad_make_no_difference(net, method):
    images, labels = pictures(), torch.tensor([0, 1, 2, 3])
    expected = method(net, images, labels)
    with torch.no_grad():
        assert torch.equal(method(net, images, labels), expected)
    with torch.inference_mode():
        assert torch.equal(method(net, images.clone(), labels.clone()), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(method(net, images, labels), expected)
    assert torch.equal(method(net.requires_grad_(False), images, labels), expected)


def test_torchvision_vit_with_frozen_weights():
    """torchvision's blocks take a short cut around their modules when nothing asks for gradients."""
    sizes = dict(image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=7)
    model = make(torchvision.models.VisionTransformer, **sizes)
    nn.init.normal_(model.heads.head.weight)
    images, targets = pictures(2, 32, 32), torch.tensor([1, 2])
    expected = grad_cam(model, model.encoder.layers[-1].ln_1, images, targets)
    assert expected.max() > 0
    with torch.no_grad():
        frozen = grad_cam(model.requires_grad_(False), model.encoder.layers[-1].ln_1, images, targets)
    torch.testing.assert_close(frozen, expected)


def test_in_place_layers_behind_the_explained_one_do_not_spoil_it(net):
    images, targets = pictures(), torch.tensor([0, 1, 2, 3])
    for cam in (grad_cam, hires_cam):
        net.relu.inplace = True
        in_place = cam(net, net.conv2, images, targets)
        net.relu.inplace = False
        assert torch.equal(in_place, cam(net, net.conv2, images, targets))


@methods
def test_no_memory_is_kept(net, method):
    def tensors_after_a_call():
        method(net, pictures())
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    assert len({tensors_after_a_call() for _ in range(3)}) == 1


# --- clear errors


@pytest.mark.parametrize("layer", ["blocks.1.norm2", "blocks.1", "norm"])
def test_vit_layer_behind_the_last_attention(layer):
    model = vit()
    with pytest.raises(ValueError, match=r"gradient is zero.*before the last attention"):
        grad_cam(model, at(model, layer), pictures(2, 32, 32))


def test_layer_whose_output_is_cut_off(net):
    net.relu.forward = lambda x: x.detach()
    with pytest.raises(ValueError, match="gradient is zero"):
        grad_cam(net.requires_grad_(False), net.conv2, pictures())


def test_saliency_without_a_gradient(net):
    net.conv1.forward = lambda x: torch.zeros(len(x), 6, 16, 16)
    with pytest.raises(ValueError, match="input gradient is zero"):
        saliency(net, pictures())


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("head", "no grid"),
        ("drop", "no grid"),
        ("relu", "ran 2 times"),
        ("extra", "ran 0 times"),
        ("lstm", "not a tensor"),
    ],
)
def test_layer_that_cannot_be_explained(layer, message):
    class Odd(Net):
        def __init__(self):
            super().__init__()
            self.extra, self.lstm = nn.Identity(), Dictionary()

        def forward(self, images):
            x = self.lstm(self.relu(self.conv2(self.relu(self.conv1(images)))))["x"]
            return self.head(self.drop(x.mean((2, 3), keepdim=True)).flatten(1))

    model = make(Odd)
    with pytest.raises(ValueError, match=message):
        grad_cam(model, at(model, layer), pictures())
    assert watch(model)[0] == watch(make(Odd))[0]


class Dictionary(nn.Module):
    def forward(self, x):
        return {"x": x}


@methods
@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (pictures() * 2, None, "must lie in \\[0, 1\\]"),
        (pictures() * torch.nan, None, "NaN"),
        (pictures()[0], None, "float \\(N, C, H, W\\)"),
        (pictures(), torch.tensor([0, 1, 2, 5]), "labels must lie in 0 .. 4"),
        (pictures(), torch.tensor([0, 1, 2]), "4 images but 3 labels"),
        (pictures(), torch.zeros(4), "int64"),
    ],
)
def test_wrong_arguments(net, method, images, labels, message):
    with pytest.raises(ValueError, match=message):
        method(net, images, labels)


@methods
def test_wrong_models(net, method):
    head = net.head.forward
    net.head.forward = lambda x: head(x)[:, :, None]
    with pytest.raises(ValueError, match="logits must be"):
        method(net, pictures())
    net.head.forward = lambda x: head(x).sub(head(x).detach()).sqrt()  # an infinite slope
    with pytest.raises(ValueError, match="NaN or infinite"):
        method(net, pictures(), torch.zeros(4, dtype=torch.int64))


def test_wrong_settings(net):
    with pytest.raises(ValueError, match="one number for each image"):
        saliency(net, pictures(), score=lambda logits, labels: logits)
    with pytest.raises(ValueError, match="needs 18 tokens"):
        grad_cam(model := vit(), model.blocks[1].norm1, pictures(2, 32, 32), tokens=Tokens(4, 4, 2))


# --- grids


@pytest.mark.parametrize(
    ("count", "size", "grid"),
    [
        (197, (224, 224), (14, 14, 1)),  # ViT-B/16
        (50, (224, 224), (7, 7, 1)),  # CLIP ViT-B/32
        (50, (32, 32), (7, 7, 1)),  # the same behind a resize in the model
        (198, (224, 224), (14, 14, 2)),  # distilled: class and teacher token
        (261, (224, 224), (16, 16, 5)),  # DINOv2 with registers
        (64, (32, 32), (8, 8, 0)),  # SimpleViT: none
        (25, (32, 48), (4, 6, 1)),
        (9, (32, 32), (2, 2, 5)),  # not 3 x 3: 32 pixels do not part in three
    ],
)
def test_token_grid_is_found(count, size, grid):
    assert find_tokens(count, *size) == grid


@pytest.mark.parametrize(("count", "size"), [(150, (224, 224)), (1, (32, 32)), (20, (32, 48))])
def test_token_grid_is_not_guessed(count, size):
    with pytest.raises(ValueError, match=f"{count} tokens are no grid"):
        find_tokens(count, *size)


def test_grid_of_each_layout():
    cells = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)  # (N, C, h, w)
    size = torch.Size([32, 48])
    tokens = cells.flatten(2).mT  # (N, T, C)
    prompts = torch.full((2, 7, 3), -1.0)
    assert torch.equal(as_grid(cells, size), cells)
    assert torch.equal(as_grid(tokens, size), cells)
    assert torch.equal(as_grid(torch.cat([prompts[:, :1], tokens], 1), size), cells)
    assert torch.equal(as_grid(torch.cat([prompts[:, :1], tokens, prompts], 1), size, Tokens(4, 6)), cells)
    wide = torch.rand(2, 4, 6, 32)  # (N, h, w, C)
    assert torch.equal(as_grid(wide, size), wide.movedim(-1, 1))


def test_swin_layer_equals_pytorch_grad_cam():
    swin = torchvision.models.swin_transformer.SwinTransformer
    model = make(swin, [4, 4], 8, [1, 1], [1, 1], [2, 2], num_classes=5)
    images, targets = pictures(2, 64, 64), torch.tensor([1, 4])
    expected = reference(GradCAM, model, "features.3", images, targets, lambda x: x.permute(0, 3, 1, 2))
    assert expected.std() > 0.05
    maps = scale_maps(grad_cam(model, model.features[3], images, targets))
    torch.testing.assert_close(maps, expected, atol=1e-5, rtol=0)
