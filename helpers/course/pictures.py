"""PNG pictures that a repository can carry."""

from __future__ import annotations

import io

from PIL import Image

LARGE = 150_000  # bytes; above it a picture holds photographs, which 256 colours and dithering show well enough


def compact(png: bytes) -> bytes:
    """A PNG without its fourth channel, which says of every pixel of a figure that it is opaque.

    The pixels stay what they are, but in a picture that is still `LARGE`: it gets a palette of 256 colours. What has
    transparent pixels, is broken, or would not be smaller stays as it is.
    """
    try:
        image = Image.open(io.BytesIO(png))
        image.load()
    except (OSError, ValueError):
        return png
    if image.mode == "RGBA" and image.getextrema()[3] == (255, 255):
        image = image.convert("RGB")
    smaller = min(_saved(image), png, key=len) if image.mode == "RGB" else png
    if image.mode == "RGB" and len(smaller) > LARGE:
        palette = image.quantize(256, kmeans=1)  # without k-means the palest yellow of a heat map turns beige
        smaller = min(_saved(palette), smaller, key=len)
    return smaller


def _saved(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "png", optimize=True)
    return file.getvalue()
