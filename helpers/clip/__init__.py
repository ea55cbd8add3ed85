"""Zero-shot classification and its adaptation."""

from .zero_shot import (
    MAX_SCALE,
    PHOTO,
    Clip,
    ImageTower,
    InputSize,
    LearnedHead,
    ZeroShot,
    class_vectors,
    in_batch_floor,
    in_batch_loss,
    load_clip,
    save_clip,
    tecoa_loss,
)

__all__ = [
    "MAX_SCALE",
    "PHOTO",
    "Clip",
    "ImageTower",
    "InputSize",
    "LearnedHead",
    "ZeroShot",
    "class_vectors",
    "in_batch_floor",
    "in_batch_loss",
    "load_clip",
    "save_clip",
    "tecoa_loss",
]
