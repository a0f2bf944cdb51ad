"""Data sets as Lightning data modules, and the pure functions they are made of."""

from reslight.data.augment import Augment
from reslight.data.cifar import CIFAR
from reslight.data.digits import Digits
from reslight.data.folder import Crop, Folder
from reslight.data.imagenet import ImageNet
from reslight.data.mix import Mix
from reslight.data.module import ImageDataModule
from reslight.data.resident import BatchPlan
from reslight.data.split import Batch, Split
from reslight.data.synthetic import Synthetic, SyntheticImages

__all__ = [
    "CIFAR",
    "Augment",
    "Batch",
    "BatchPlan",
    "Crop",
    "Digits",
    "Folder",
    "ImageDataModule",
    "ImageNet",
    "Mix",
    "Split",
    "Synthetic",
    "SyntheticImages",
]
