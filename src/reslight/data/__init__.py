"""Datasets as Lightning data modules, with the settings that they take and the batches that they give.

The names are loaded when they are first asked for: whoever only decodes an image needs no Lightning.
"""

from typing import TYPE_CHECKING

from reslight.lazy import loader

if TYPE_CHECKING:
    from reslight.data.augment.augment import Augment
    from reslight.data.augment.mixup import Mix
    from reslight.data.cifar.cifar import CIFAR
    from reslight.data.datamodule import ImageDataModule
    from reslight.data.digits import Digits
    from reslight.data.image_folder.folder import Folder
    from reslight.data.image_folder.training_crop import Crop
    from reslight.data.imagenet.imagenet import ImageNet
    from reslight.data.loading.loaders import BatchPlan
    from reslight.data.loading.split import Batch, Split
    from reslight.data.stream.stream import Stream
    from reslight.data.synthetic import Synthetic, SyntheticImages

_HOMES = {
    "Augment": "reslight.data.augment.augment",
    "Mix": "reslight.data.augment.mixup",
    "CIFAR": "reslight.data.cifar.cifar",
    "ImageDataModule": "reslight.data.datamodule",
    "Digits": "reslight.data.digits",
    "Crop": "reslight.data.image_folder.training_crop",
    "Folder": "reslight.data.image_folder.folder",
    "ImageNet": "reslight.data.imagenet.imagenet",
    "BatchPlan": "reslight.data.loading.loaders",
    "Batch": "reslight.data.loading.split",
    "Split": "reslight.data.loading.split",
    "Stream": "reslight.data.stream.stream",
    "Synthetic": "reslight.data.synthetic",
    "SyntheticImages": "reslight.data.synthetic",
}

DATASETS = ("CIFAR", "Digits", "Folder", "ImageNet", "Stream", "Synthetic")
"""The datasets that the setting `data` can be by a bare name."""

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
    "Stream",
    "Synthetic",
    "SyntheticImages",
]

__getattr__ = loader(__name__, _HOMES)


def __dir__() -> list[str]:
    """Names for completion."""
    return list(__all__)
