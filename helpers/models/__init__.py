"""Networks and layers that torchvision, timm and transformers do not have."""

from .normalize import Normalize, normalized
from .resnet import resnet18
from .small import small_cnn

__all__ = ["Normalize", "normalized", "resnet18", "small_cnn"]
