"""Classifiers that see an image through views of it and average what they say."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

View = Callable[[Tensor, Tensor], Tensor]  # images (N, C, n, n), gazes (N, G, 2) -> views (N, G, C', k, k)


def averaged(network: nn.Module, views: Tensor) -> Tensor:
    """Logits `(N, classes)` of `network`, the mean over the views `(N, G, C, k, k)` of each image, in one batch."""
    return network(views.flatten(0, 1)).unflatten(0, views.shape[:2]).mean(1)


class Gazing(nn.Module):
    """A network behind a view: one random gaze an image while it learns, fixed gazes with averaged logits in eval mode.

    Images in [0, 1] in, logits out, so that an attack goes through the view and the average untouched.

    Args:
        network: takes a view.
        view: such as `retina.look`, `fixations.crops` or `fixations.pyramid` with its options bound.
        reach: random gazes are uniform whole pixels from `-reach` to `reach - 1` on each axis.
        gazes: `(G, 2)`, those of eval mode.
    """

    def __init__(self, network: nn.Module, view: View, reach: int, gazes: Tensor) -> None:
        super().__init__()
        self.network, self.view, self.reach = network, view, reach
        self.register_buffer("gazes", gazes, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            drawn = random_gazes(len(images), self.reach, images.device)
            return averaged(self.network, self.view(images, drawn))
        return averaged(self.network, self.view(images, self.gazes))


class RandomGazing(nn.Module):
    """The network of a `Gazing` that draws its gazes anew for every image and every forward pass, in eval mode too.

    Its answer is random, so its gradient is: attack it with `attacks.EOT`.

    Args:
        gazing: whose network, view and reach are used.
        generator: where the gazes come from; None is torch's global one.
        count: how many gazes a pass averages.
    """

    def __init__(self, gazing: Gazing, generator: Generator | None = None, count: int = 1) -> None:
        super().__init__()
        self.gazing, self.generator, self.count = gazing, generator, count

    def forward(self, images: Tensor) -> Tensor:
        gazing = self.gazing
        drawn = random_gazes(len(images), gazing.reach, images.device, self.generator, self.count)
        return averaged(gazing.network, gazing.view(images, drawn))


def random_gazes(
    count: int, reach: int, device: torch.device | str = "cpu", generator: Generator | None = None, views: int = 1
) -> Tensor:
    """`(count, views, 2)` gazes of whole pixels, uniform from `-reach` to `reach - 1`, as in the paper's training."""
    made_on = generator.device if generator else device
    drawn = torch.randint(-reach, reach, (count, views, 2), device=made_on, generator=generator)
    return drawn.to(device, torch.float32)
