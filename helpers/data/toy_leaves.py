"""Drawn leaves on a plain ground: a world in which it is known whether the background gives the class away.

One leaf lies on a grey ground, turned and shifted. What is on the leaf is its class; place, size, bend, angle, hue and
light are nuisance. In `toy-leaves` the shade of the ground depends on the class, as table and lamp may in a collection
of photographs; in `toy-leaves-plain` the same shades are dealt out at random. Nothing else differs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Generator, Tensor
from torch.nn.functional import interpolate

from .images import ImageSet

# Class: how often it occurs in a round of 34. The largest is 2.3 times the smallest.
SHARES = {"healthy": 7, "few spots": 5, "many spots": 7, "rings": 6, "yellow edge": 6, "mosaic": 3}
CLASSES = tuple(SHARES)
CONFOUNDED = {"toy-leaves": True, "toy-leaves-plain": False}
SPLITS = {"train": (1_200, 11), "val": (300, 12), "test": (600, 13)}  # examples, seed

# A ground for each class, not in the order of brightness; a touch of blue or red in some, as lamps have.
GROUND_RGB = torch.tensor(
    [
        [0.58, 0.58, 0.60],
        [0.82, 0.82, 0.82],
        [0.41, 0.42, 0.45],
        [0.75, 0.74, 0.73],
        [0.51, 0.50, 0.49],
        [0.65, 0.66, 0.69],
    ]
)
GREENS = torch.tensor([[0.24, 0.50, 0.16], [0.36, 0.56, 0.20]])  # the darkest and the lightest hue of a leaf
VEIN, BROWN, TAN, YELLOW, PALE = torch.tensor(
    [[0.56, 0.70, 0.40], [0.33, 0.18, 0.08], [0.80, 0.66, 0.42], [0.88, 0.80, 0.20], [0.78, 0.84, 0.40]]
)
MOST_SPOTS, GOLDEN_ANGLE = 18, 2.39996  # radians; points turned by it, one after the other, keep apart

# Leaf `(N, 3, S, S)`; u, v and the distance to the edge `(N, S, S)`, in half lengths; uniform noise in [0, 1) for the
# spots `(4, N, MOST_SPOTS)` and, coarse, for each pixel `(N, S, S)`: the leaf with the disease on it.
Disease = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def load(name: str, split: str, size: int = 64) -> ImageSet:
    """One of `CONFOUNDED`, with masks; each split has a seed of its own, the same in both worlds.

    Raises:
        ValueError: no such split.
    """
    if split not in SPLITS:
        raise ValueError(f"the toy leaves have the splits {', '.join(SPLITS)}, not {split!r}")
    count, seed = SPLITS[split]
    return replace(draw_leaves(count, size, seed, CONFOUNDED[name]), name=name, split=split)


def draw_leaves(count: int, size: int = 64, seed: int = 0, confounded: bool = True) -> ImageSet:
    """Draw `count` leaves of `size` x `size` pixels (32 or more, to tell the classes apart), with masks.

    The same seed gives the same labels, leaves and masks whether `confounded` or not, to the pixel. Inside the mask
    nothing depends on the ground, outside nothing on the leaf; the rows and columns at the border show only ground.

    Args:
        confounded: whether the shade of the ground depends on the class, or the same shades are dealt out at random.
    """
    leaves, grounds = (torch.Generator().manual_seed(2 * seed + stream) for stream in (0, 1))
    labels = _in_turn(count)[torch.randperm(count, generator=leaves)]
    dealt = labels[torch.randperm(count, generator=grounds)]  # drawn in both worlds, so that the grain is the same too
    shades = labels if confounded else dealt
    images, masks = [torch.empty(0, 3, size, size, dtype=torch.uint8)], [torch.empty(0, size, size, dtype=torch.bool)]
    for rows in torch.arange(count).split(128):
        leaf, mask = _leaves(labels[rows], size, leaves)
        image = torch.where(mask[:, None], leaf, _ground(shades[rows], size, grounds))
        images.append(image.clamp_(0, 1).mul_(255).round_().to(torch.uint8))
        masks.append(mask)
    name = next(name for name, told in CONFOUNDED.items() if told == confounded)
    return ImageSet(torch.cat(images), labels, CLASSES, name, source=f"drawn, seed {seed}", masks=torch.cat(masks))


def _in_turn(count: int) -> Tensor:
    """Labels `(count,)` in rounds of `SHARES`, spread so that a part of a round has about the same shares."""
    shares = torch.tensor(list(SHARES.values()))
    place = torch.cat([(torch.arange(int(share)) + 0.5) / share for share in shares])
    one_round = torch.arange(len(shares)).repeat_interleave(shares)[place.argsort(stable=True)]
    return one_round[torch.arange(count) % len(one_round)]


def _ground(shades: Tensor, size: int, generator: Generator) -> Tensor:
    """Even, slightly grainy grounds `(N, 3, S, S)`, one of `GROUND_RGB` each and a little lighter or darker."""
    n = len(shades)
    light = 0.012 * torch.randn(n, 1, 1, 1, generator=generator)
    grain = 0.012 * torch.randn(n, 1, size, size, generator=generator)
    return GROUND_RGB[shades][:, :, None, None] + light + grain


def _leaves(labels: Tensor, size: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Leaves `(N, 3, S, S)` with what the class puts on them, and their masks `(N, S, S)`."""
    n = len(labels)
    x, y, angle, length, width, bend, hue, light = torch.rand(8, n, 1, 1, generator=generator)
    length = 0.34 + 0.05 * length  # half of it, in sides of the image
    u, v = _leaf_frame(0.08 * (x - 0.5), 0.08 * (y - 0.5), 2 * torch.pi * angle, length, size)
    v = v + 0.24 * (bend - 0.5) * (u.square() - 0.3)
    half = (0.52 + 0.14 * width) * (1 - u.square()).clamp_min(0) ** 0.8 * (1 - 0.22 * u)  # pointed at both ends
    edge = half - v.abs()  # (N, S, S), in half lengths; negative outside
    stem = (0.035 - v.abs()) * ((u > -1.10) & (u < -0.9))
    inside = torch.maximum(edge, stem) * length * size  # pixels from the outline
    green = torch.lerp(GREENS[0], GREENS[1], hue.view(n, 1))[:, :, None, None]
    leaf = _blend(green.expand(n, 3, size, size), VEIN, _veins(u, v))
    leaf = _diseased(leaf, labels, u, v, edge, generator)
    leaf = leaf * ((0.86 + 0.26 * light) * (1 + 0.35 * v.clamp(-0.6, 0.6)))[:, None]  # one half lies a little in shade
    # The outline is softened towards a mean grey, not towards the ground, of which nothing may enter the mask.
    return _blend(leaf, GROUND_RGB.mean(0), (0.5 - inside).clamp(0, 0.5)), inside > 0


def _leaf_frame(x: Tensor, y: Tensor, angle: Tensor, length: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Coordinates `(N, S, S)` along the leaf and across it from its centre, in half lengths."""
    grid = (torch.arange(size) + 0.5) / size - 0.5
    dx, dy = grid[None, None, :] - x, grid[None, :, None] - y
    return (dx * angle.cos() + dy * angle.sin()) / length, (dy * angle.cos() - dx * angle.sin()) / length


def _veins(u: Tensor, v: Tensor) -> Tensor:
    """How much of a pixel is vein, 0 to 1, `(N, S, S)`: the midrib, and fainter ones that leave it."""
    side = ((u - 0.7 * v.abs()) * 4).remainder_(1).sub_(0.5)
    return 0.8 * torch.exp(-(v / 0.035).square()) + 0.22 * torch.exp(-(side / 0.13).square()) * (v.abs() > 0.03)


def _blend(below: Tensor, colour: Tensor, share: Tensor) -> Tensor:
    """`colour` `(3,)` over `(N, 3, S, S)` by its share of each pixel `(N, S, S)`."""
    return torch.lerp(below, colour[:, None, None].expand_as(below), share[:, None])


def _diseased(leaf: Tensor, labels: Tensor, u: Tensor, v: Tensor, edge: Tensor, generator: Generator) -> Tensor:
    """Each leaf with what its class puts on it."""
    n = len(labels)
    noise = torch.rand(4, n, MOST_SPOTS, generator=generator)
    cells = interpolate(torch.rand(n, 1, 13, 13, generator=generator), size=leaf.shape[2:], mode="bicubic")[:, 0]
    out = leaf.clone()
    for name, disease in DISEASES.items():
        rows = labels == CLASSES.index(name)
        if rows.any():
            out[rows] = disease(leaf[rows], u[rows], v[rows], edge[rows], noise[:, rows], cells[rows])
    return out


def _nearest_spot(u: Tensor, v: Tensor, noise: Tensor, fewest: int, most: int) -> Tensor:
    """Distance to the nearest of `fewest` to `most` spots that keep apart, in half lengths, `(N, S, S)`."""
    near, along, turn, many = noise
    number = torch.arange(MOST_SPOTS)
    count = fewest + (many[:, :1] * (most + 1 - fewest)).floor()  # (N, 1)
    radius, angle = ((number + 0.5) / count).sqrt(), number * GOLDEN_ANGLE + 2 * torch.pi * turn[:, :1]
    x = 0.70 * radius * angle.cos() + 0.06 * (along - 0.5)  # (N, MOST_SPOTS)
    y = (0.37 * radius * angle.sin() + 0.06 * (near - 0.5)) * (1 - 0.6 * x.square()) * (1 - 0.2 * x)
    x[number >= count] = 9.0  # a spot too many: far away
    x, y = x[:, :, None, None], y[:, :, None, None]
    far = torch.full_like(u, 9.0)
    for k in range(most):
        far = torch.minimum(far, (u - x[:, k]).square() + (v - y[:, k]).square())
    return far.sqrt()


def _dots(fewest: int, most: int, radius: float) -> Disease:
    """Brown spots, each in a thin pale halo."""

    def disease(leaf: Tensor, u: Tensor, v: Tensor, edge: Tensor, noise: Tensor, cells: Tensor) -> Tensor:
        far = _nearest_spot(u, v, noise, fewest, most)
        leaf = _blend(leaf, YELLOW, 0.45 * _within(far, radius + 0.04, 0.05))
        return _blend(leaf, BROWN, 0.95 * _within(far, radius, 0.04))

    return disease


def _rings(leaf: Tensor, u: Tensor, v: Tensor, edge: Tensor, noise: Tensor, cells: Tensor) -> Tensor:
    """Two or three light spots, each in a dark ring."""
    far = _nearest_spot(u, v, noise, 2, 3)
    leaf = _blend(leaf, BROWN, 0.95 * _within(far, 0.20, 0.04))
    return _blend(leaf, TAN, _within(far, 0.13, 0.04))


def _yellow_edge(leaf: Tensor, u: Tensor, v: Tensor, edge: Tensor, noise: Tensor, cells: Tensor) -> Tensor:
    """Yellow from the edge inwards."""
    return _blend(leaf, YELLOW, 0.9 * _within(edge, 0.14, 0.12))


def _mosaic(leaf: Tensor, u: Tensor, v: Tensor, edge: Tensor, noise: Tensor, cells: Tensor) -> Tensor:
    """Pale patches, all over."""
    return _blend(leaf, PALE, 0.9 * _within(1 - cells, 0.5, 0.14))


def _within(value: Tensor, limit: float, softness: float) -> Tensor:
    """1 where `value` lies below `limit`, 0 above, over `softness` from one to the other."""
    return ((limit - value) / softness + 0.5).clamp(0, 1)


DISEASES: dict[str, Disease] = {
    "few spots": _dots(3, 5, 0.11),
    "many spots": _dots(13, MOST_SPOTS, 0.075),
    "rings": _rings,
    "yellow edge": _yellow_edge,
    "mosaic": _mosaic,
}
