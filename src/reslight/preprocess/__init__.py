"""The preprocessing of images that belongs to weights: `Preprocess`, and the steps that data modules share with it."""

from reslight.preprocess.normalize import Normalizer, network_format
from reslight.preprocess.preprocess import Preprocess
from reslight.preprocess.resize import Fit, Fitting, Interpolation, Size, center_to, fit, middle, resize_tensor, shape_of

__all__ = [
    "Fit",
    "Fitting",
    "Interpolation",
    "Normalizer",
    "Preprocess",
    "Size",
    "center_to",
    "fit",
    "middle",
    "network_format",
    "resize_tensor",
    "shape_of",
]
