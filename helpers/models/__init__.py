"""Networks and layers that torchvision, timm and transformers do not have."""

from .normalize import Normalize, normalized
from .resnet import resnet18
from .saved import Saved, load_model, save_model
from .scene_nets import CustomNet, CustomNet2, MyNet, SimpleNet
from .simple_vit import SimpleViT
from .small import small_cnn

__all__ = [
    "CustomNet",
    "CustomNet2",
    "MyNet",
    "Normalize",
    "Saved",
    "SimpleNet",
    "SimpleViT",
    "load_model",
    "normalized",
    "resnet18",
    "save_model",
    "small_cnn",
]
