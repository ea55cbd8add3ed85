"""Where a network looks: the retinal warp, fixations, boxes, and heads that learn a gaze."""

from .boxes import box_corners, box_theta, transformed
from .fixations import crops, halved, pyramid, smoothed
from .heads import BoxHead, GazeHead, activity_penalty, diversity_penalty, saturation
from .retina import fixed_gazes, look, retina_fit, retina_grid
from .viewers import Gazing, RandomGazing, averaged, random_gazes

__all__ = [
    "BoxHead",
    "GazeHead",
    "Gazing",
    "RandomGazing",
    "activity_penalty",
    "averaged",
    "box_corners",
    "box_theta",
    "crops",
    "diversity_penalty",
    "fixed_gazes",
    "halved",
    "look",
    "pyramid",
    "random_gazes",
    "retina_fit",
    "retina_grid",
    "saturation",
    "smoothed",
    "transformed",
]
