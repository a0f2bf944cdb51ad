"""`CIFAR`: CIFAR-10 and CIFAR-100, read from whatever form they are there in, or downloaded."""

import logging
import os
from pathlib import Path
from typing import Any, Literal

import torch

from reslight.data.augment.augment import Augment
from reslight.data.augment.mixup import Mix
from reslight.data.cifar import archive, class_folders, parquet
from reslight.data.cifar.download import download
from reslight.data.cifar.metadata import KNOWN, Part
from reslight.data.cifar.source import Source
from reslight.data.cifar.statistics import pixel_mean
from reslight.data.datamodule import ImageDataModule
from reslight.data.loading.cache import cached
from reslight.data.loading.split import Split
from reslight.messages import UsageError
from reslight.preprocess import Preprocess

log = logging.getLogger(__name__)

AUGMENT = Augment(pad=4, fill=(125, 123, 114), flip="random")
"""The paper's (section 4.2), padded with CIFAR-10's mean colour, which the network sees as about 0; CIFAR-100's is near it."""

_SHOWN_CLASSES = 10
_SAID = {"train": "training", "test": "test"}


class CIFAR(ImageDataModule):
    """CIFAR-10 or CIFAR-100, 3 x 32 x 32: 50,000 training images, validation included, and 10,000 test images.

    The images may lie in `root`, or in `root/cifar10` or `root/cifar100`, as the official python archive or what it
    unpacks to, as the Hub's parquet files, or as `train/CLASS/IMAGE` and `test/CLASS/IMAGE`. What is not there is
    downloaded. All forms end in the same order and are checked against the real set's fingerprint.
    """

    def __init__(
        self,
        name: Literal["cifar10", "cifar100"] = "cifar10",
        root: str = "data",
        batch_size: int = 128,
        eval_batch_size: int | None = 1000,
        val_size: int = 5000,
        normalize: Literal["channel", "pixel_mean"] = "channel",
        allow_modified: bool = False,
        seed: int | None = None,
        augment: Augment = AUGMENT,
        mix: Mix = Mix(),
    ) -> None:
        """Check and keep the settings.

        Args:
            name: The set of 10 or of 100 classes.
            root: Folder of the images, where they are downloaded to if they are not there; or the archive.
            batch_size: Training images per optimizer step, over all devices and accumulation steps.
            eval_batch_size: Images per evaluation batch, over all devices; batch_size when left out.
            val_size: Images carved from the training set for validation, the same ones in every run; 0 for no
                validation.
            normalize: channel subtracts the mean and divides by the deviation of each channel; pixel_mean subtracts
                the mean of all training images, validation included, as the paper does.
            allow_modified: Take images that are not those of the real set, with a warning.
            seed: Seed of the order and the augmentation; seed_everything's when left out, 0 where there is none.
            augment: Augmentation of training images.
            mix: Training images mixed with one another (mixup, cutmix).

        Raises:
            ValueError: A setting is out of range.
        """
        if not isinstance(root, str | os.PathLike):
            raise UsageError(f"data.root is {root!r}, must be the folder of the images, such as data")
        if name not in KNOWN:
            raise UsageError(f"data.name is {name!r}, must be one of: {', '.join(KNOWN)}")
        if normalize not in ("channel", "pixel_mean"):
            raise UsageError(f"data.normalize is {normalize!r}, must be one of: channel, pixel_mean")
        self.known = KNOWN[name]
        train_size = self.known.per_class["train"] * len(self.known.labels)
        if val_size >= train_size and not allow_modified:  # before anything is downloaded
            raise UsageError(
                f"data.val_size is {val_size}, must be below the {train_size} training images; set it to 5000, or to 0 for no validation"
            )
        super().__init__(
            name=name,
            labels=self.known.labels,
            preprocess=Preprocess(size=32, mean=self.known.mean, std=self.known.std),
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            val_size=val_size,
            seed=seed,
            augment=augment,
            mix=mix,
        )
        self.root = Path(root).expanduser()
        self._folder = self.root / name
        self.normalize = normalize
        self.allow_modified = allow_modified
        self._loaded: dict[Part, Split] = {}

    def prepare_data(self) -> None:
        """Download and decode what the coming stage needs, in one process for all."""
        for part in self._parts_needed():
            self.load_split(part)

    def describe(self) -> dict[str, Any]:
        """Return what `ImageDataModule.describe` does, and how images are normalised."""
        return super().describe() | {"normalize": self.normalize}

    def setup(self, stage: str | None = None) -> None:
        """Load the splits of a stage, see `ImageDataModule.setup`; and the mean image where it is subtracted."""
        if self.normalize == "pixel_mean" and len(self.preprocess.mean) == self.in_channels:
            mean = pixel_mean(self.load_split("train").images)
            # Not divided: the first norm undoes any scale.
            self.preprocess = Preprocess(size=self.image_size, mean=mean, std=(1.0,) * self.in_channels)
        super().setup(stage)
        self._loaded.clear()  # what is needed of them is in the splits now

    def load_split(self, part: Part) -> Split:
        """Return the training or the test images.

        Raises:
            ConnectionError: They are not there and could not be downloaded.
            ValueError: They cannot be read, or are not those of the real set.
        """
        if part not in self._loaded:
            self._loaded[part] = self._load(part)
        return self._loaded[part]

    def _parts_needed(self) -> list[Part]:
        stage = None if self.trainer is None else self.trainer.state.fn
        needs_test = stage is None or stage.value in ("test", "predict")
        needs_train = stage is None or stage.value in ("fit", "validate") or self.normalize == "pixel_mean"
        needs: dict[Part, bool] = {"train": needs_train, "test": needs_test}
        return [part for part, is_needed in needs.items() if is_needed]

    def _load(self, part: Part) -> Split:
        source = self._find(part) or self._download(part)

        def make() -> Split:
            log.info("decoding the %s images of %s once, %s", _SAID[part], self.known.title, source.what)
            split = Split.from_images(*source.read())
            self._check(split, part, source)  # what is refused is not kept
            return split

        split = cached(f"{self.name}-{part}", source.files, make)
        if difference := self._check(split, part, source):
            log.warning("%s, as data.allow_modified allows", difference)
        return split

    def _check(self, split: Split, part: Part, source: Source) -> str:
        """Say in which way a split is not the real one; empty if it is.

        Raises:
            ValueError: It is not, and may not be.
        """
        if not (difference := self._difference(split, part)):
            return ""
        text = f"in {source.what} are {difference}"
        if not self.allow_modified:
            raise UsageError(f"{text}; set data.allow_modified true to take them as they are")
        return text

    def _find(self, part: Part) -> Source | None:
        incomplete: list[ValueError] = []
        for find in (archive.find, parquet.find, class_folders.find):
            try:
                if source := find((self._folder, self.root), self.known, part):
                    return source
            except ValueError as error:  # another form may be there whole
                incomplete.append(error)
        if incomplete:
            raise incomplete[0]
        return None

    def _download(self, part: Part) -> Source:
        folder = self._folder
        try:
            download(self.known, part, folder)
        except ConnectionError as error:
            raise ConnectionError(
                f"there are no {_SAID[part]} images of {self.known.title} in {self.root} or {folder}, and {error}; put the python "
                f"archive, its folder, the Hub's parquet files, or train/CLASS/IMAGE and test/CLASS/IMAGE there, or set data.root"
            ) from error
        if source := self._find(part):
            return source
        raise UsageError(f"what was downloaded to {folder} has no {_SAID[part]} images; delete it")

    def _difference(self, split: Split, part: Part) -> str:
        """Say in which way a split is not the real one; empty if it is."""
        if split.fingerprint == self.known.fingerprints[part]:
            return ""
        expected = self.known.per_class[part]
        counts = torch.bincount(split.labels, minlength=self.num_classes).tolist()
        wrong = [(label, count - expected) for label, count in zip(self.labels, counts, strict=True) if count != expected]
        if not wrong:
            return (
                f"other {_SAID[part]} images or labels than {self.known.title}'s, though as many of each class "
                f"(lossy copies, such as JPEG, are other images)"
            )
        said = [f"{abs(number):,} {label} too {'many' if number > 0 else 'few'}" for label, number in wrong]
        more = f" and {len(said) - _SHOWN_CLASSES} other classes" if len(said) > _SHOWN_CLASSES else ""
        return f"other {_SAID[part]} images than {self.known.title}'s: {', '.join(said[:_SHOWN_CLASSES])}{more}"
