"""Networks and layers that torchvision, timm and transformers do not have."""

from .normalize import Normalize, normalized
from .resnet import resnet18
from .scene_nets import CustomNet, CustomNet2, MyNet, SimpleNet
from .simple_vit import SimpleViT
from .small import small_cnn

__all__ = [
    "CustomNet",
    "CustomNet2",
    "MyNet",
    "Normalize",
    "SimpleNet",
    "SimpleViT",
    "normalized",
    "resnet18",
    "small_cnn",
]
