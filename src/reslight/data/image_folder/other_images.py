"""Images elsewhere than those of training, for a trained network: to evaluate it, or to predict their classes."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from reslight.data.image_folder.folder import Folder
from reslight.data.image_folder.image_set import find_image_set
from reslight.data.image_folder.pictures import find_pictures
from reslight.data.image_folder.splits import ImageSet, LabelledImages, SplitName
from reslight.data.image_folder.trained_classes import matched
from reslight.data.loading.encoded import Files
from reslight.messages import UsageError, counted

log = logging.getLogger(__name__)


class EvaluationFolder(Folder):
    """Images to evaluate a trained network on, whose classes are found by the network's names of them.

    The root is read as by `Folder`, but it may lack training images, classes and splits. Images without splits are all evaluated, by
    `validate` as by `test`. A root with the images of training, such as a copy, has the splits that it had in training.

    Args:
        root: Folder of the images, or OWNER/DATASET[@REVISION] on the Hub.
        classes: Names of the network's classes, in its order.
        trained_on: What identifies the contents of the training images, see `Images.content`. If it is not known (None),
            training images in root are taken for them.

    Attributes:
        is_unsplit: Whether the root has images in no split, which are all evaluated.
        is_of_training: Whether the root has the images of training; false if these are not known.

    Raises:
        OSError: a missing folder, or one that cannot be opened.
        UsageError: a setting that is out of range, folders in another layout, or classes that the network does not know.
    """

    def __init__(self, root: str, classes: Sequence[str], *, trained_on: str | None = None, **settings: Any) -> None:
        self._classes, self._trained_on = tuple(classes), trained_on
        self.is_unsplit = self.is_of_training = False
        super().__init__(root, **settings)

    def find_images(self) -> ImageSet:
        """Return all images with classes of their own."""
        return find_image_set(self.root, self.label_file, self.labels_columns, partial=True)

    def find_image_set(self) -> ImageSet:
        """Return the splits to evaluate, with the network's classes; for a copy of the training images its training split, too."""
        found = self.find_images()
        train, skips = found.splits.get("train"), self.on_unknown_class == "skip"
        if train is not None and self._trained_on in (None, train.content):
            self.is_of_training = self._trained_on is not None
            return matched(found, self._classes, self.root, skips=skips)
        self.fold = self._fold = None
        splits: dict[SplitName, LabelledImages] = {name: images for name, images in found.splits.items() if name != "train"}
        if train is not None and not splits:
            log.info("data.root is %s: it is not split, so that all its images are evaluated", self.root)
            self.is_unsplit, splits = True, {"test": train}
        found = matched(replace(found, splits=splits), self._classes, self.root, skips=skips)
        splits = dict(found.splits)
        if train is not None and splits.keys() == {"test"} and train.images is splits["test"].images:
            splits["val"] = splits["test"]
        return replace(found, splits=splits)

    def class_names(self) -> tuple[str, ...]:
        """Return the network's names of the classes."""
        return self._classes

    @property
    def has_validation(self) -> bool:
        """Whether there are validation images."""
        return "val" in self._image_set.splits or ("train" in self._image_set.splits and super().has_validation)

    def setup(self, stage: str | None = None) -> None:
        """Prepare the images of a stage.

        Raises:
            UsageError: no images for the stage.
        """
        splits = self._image_set.splits
        if stage == "validate" and not self.has_validation:
            raise UsageError(f"data.root is {self.root}: it has no validation images. Add the folder val, or use `reslight test`.")
        super().setup(stage)
        if stage in ("validate", "test") and "train" not in splits:
            split = self._splits["val" if stage == "validate" else "test"]
            log.info("data   %s: %s, fingerprint %s", self.root, counted(len(split), "image"), split.fingerprint[:12])

    def data_info(self) -> dict[str, Any]:
        """Return what `Folder.data_info` does, and the folder of the images."""
        return super().data_info() | {"root": self.root}


class Pictures(Folder):
    """Images to predict: files, and images in folders at any depth. They need no labels, and those that cannot be read are skipped.

    Args:
        paths: The files and folders.
        classes: Names of the network's classes, in its order. The label of an image in a folder that is named after one is known.
        multi_label: Whether the network has several labels of each image; a folder's name then tells none.

    Raises:
        OSError: a missing file or folder, or one that cannot be opened.
        UsageError: a setting that is out of range, or no images.
    """

    def __init__(self, paths: Sequence[str | Path], classes: Sequence[str], *, multi_label: bool = False, **settings: Any) -> None:
        self._paths, self._classes, self._multi_label = [Path(path).expanduser() for path in paths], tuple(classes), multi_label
        super().__init__(str(self._paths[0]) if self._paths else "", **settings)

    def find_image_set(self) -> ImageSet:
        """Return the images, in no split."""
        self.fold = self._fold = None
        paths, labels, left_out = find_pictures(self._paths, () if self._multi_label else self._classes)
        if left_out:
            log.info("left out: %s without an image extension", counted(left_out, "file"))
        return ImageSet(self._classes, {}, unlabelled=LabelledImages.unlabelled(Files(paths), paths.relative(), labels))

    def class_names(self) -> tuple[str, ...]:
        """Return the network's names of the classes."""
        return self._classes

    @property
    def multi_label(self) -> bool:
        """Whether the network has several labels of each image."""
        return self._multi_label
