"""Two sets as one."""

from __future__ import annotations

from dataclasses import replace

import torch

from .images import ImageSet


def joined(first: ImageSet, second: ImageSet) -> ImageSet:
    """Both sets as one, with the classes of the first and then those of the second; masks are left out."""
    return replace(
        first,
        images=torch.cat([first.images, second.images]),
        labels=torch.cat([first.labels, second.labels + len(first.classes)]),
        classes=first.classes + second.classes,
        name=f"{first.name} + {second.name}",
        masks=None,
    )
