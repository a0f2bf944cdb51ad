"""Images elsewhere than those of training, for a network that was trained on ImageNet, such as ImageNet-V2 or ImageNet-A."""

from dataclasses import replace
from pathlib import Path

from reslight.data.image_folder.other_images import EvaluationFolder
from reslight.data.image_folder.splits import ImageSet
from reslight.data.imagenet.synsets import names_of


class ImageNetEvaluation(EvaluationFolder):
    """Images in folders that are named after synsets. As in `ImageNet`, those of `val` are the test images.

    Args:
        root: Folder of the images, or OWNER/DATASET[@REVISION] on the Hub.
        classes: Names of the network's classes, in its order.
        trained_on: What identifies the contents of the training images, see `EvaluationFolder`.

    Raises:
        OSError: a missing folder, or one that cannot be opened.
        UsageError: a setting that is out of range, folders in another layout, or classes that the network does not know.
    """

    def find_images(self) -> ImageSet:
        """Return the images with the names of their synsets as classes."""
        found = super().find_images()
        splits = dict(found.splits)
        if "val" in splits:
            splits["test"] = splits.pop("val")
        return replace(found, classes=names_of(found.classes, Path(self.root).expanduser()), splits=splits)
