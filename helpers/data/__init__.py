"""A named set in, images in [0, 1] and labels out."""

from .batches import Batches, GaussianNoise, RandomCrop, RandomFlip, Resize, Transform
from .folders import DataError
from .images import ImageSet
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
    "data_root",
    "load",
]
