"""Networks and layers that torchvision, timm and transformers do not have."""

from .normalize import Normalize, normalized
from .resnet import resnet18

__all__ = ["Normalize", "normalized", "resnet18"]
