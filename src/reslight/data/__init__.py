"""Datasets as Lightning data modules, with the settings that they take and the batches that they give."""

from reslight.data.augment.augment import Augment
from reslight.data.augment.mixup import Mix
from reslight.data.cifar.cifar import CIFAR
from reslight.data.datamodule import ImageDataModule
from reslight.data.digits import Digits
from reslight.data.image_folder.folder import Crop, Folder
from reslight.data.imagenet.imagenet import ImageNet
from reslight.data.loading.loaders import BatchPlan
from reslight.data.loading.split import Batch, Split
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
