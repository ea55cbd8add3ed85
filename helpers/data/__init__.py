"""A named set in, images in [0, 1] and labels out."""

from .batches import Batches, GaussianNoise, RandomCrop, RandomFlip, Resize, Transform
from .folders import DataError
from .images import ImageSet, check_labels, check_pixels, to_uint8
from .loading import data_root, load
from .views import RandomGain, RandomView

__all__ = [
    "Batches",
    "DataError",
    "GaussianNoise",
    "ImageSet",
    "RandomCrop",
    "RandomFlip",
    "RandomGain",
    "RandomView",
    "Resize",
    "Transform",
    "check_labels",
    "check_pixels",
    "data_root",
    "load",
    "to_uint8",
]
