"""The toy world: small labelled scenes drawn in memory, so that everything runs in seconds and without a network.

One object (shape, texture, colour) lies on one of four grounds. Shape x texture is the coarse class (20), with the
colour it is the fine class (100). Position, size, rotation, ground and shading are nuisance. The object's mask is
known, and each scene has an English and a Persian caption that name what is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Generator, Tensor

from .images import ImageSet

# English word: Persian word. The order is the numbering of the classes.
SHAPES = {"circle": "دایره", "square": "مربع", "triangle": "مثلث", "star": "ستاره", "cross": "صلیب"}
TEXTURES = {"plain": "ساده", "striped": "راه‌راه", "dotted": "خال‌خالی", "checkered": "شطرنجی"}
COLOURS = {"red": "قرمز", "yellow": "زرد", "blue": "آبی", "purple": "بنفش", "white": "سفید"}
SIZES = {"small": "کوچک", "large": "بزرگ"}
SIDES = {"left": "چپ", "middle": "وسط", "right": "راست"}
GROUNDS = {"grass": "چمن", "sand": "شن", "sea": "دریا", "night": "شب"}

COLOUR_RGB = torch.tensor(
    [[0.90, 0.12, 0.12], [0.98, 0.85, 0.10], [0.12, 0.25, 0.95], [0.65, 0.15, 0.80], [0.97, 0.97, 0.97]]
)
GROUND_RGB = torch.tensor([[0.25, 0.45, 0.22], [0.66, 0.58, 0.42], [0.20, 0.45, 0.50], [0.10, 0.10, 0.16]])
FINE = tuple(" ".join(words) for words in product(COLOURS, TEXTURES, SHAPES))  # "red striped circle": 100 classes
COARSE = tuple(" ".join(words) for words in product(TEXTURES, SHAPES))  # "striped circle": 20 classes

# Transfer: two halves of the fine classes, as the squares of a chessboard are white or black. Every shape, texture and
# colour, and every pair of two of them, is found in both; no class is.
SQUARES = [sum(place) % 2 for place in product(range(len(COLOURS)), range(len(TEXTURES)), range(len(SHAPES)))]
HALVES = {
    name: [number for number, square in enumerate(SQUARES) if square == half]
    for half, name in enumerate(("toy-source", "toy-flowers"))
}
SETS = {"toy": FINE, "toy-coarse": COARSE} | {name: tuple(FINE[n] for n in half) for name, half in HALVES.items()}
SPLITS = {"train": (8_000, 1), "val": (1_000, 2), "test": (2_000, 3)}  # examples, seed
OWN_SPLITS = {
    "toy-source": {"train": (8_000, 4), "val": (1_000, 5), "test": (2_000, 6)},
    "toy-flowers": {"train": (500, 7), "val": (500, 8), "test": (2_000, 9)},  # 10 a class to learn from, as Flowers-102
}


@dataclass(frozen=True, eq=False)
class Scenes:
    """Drawn scenes: `images` uint8 `(N, 3, S, S)`, `masks` bool `(N, S, S)`, and an int64 `(N,)` for each attribute."""

    images: Tensor
    masks: Tensor
    attributes: dict[str, Tensor]

    @property
    def coarse(self) -> Tensor:
        """Class in `COARSE`, int64 `(N,)`."""
        return self.attributes["texture"] * len(SHAPES) + self.attributes["shape"]

    @property
    def fine(self) -> Tensor:
        """Class in `FINE`, int64 `(N,)`."""
        return self.attributes["colour"] * len(COARSE) + self.coarse

    def captions(self, language: str = "fa") -> list[str]:
        """One caption a scene, `"fa"` or `"en"`."""
        word = _english if language == "en" else _persian
        return [word(*row) for row in zip(*(self.attributes[key].tolist() for key in WORDS), strict=True)]


WORDS = {"shape": SHAPES, "texture": TEXTURES, "colour": COLOURS, "size": SIZES, "side": SIDES, "ground": GROUNDS}


def _english(*numbers: int) -> str:
    shape, texture, colour, size, side, ground = (
        list(words)[n] for words, n in zip(WORDS.values(), numbers, strict=True)
    )
    return f"a {size} {colour} {texture} {shape} on the {side} over {ground}"


def _persian(*numbers: int) -> str:
    shape, texture, colour, size, side, ground = (
        list(words.values())[n] for words, n in zip(WORDS.values(), numbers, strict=True)
    )
    return f"یک {shape} {texture} {colour} {size} در {side} روی {ground}"


def load(name: str, split: str, size: int = 32) -> ImageSet:
    """One of `SETS`: `"toy"` (100 classes), `"toy-coarse"` (20), or for transfer `"toy-source"` and `"toy-flowers"`
    (50 each, none in both); each split has a seed of its own.
    """
    splits = OWN_SPLITS.get(name, SPLITS)
    if split not in splits:
        raise ValueError(f"the toy world has the splits {', '.join(splits)}, not {split!r}")
    count, seed = splits[split]
    half = HALVES.get(name, range(len(FINE)))
    scenes = draw(count, size, seed, half)
    labels = scenes.coarse if name == "toy-coarse" else torch.searchsorted(torch.tensor(half), scenes.fine)
    return ImageSet(scenes.images, labels, SETS[name], name, split, f"drawn, seed {seed}", scenes.masks)


def draw(count: int, size: int = 32, seed: int = 0, classes: Sequence[int] = range(len(FINE))) -> Scenes:
    """Draw `count` scenes of `size` x `size` pixels; same seed, same scenes.

    Each of `classes` (numbers in `FINE`, ascending; all of them by default) has an equal share.
    """
    generator = torch.Generator().manual_seed(seed)
    turn = torch.arange(count).remainder(len(classes))[torch.randperm(count, generator=generator)]
    fine = torch.tensor(classes)[turn]
    attributes = {
        "shape": fine % len(SHAPES),
        "texture": fine // len(SHAPES) % len(TEXTURES),
        "colour": fine // len(COARSE),
        "ground": torch.randint(len(GROUNDS), (count,), generator=generator),
    }
    place = torch.rand(count, 5, generator=generator)  # radius, x, y, angle, phase: each uniform in [0, 1)
    attributes["size"] = (place[:, 0] > 0.5).long()
    attributes["side"] = (place[:, 1] * len(SIDES)).long()
    parts = [
        _paint({key: value[rows] for key, value in attributes.items()}, place[rows], size, generator)
        for rows in torch.arange(count).split(512)
    ]
    images, masks = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return Scenes(images, masks, attributes)


def _paint(attributes: dict[str, Tensor], place: Tensor, size: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Images uint8 `(N, 3, S, S)` and masks bool `(N, S, S)` of one chunk."""
    u, v, radius = _object_frame(place, size)
    coverage = (0.5 - _signed_distance(u, v, attributes["shape"]) * radius).clamp_(0, 1)  # (N, S, S), soft at the edge
    ink = _texture(u * radius, v * radius, attributes["texture"], size, place[:, 4])[:, None]  # (N, 1, S, S)
    light = 0.85 + 0.15 * torch.rand(len(place), 1, 1, 1, generator=generator)
    colour = COLOUR_RGB[attributes["colour"]][:, :, None, None] * light  # (N, 3, 1, 1)
    figure = colour * (0.25 + 0.75 * ink)
    ground = _ground(attributes["ground"], size, generator)
    image = torch.lerp(ground, figure, coverage[:, None])
    return (image.clamp_(0, 1) * 255).round_().to(torch.uint8), coverage > 0.5


def _object_frame(place: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates `(N, S, S)` from the object's centre, turned with it, in radii; the radius `(N, 1, 1)` in pixels."""
    radius, x, y, angle = (column[:, None, None] for column in place[:, :4].T)
    radius = size * (0.22 + 0.16 * radius)
    grid = torch.arange(size) + 0.5
    reach = size - 1.5 * radius  # the centre's range: the object may touch the border, not leave
    dx = grid[None, None, :] - (size / 2 + (x - 0.5) * reach)
    dy = grid[None, :, None] - (size / 2 + (y - 0.5) * reach)
    angle = (angle - 0.5) * 0.6  # radians, up to 17 degrees either way
    return (dx * angle.cos() + dy * angle.sin()) / radius, (dy * angle.cos() - dx * angle.sin()) / radius, radius


def _signed_distance(u: Tensor, v: Tensor, shape: Tensor) -> Tensor:
    """Distance to the outline in radii, negative inside, `(N, S, S)`; each row asks for its own shape."""
    out = torch.empty_like(u)
    for number, distance in enumerate(OUTLINES):
        rows = shape == number
        out[rows] = distance(u[rows], v[rows])
    return out


def _star(u: Tensor, v: Tensor) -> Tensor:
    return torch.hypot(u, v) - (0.68 + 0.32 * torch.cos(5 * torch.atan2(u, -v)))


def _cross(u: Tensor, v: Tensor) -> Tensor:
    u, v = u.abs(), v.abs()
    return torch.minimum(torch.maximum(u - 0.34, v - 1), torch.maximum(u - 1, v - 0.34))


OUTLINES: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    lambda u, v: torch.hypot(u, v) - 0.9,
    lambda u, v: torch.maximum(u.abs(), v.abs()) - 0.8,
    lambda u, v: torch.maximum(v, 0.866 * u.abs() - 0.5 * v) - 0.55,
    _star,
    _cross,
)


def _texture(x: Tensor, y: Tensor, texture: Tensor, size: int, phase: Tensor) -> Tensor:
    """How light the object is, 0 to 1, `(N, S, S)`; `x`, `y` in pixels from its centre."""
    wave = 2 * torch.pi / (size * 0.16)  # one period: 5 pixels of 32
    a = torch.sin(wave * x + 2 * torch.pi * phase[:, None, None])
    b = torch.sin(wave * y)
    kinds = (lambda a, b: torch.ones_like(a), lambda a, b: a, lambda a, b: 0.6 - a * a - b * b, lambda a, b: 3 * a * b)
    out = torch.empty_like(x)
    for number, kind in enumerate(kinds):
        rows = texture == number
        out[rows] = (0.5 + 2 * kind(a[rows], b[rows])).clamp_(0, 1)
    return out


def _ground(ground: Tensor, size: int, generator: Generator) -> Tensor:
    """A shaded, grainy ground, `(N, 3, S, S)`."""
    n = len(ground)
    patches = torch.rand(n, 1, 4, 4, generator=generator)
    shade = torch.nn.functional.interpolate(patches, size=(size, size), mode="bilinear")  # (N, 1, S, S)
    grain = torch.randn(n, 1, size, size, generator=generator) * 0.02
    return GROUND_RGB[ground][:, :, None, None] * (0.75 + 0.5 * shade) + grain
