"""`CIFAR`: CIFAR-10 and CIFAR-100, read from any of the formats that they come in, or downloaded."""

import logging
import os
from pathlib import Path
from typing import Any, Literal

import torch

from reslight.data.augment.augment import Augment
from reslight.data.cifar import archive, class_folders, parquet
from reslight.data.cifar.download import download
from reslight.data.cifar.metadata import ADJECTIVES, METADATA, SIZE, SplitName
from reslight.data.cifar.source import Source
from reslight.data.cifar.statistics import pixel_mean
from reslight.data.datamodule import ImageDataModule
from reslight.data.loading.cache import cached
from reslight.data.loading.split import Split
from reslight.messages import UsageError, shortened
from reslight.preprocess import Preprocess

log = logging.getLogger(__name__)

AUGMENT = Augment(pad=4, fill=(125, 123, 114), flip="random")
"""The paper's (section 4.2), padded with CIFAR-10's mean color, which is about 0 after normalization; CIFAR-100's mean is near it."""

_SHOWN_CLASSES = 10


class CIFAR(ImageDataModule):
    """CIFAR-10 or CIFAR-100, 3 x 32 x 32: 50,000 training images, validation included, and 10,000 test images.

    The images may be in `root`, or in `root/cifar10` or `root/cifar100`: the official python archive, packed or unpacked, the
    Hub's parquet files, or `train/CLASS/IMAGE` and `test/CLASS/IMAGE`. Missing images are downloaded. All formats give the
    same order of images, which are checked against the fingerprint of the original dataset.

    Args:
        name: The dataset of 10 or of 100 classes.
        root: Folder of the images, to which missing ones are downloaded; or the archive.
        normalize: channel subtracts the mean and divides by the std of each channel; pixel_mean subtracts the mean of
            all training images, validation included, as the paper does.
        allow_modified: Accept images that differ from the original dataset, with a warning.
    """

    def __init__(
        self,
        name: Literal["cifar10", "cifar100"] = "cifar10",
        root: str = "data",
        *,
        batch_size: int = 128,
        eval_batch_size: int | None = 1000,
        val_size: int = 5000,
        normalize: Literal["channel", "pixel_mean"] = "channel",
        allow_modified: bool = False,
        augment: Augment = AUGMENT,
        **settings: Any,
    ) -> None:
        """Check and keep the settings, see `ImageDataModule`.

        Raises:
            UsageError: a setting that is out of range.
        """
        if not isinstance(root, str | os.PathLike):
            raise UsageError(f"data.root is {root!r}: it must be the folder of the images. Set it to data, for instance.")
        if name not in METADATA:
            raise UsageError(f"data.name is {name!r}: it must be {' or '.join(METADATA)}.")
        if normalize not in ("channel", "pixel_mean"):
            raise UsageError(f"data.normalize is {normalize!r}: it must be channel or pixel_mean.")
        self.metadata = METADATA[name]
        train_size = self.metadata.per_class["train"] * len(self.metadata.labels)
        if val_size >= train_size and not allow_modified:  # checked before a download
            raise UsageError(
                f"data.val_size is {val_size}: it must be below {train_size}, the number of training images. "
                "Set it to 5000, or to 0 for no validation."
            )
        super().__init__(
            name=name,
            labels=self.metadata.labels,
            preprocess=Preprocess(size=SIZE, mean=self.metadata.mean, std=self.metadata.std),
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            val_size=val_size,
            augment=augment,
            **settings,
        )
        self.root = Path(root).expanduser()
        self._folder = self.root / name
        self.normalize = normalize
        self.allow_modified = allow_modified
        self._loaded: dict[SplitName, Split] = {}

    def prepare_data(self) -> None:
        """Download and decode the splits that the stage needs, in one process on behalf of all."""
        for split in self._needed_splits():
            self.load_split(split)

    def data_info(self) -> dict[str, Any]:
        """Return the information of `ImageDataModule.data_info`, and how images are normalized."""
        return super().data_info() | {"normalize": self.normalize}

    def setup(self, stage: str | None = None) -> None:
        """Load the splits of a stage, see `ImageDataModule.setup`, and compute the mean image if `normalize` needs it."""
        if self.normalize == "pixel_mean" and len(self.preprocess.mean) == self.in_channels:
            mean = pixel_mean(self.load_split("train").images)
            # Not divided by the std: the first norm undoes any scale.
            self.preprocess = Preprocess(size=self.image_size, mean=mean, std=(1.0,) * self.in_channels)
        super().setup(stage)
        self._loaded.clear()  # self._splits has the images now

    def load_split(self, split: SplitName) -> Split:
        """Return the training or the test images.

        Raises:
            ConnectionError: missing images that could not be downloaded.
            UsageError: images that cannot be read, or that differ from the original dataset.
        """
        if split not in self._loaded:
            self._loaded[split] = self._load(split)
        return self._loaded[split]

    def _needed_splits(self) -> list[SplitName]:
        stage = None if self.trainer is None else self.trainer.state.fn
        needs_test = stage is None or stage.value in ("test", "predict")
        needs_train = stage is None or stage.value in ("fit", "validate") or self.normalize == "pixel_mean"
        needs: dict[SplitName, bool] = {"train": needs_train, "test": needs_test}
        return [split for split, is_needed in needs.items() if is_needed]

    def _load(self, name: SplitName) -> Split:
        source = self._find(name) or self._download(name)

        def decode() -> Split:
            log.info("decoding the %s images of %s, once, from %s", ADJECTIVES[name], self.metadata.title, source.title)
            split = Split.from_images(*source.read())
            self._check(split, name, source)  # images that are refused are not cached
            return split

        split = cached(f"{self.name}-{name}", source.files, decode)
        if difference := self._check(split, name, source):
            log.warning("%s, as data.allow_modified allows", difference)
        return split

    def _check(self, split: Split, name: SplitName, source: Source) -> str:
        """Return how a split differs from the original one; empty if it does not.

        Raises:
            UsageError: a split that differs although `allow_modified` is false.
        """
        if not (difference := self._difference(split, name)):
            return ""
        text = f"the {ADJECTIVES[name]} images of {source.title} differ from {self.metadata.title}'s: {difference}"
        if not self.allow_modified:
            raise UsageError(f"{text}. Use the original images, or set data.allow_modified to true.")
        return text

    def _find(self, split: SplitName) -> Source | None:
        incomplete: list[ValueError] = []
        for find in (archive.find, parquet.find, class_folders.find):
            try:
                if source := find((self._folder, self.root), self.metadata, split):
                    return source
            except ValueError as error:  # another format may be complete
                incomplete.append(error)
        if incomplete:
            raise incomplete[0]
        return None

    def _download(self, split: SplitName) -> Source:
        folder = self._folder
        try:
            download(self.metadata, split, folder)
        except (ConnectionError, UsageError) as error:
            raise type(error)(
                f"data.root is {self.root}: there are no {ADJECTIVES[split]} images of {self.metadata.title} in it or in {folder}, and "
                f"{error}. Put the python archive, its folder, the Hub's parquet files, or train/CLASS/IMAGE and test/CLASS/IMAGE "
                "there, or set data.root."
            ) from error
        if source := self._find(split):
            return source
        raise UsageError(f"{folder} has no {ADJECTIVES[split]} images after the download. Delete it, and run the command again.")

    def _difference(self, split: Split, name: SplitName) -> str:
        """Return how a split differs from the original one; empty if it does not."""
        if split.fingerprint == self.metadata.fingerprints[name]:
            return ""
        expected = self.metadata.per_class[name]
        counts = torch.bincount(split.labels, minlength=self.num_classes).tolist()
        wrong = [(label, count - expected) for label, count in zip(self.labels, counts, strict=True) if count != expected]
        if not wrong:
            return "each class has the right number of images, but images or labels are others (lossy copies, such as JPEG, are others)"
        counted = [f"{abs(number):,} {label} too {'many' if number > 0 else 'few'}" for label, number in wrong]
        return shortened(counted, _SHOWN_CLASSES)
