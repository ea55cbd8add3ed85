"""Convolution by hand: unfold, multiply, fold."""

from .function import Convolve, CustomConv2d, ToImages, ToWeight, conv2d

__all__ = ["Convolve", "CustomConv2d", "ToImages", "ToWeight", "conv2d"]
