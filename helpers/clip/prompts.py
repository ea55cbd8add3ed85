"""Visual prompt tuning: the network stays as it is, and a little that is learned is put beside its input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class PromptedEmbeddings(nn.Module):
    """A vision transformer's embedding layer with `count` learned tokens after the patches, the same for all images.

    Shallow visual prompt tuning (Jia et al., arXiv 2203.12119), at the input layer only, as TeCoA uses it. The tokens
    have no position embedding. Goes in the place of `vision_model.embeddings`, whatever arguments that takes.

    Args:
        embeddings: images to tokens `(N, 1 + patches, D)`.
        count: how many prompts; width: D; std: of their first values, drawn from torch's global generator.
    """

    def __init__(self, embeddings: nn.Module, count: int, width: int, std: float = 0.02) -> None:
        super().__init__()
        if count < 1:
            raise ValueError(f"need one prompt or more, got {count}")
        self.embeddings = embeddings
        self.prompts = nn.Parameter(torch.randn(1, count, width) * std)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        tokens = self.embeddings(*args, **kwargs)  # (N, 1 + patches, D)
        return torch.cat([tokens, self.prompts.expand(len(tokens), -1, -1)], dim=1)  # (N, 1 + patches + count, D)


class PixelFrame(nn.Module):
    """Adds a learned frame of `width` pixels around images `(N, C, size, size)`; the inside is left alone.

    The image-level prompt of Bahng et al. (arXiv 2203.17274). It starts at 0, so that at first nothing changes. Put
    after resizing and before normalisation it counts in pixels of [0, 1]; it is the model's, so no budget limits it.
    """

    def __init__(self, size: int, width: int, channels: int = 3) -> None:
        super().__init__()
        if not 1 <= width <= size // 2:
            raise ValueError(f"the frame must be 1 to {size // 2} pixels wide for images of {size}, got {width}")
        self.size, self.width = size, width
        self.values = nn.Parameter(torch.zeros(channels, 4 * width * (size - width)))
        border = torch.ones(size, size, dtype=torch.bool)
        border[width : size - width, width : size - width] = False
        self.register_buffer("border", border, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        frame = images.new_zeros(images.shape[1:])  # (C, size, size)
        return images + frame.masked_scatter(self.border, self.values.to(frame.dtype))

    def extra_repr(self) -> str:
        return f"size={self.size}, width={self.width}"
