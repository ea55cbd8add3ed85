"""Why does a model answer so? Maps over the image, what maps are worth, how sharp a minimum is."""

from .maps import class_logit, grad_cam, hires_cam, saliency, scale_maps

__all__ = ["class_logit", "grad_cam", "hires_cam", "saliency", "scale_maps"]
