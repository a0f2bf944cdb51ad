"""`Folder`: a person's own images, in folders that are named after their classes."""

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from reslight.data.augment.augment import Augment
from reslight.data.augment.crop import Center, Geometry, RandomResizedCrop, ScaleJitter
from reslight.data.augment.mixup import Mix
from reslight.data.augment.views import MultiScale, TenCrop
from reslight.data.datamodule import ImageDataModule, plain
from reslight.data.image_folder.hub_dataset import fetch, is_remote
from reslight.data.image_folder.shards import image_set_in_shards
from reslight.data.image_folder.splits import ImageSet, SplitName, find_class_trees, image_set_of
from reslight.data.loading.encoded import EncodedSplit, OnBadImage
from reslight.data.loading.loaders import AnySplit
from reslight.messages import UsageError
from reslight.preprocess import Preprocess

log = logging.getLogger(__name__)

IMAGENET = Preprocess(size=224, resize=256, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""What ImageNet's networks are fed with, since fb.resnet.torch: https://github.com/facebookarchive/fb.resnet.torch."""
AUGMENT = Augment(flip="random", fill=(124, 116, 104))
"""Flips; and what is blanked, by augmentation that does so, gets ImageNet's mean colour."""
_GREY = 117
"""The same in grey."""
SCALES = (224, 256, 384, 480, 640)
"""The paper's (section 3.4)."""
TestViews = Literal["center", "ten_crop", "multi_scale"]
_MOST_THREADS = 16
_LARGE = 1.5
"""The shorter side in evaluation over the size of what is cut out of it; ImageNet's is 1.14."""


@dataclass(frozen=True)
class Crop:
    """Which part of a training image the network sees."""

    kind: Literal["random_resized", "scale_jitter", "center"] = "random_resized"
    """A random part of random shape, resized; the whole resized to a random length and a random square of it; or the middle,
    as in evaluation."""
    size: int | None = None
    """Height and width in training, in pixels; preprocess.size if null."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Least and greatest share of the area (random_resized)."""
    ratio: tuple[float, float] = (0.75, 4 / 3)
    """Least and greatest width over height (random_resized)."""
    short_side: tuple[int, int] = (256, 480)
    """Least and greatest length of the shorter side, in pixels (scale_jitter)."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ValueError: A field is out of range.
        """
        if self.kind not in ("random_resized", "scale_jitter", "center"):
            raise UsageError(f"crop.kind is {self.kind!r}, must be one of: random_resized, scale_jitter, center")
        if self.size is not None and not 1 <= self.size <= 4096:
            raise UsageError(f"crop.size is {self.size}, must be from 1 to 4096 pixels, or null")
        for name, least, most in (("scale", 0.0, 1.0), ("ratio", 0.0, float("inf")), ("short_side", 0, 8192)):
            low, high = getattr(self, name)
            if not least < low <= high <= most:
                raise UsageError(f"crop.{name} is {[low, high]}, must be two rising numbers above {least} and at most {most}")

    def geometry(self, feed: Preprocess) -> Geometry:
        """What this makes of a network's feed.

        Raises:
            ValueError: The shorter side may be shorter than the crop.
        """
        size = self.size or feed.size
        if self.kind == "random_resized":
            return RandomResizedCrop(size, self.scale, self.ratio, feed.interpolation)
        if self.kind == "center":
            return Center(size, max(size, round((feed.resize or feed.size) * size / feed.size)), feed.interpolation)
        if self.short_side[0] < size:
            raise UsageError(f"crop.short_side is {list(self.short_side)}, must begin with {size}, the crop's size, or more")
        return ScaleJitter(size, self.short_side, feed.interpolation)


class Folder(ImageDataModule):
    """Images of any kind that Pillow reads: class folders, the Hub's parquet shards, or a data set of the Hub.

    `ROOT/train/CLASS/IMAGE` with `val` or `test` beside it; or `ROOT/CLASS/IMAGE`; or shards such as `train-*.parquet`, in a
    folder or in the repository `OWNER/DATASET[@REVISION]`. The images stay encoded, and threads decode them as they are
    needed. Without a part `val`, `val_size` of the training images are set apart. `test` measures the part `test`; where
    there is none, `validate` is the measure.
    """

    def __init__(
        self,
        root: str,
        preprocess: Preprocess = IMAGENET,
        crop: Crop = Crop(),
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        val_size: float = 0.2,
        threads: int | None = None,
        on_bad_image: OnBadImage = "raise",
        test_views: TestViews = "center",
        test_scales: tuple[int, ...] = SCALES,
        repeated_augmentation: int = 1,
        seed: int | None = None,
        augment: Augment = AUGMENT,
        mix: Mix = Mix(),
    ) -> None:
        """Look through the folders; no image is opened yet.

        Args:
            root: Folder of the images, or OWNER/DATASET[@REVISION] on the Hub.
            preprocess: How to feed the network: as ImageNet's are. On the command line model.init_from says what is not set otherwise.
            crop: Which part of a training image is seen.
            batch_size: Training images per optimizer step, over all devices and accumulation steps.
            eval_batch_size: Images per evaluation batch, over all devices; batch_size when left out.
            val_size: Where there is no part val: images to set apart for validation, or below 1 their share; 0 for none.
            threads: Threads that decode images, on each device; the machine's cores, shared by its devices, when left out.
            on_bad_image: raise an error at an image that cannot be read, or skip it with a warning.
            test_views: What test, validate and predict show the network of each image: its center; ten_crop, the paper's corners and
                center, mirrored too; or multi_scale, all of it at each of test_scales, mirrored too. Probabilities are averaged.
            test_scales: Lengths of the shorter side, in pixels (multi_scale).
            repeated_augmentation: Copies of an image in a training batch, each augmented for itself.
            seed: Seed of the order and the augmentation; seed_everything's when left out, 0 where there is none.
            augment: Augmentation of training images, after the crop.
            mix: Training images mixed with one another (mixup, cutmix).

        Raises:
            OSError: A folder is not there or cannot be opened.
            ValueError: A setting is out of range, or the folders are not as described.
        """
        if threads is not None and threads < 1:
            raise UsageError(f"data.threads is {threads}, must be at least 1, or null for the machine's cores")
        for name, value, allowed in (("on_bad_image", on_bad_image, get_args(OnBadImage)), ("test_views", test_views, get_args(TestViews))):
            if value not in allowed:
                raise UsageError(f"data.{name} is {value!r}, must be one of: {', '.join(allowed)}")
        if not test_scales or min(test_scales) < 1:
            raise UsageError(f"data.test_scales is {list(test_scales)}, must be lengths of 1 pixel or more")
        if not root.strip():
            raise UsageError("data.root is empty; set it to the folder of your images")
        if (preprocess.resize or 0) > _LARGE * preprocess.size:
            log.warning(
                "evaluation sees the middle %d x %d pixels of images with a shorter side of %d; set data.preprocess.resize",
                *(preprocess.size, preprocess.size, preprocess.resize),
            )
        self.root = root
        self._threads, self.on_bad_image, self.crop = threads, on_bad_image, crop
        self.test_views, self.test_scales = test_views, tuple(test_scales)
        if preprocess.channels == 1 and augment.fill == AUGMENT.fill:
            augment = replace(augment, fill=_GREY)
        if test_views == "ten_crop" and (preprocess.resize or preprocess.size) == preprocess.size:
            shorter = preprocess.resize or "null"
            raise UsageError(f"data.preprocess.resize is {shorter}; for ten crops it must be above data.preprocess.size {preprocess.size}")
        crop.geometry(preprocess)  # complains of what does not fit
        self._image_set = self.find_image_set()
        super().__init__(
            name=Path(root).expanduser().absolute().name,
            labels=self.class_names(),
            preprocess=preprocess,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            val_size=0 if "val" in self._image_set.splits else self._val_images(val_size),
            seed=seed,
            augment=augment,
            mix=mix,
            repeated_augmentation=repeated_augmentation,
        )

    def find_image_set(self) -> ImageSet:
        """The parts of the set. A subclass may look for them elsewhere."""
        return find_image_set(self.root)

    def class_names(self) -> tuple[str, ...]:
        """What people call the classes."""
        return self._image_set.classes

    @property
    def has_validation(self) -> bool:
        """Whether there are images to validate on."""
        return "val" in self._image_set.splits or super().has_validation

    @property
    def has_test(self) -> bool:
        """Whether there are images to test on."""
        return "test" in self._image_set.splits

    def setup(self, stage: str | None = None) -> None:
        """Prepare the splits of a stage.

        Raises:
            ValueError: There is nothing to measure on.
        """
        if stage in ("test", "predict") and not self.has_test:
            raise UsageError(f"{self.root} has no test images; `reslight validate` measures on the validation images")
        for remark in self._image_set.warnings if not self._splits else ():
            log.warning("%s", remark)
        super().setup(stage if stage or self.has_test else "fit")
        for part, split in self.splits.items():  # those of an earlier command too, which may have shown others
            if part != "train" and isinstance(split, EncodedSplit):
                self._splits[part] = replace(split, views=self._views_here())

    def load_split(self, part: Literal["train", "test"]) -> EncodedSplit:
        """Return the images of a part."""
        return self._split_of(part)

    def load_validation(self) -> EncodedSplit | None:
        """Return the images of the folder val; None where there is none."""
        return self._split_of("val") if "val" in self._image_set.splits else None

    def _split_of(self, part: SplitName) -> EncodedSplit:
        found = self._image_set.splits[part]
        return EncodedSplit(
            images=found.images,
            numbers=torch.arange(len(found.labels)),
            labels=found.labels,
            fingerprint=found.fingerprint,
            geometry=Center(self.preprocess.size, self._shorter, self.preprocess.interpolation),
            channels=self.in_channels,
            threads=self._threads_here(),
            on_bad_image=self.on_bad_image,
        )

    def for_training(self, split: AnySplit) -> AnySplit:
        """Return the split with the random crop."""
        assert isinstance(split, EncodedSplit)
        return replace(split, geometry=self.crop.geometry(self.preprocess), views=None, seed=self.seed)

    def describe(self) -> dict[str, Any]:
        """Return what `ImageDataModule.describe` does, the training crop, and what is seen in a test."""
        scales = {"test_scales": list(self.test_scales)} if self.test_views == "multi_scale" else {}
        return super().describe() | {"kind": type(self).__name__, "crop": plain(self.crop), "test_views": self.test_views} | scales

    @property
    def _shorter(self) -> int:
        return self.preprocess.resize or self.preprocess.size

    def _views_here(self) -> TenCrop | MultiScale | None:
        """Several views of each image, for a command that measures; a validation in training is of the center."""
        if self.test_views == "center" or (self.trainer is not None and self.trainer.state.fn == "fit"):
            return None
        if self.test_views == "ten_crop":
            return TenCrop(self.preprocess.size, self._shorter, self.preprocess.interpolation)
        return MultiScale(self.test_scales, self.preprocess.interpolation)

    def _val_images(self, size: float) -> int:
        images = len(self._image_set.splits["train"].labels)
        if not 0 <= size < images or (size > 1 and size != int(size)):
            raise UsageError(f"data.val_size is {size:g}, must be a share below 1, or a whole number below the {images} training images")
        return round(size * images) if size < 1 else int(size)

    def _threads_here(self) -> int:
        if self._threads:
            return self._threads
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        beside = 1 if self.trainer is None else getattr(self.trainer, "num_devices", 1)
        return max(1, min(_MOST_THREADS, cores // beside))


def find_image_set(root: str) -> ImageSet:
    """The parts of a set: class folders or parquet shards in a folder, or the shards of a data set of the Hub.

    Args:
        root: The folder, or `OWNER/DATASET[@REVISION]`.

    Raises:
        OSError: There is none, or it cannot be opened.
        ValueError: It is no set to train with.
    """
    if is_remote(root):
        folder = fetch(root)
        if (found := image_set_in_shards(folder)) is None:
            raise UsageError(f"{root} has parquet files, but none called after train, validation or test; it is no set to train on")
        return found
    folder = Path(root).expanduser()
    return image_set_in_shards(folder) or image_set_of(find_class_trees(folder))
