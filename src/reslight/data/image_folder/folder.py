"""`Folder`: the user's own images, in folders that are named after their classes."""

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from reslight.cores import available_cores
from reslight.data.augment.augment import Augment
from reslight.data.augment.crop import Center
from reslight.data.augment.views import MultiScale, TenCrop
from reslight.data.datamodule import SPLIT_SEED, ImageDataModule
from reslight.data.image_folder.image_set import find_image_set
from reslight.data.image_folder.label_table import LabelColumns
from reslight.data.image_folder.memory_dataset import image_set_in_memory, name_of
from reslight.data.image_folder.splits import ImageSet, LabelledImages
from reslight.data.image_folder.trained_classes import SKIPPED, OnUnknownClass, matched, used_classes
from reslight.data.image_folder.training_crop import Crop
from reslight.data.loading.encoded import EncodedSplit, Files, OnBadImage
from reslight.data.loading.folds import folds, grouped_split
from reslight.data.loading.labels import class_counts, strata
from reslight.data.loading.loaders import AnySplit, EvalLoader
from reslight.data.rng import Draw
from reslight.messages import UsageError, shortened, visible
from reslight.plain import plain
from reslight.preprocess import Preprocess

log = logging.getLogger(__name__)

IMAGENET = Preprocess(size=224, resize=256, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""The usual preprocessing for ImageNet, since fb.resnet.torch: https://github.com/facebookarchive/fb.resnet.torch."""
AUGMENT = Augment(flip="random", fill=(124, 116, 104))
"""Random flips. Areas that augmentation blanks are filled with ImageNet's mean color."""
_GRAY = 117
"""The gray value of ImageNet's mean color."""
SCALES = (224, 256, 384, 480, 640)
"""The test scales of He et al. 2015, section 3.4."""
TestViews = Literal["center", "ten_crop", "multi_scale"]
_MAX_THREADS = 16
_MAX_RESIZE_RATIO = 1.5
"""Above this ratio of preprocess.resize to preprocess.size, a warning is logged; ImageNet's ratio is 1.14."""


class Folder(ImageDataModule):
    """Images in any format that Pillow reads: class folders, a label file, parquet shards, a saved dataset, or one on the Hub.

    The layout is `ROOT/train/CLASS/IMAGE` with `val` or `test` beside `train`; or `ROOT/CLASS/IMAGE`; or shards such as
    `train-*.parquet`, in a folder or in the repository `OWNER/DATASET[@REVISION]`; or any folder of images with a label file, such as
    the Hub's `metadata.csv`, which has a row for each image; or what `save_to_disk` of the library `datasets` wrote. The images stay
    encoded, and threads decode them when they are needed.
    Without a `val` split, `val_size` of the training images are set apart. `test` evaluates on the `test` split; without one, use
    `validate`.

    Args:
        root: Folder of the images, or OWNER/DATASET[@REVISION] on the Hub. In Python also a Dataset or DatasetDict of the library
            datasets.
        preprocess: Preprocessing of the images: ImageNet's by default. On the command line, fields with ImageNet's values are taken
            from model.init_from.
        crop: The part of a training image that the network sees.
        labels: A label file with the path and the class of each image: CSV, TSV, JSON lines or parquet. If null, `metadata.csv`, `.jsonl`
            or `.parquet` in root or in the folder of a split, if it has a column file_name and a column of labels.
        labels_columns: The columns of the label file, where their names are not the usual ones. No group is in both training and
            validation. An image has several labels if its label is a list, in JSON lines or parquet; if there is a separator; or if
            label is a list of columns.
        val_size: Without a val split, the training images to set apart for validation: their number, or their share if below 1; 0 for
            none.
        fold: K/N for cross-validation: the K-th of N folds of the training images is the val split, instead of val_size of them.
        on_unknown_class: raise an error at validation or test images of a class that training does not have, or skip such images with a
            warning.
        threads: Threads per device that decode images; if null, the cores that this process may use are divided among its devices.
        on_bad_image: raise an error at an image that cannot be read, or skip it with a warning.
        scaled_decode: In training, decode JPEG images at a half, a quarter or an eighth of each side if the crop is so many times as large
            as the network's input: about twice as fast for photos of 12 megapixels. Evaluation decodes all pixels.
        test_views: Views of each image in test, validate and predict: center; ten_crop (the paper's corners and center, and their mirror
            images); or multi_scale (the whole image at each of test_scales, and its mirror image). Probabilities are averaged.
        test_scales: Lengths of the short side, in pixels (multi_scale).
        repeated_augmentation: Copies of an image in a training batch, each augmented on its own.
        augment: Augmentation of training images, after the crop.

    Raises:
        OSError: a missing folder, or one that cannot be opened.
        UsageError: a setting that is out of range, or folders in another layout.
    """

    def __init__(
        self,
        root: str,
        preprocess: Preprocess = IMAGENET,
        crop: Crop = Crop(),
        *,
        labels: str | None = None,
        labels_columns: LabelColumns = LabelColumns(),
        val_size: float = 0.2,
        fold: str | None = None,
        on_unknown_class: OnUnknownClass = "raise",
        threads: int | None = None,
        on_bad_image: OnBadImage = "raise",
        scaled_decode: bool = True,
        test_views: TestViews = "center",
        test_scales: tuple[int, ...] = SCALES,
        repeated_augmentation: int = 1,
        augment: Augment = AUGMENT,
        **settings: Any,
    ) -> None:
        self._dataset = None if isinstance(root, str | Path) else root
        root = str(root) if self._dataset is None else name_of(root)
        if self._dataset is not None and labels is not None:
            raise UsageError(f"data.labels is {labels}: data.root must be a folder then, not a dataset in memory. Set data.labels to null.")
        if not root.strip():
            raise UsageError("data.root is empty: it must be the folder of your images, or OWNER/DATASET on the Hub. Set it.")
        if threads is not None and threads < 1:
            raise UsageError(f"data.threads is {threads}: it must be at least 1. Use null for all cores.")
        choices = {"on_unknown_class": on_unknown_class, "on_bad_image": on_bad_image, "test_views": test_views}
        for (name, value), kind in zip(choices.items(), (OnUnknownClass, OnBadImage, TestViews), strict=True):
            if value not in (allowed := get_args(kind)):
                raise UsageError(f"data.{name} is {value}: it must be one of {', '.join(allowed)}. Use {allowed[0]}, the default.")
        if not test_scales or min(test_scales) < 1:
            raise UsageError(f"data.test_scales is {list(test_scales)}: it must be lengths of 1 pixel or more. Use {list(SCALES)}.")
        self.root, self.crop, self.on_bad_image, self.on_unknown_class = root, crop, on_bad_image, on_unknown_class
        self.test_views, self.test_scales = test_views, tuple(test_scales)
        self.label_file, self.labels_columns = labels, labels_columns
        self.fold, self._fold = fold, None if fold is None else _parse_fold(fold)
        self._threads, self.scaled_decode = threads, scaled_decode
        self._check_preprocess(preprocess)
        if preprocess.channels != 3 and augment.fill == AUGMENT.fill:
            augment = replace(augment, fill=_GRAY if preprocess.channels == 1 else preprocess.fill_values)
        self._image_set = self.find_image_set()
        has_own = "val" in self._image_set.splits or "train" not in self._image_set.splits
        if self.fold is not None and has_own:
            raise UsageError(
                f"data.fold is {fold}: {root} has validation images of its own. Set data.fold to null, or remove the split val."
            )
        super().__init__(
            name=visible(Path(root).expanduser().absolute().name),
            labels=self.class_names(),
            preprocess=preprocess,
            val_size=0 if has_own or self.fold is not None else self._validation_images(val_size),
            augment=augment,
            **settings,
        )
        self.repeated_augmentation = repeated_augmentation
        self._check_copies()

    def find_image_set(self) -> ImageSet:
        """Return the splits of the dataset. A subclass may find them elsewhere."""
        if self._dataset is not None:
            return image_set_in_memory(self._dataset)
        if self.on_unknown_class == "raise":
            return find_image_set(self.root, self.label_file, self.labels_columns)
        found = find_image_set(self.root, self.label_file, self.labels_columns, partial=True)
        train = found.splits.get("train")
        used = [found.classes[number] for number in used_classes(train.labels, len(found.classes))] if train else []
        if len(used) < 2:
            raise UsageError(f"data.root is {self.root}: it needs training images of two classes or more. Add train/CLASS/IMAGE.")
        return matched(found, used, self.root, skips=True)

    def class_names(self) -> tuple[str, ...]:
        """Return a name for each class, for people to read."""
        return self._image_set.classes

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several classes, or none."""
        return self._image_set.multi_label

    @property
    def has_training(self) -> bool:
        """Whether there are training images."""
        return "train" in self._image_set.splits

    @property
    def has_validation(self) -> bool:
        """Whether there are validation images."""
        return "val" in self._image_set.splits or self.fold is not None or super().has_validation

    @property
    def has_test(self) -> bool:
        """Whether there are test images."""
        return "test" in self._image_set.splits

    def setup(self, stage: str | None = None) -> None:
        """Prepare the splits of a stage. `predict` uses the test images, which need no labels.

        Raises:
            UsageError: no images for the stage.
        """
        unlabelled = self._image_set.unlabelled
        if not self.has_test and (stage == "test" or (stage == "predict" and unlabelled is None)):
            instead = "use `reslight validate`" if stage == "test" else "set it to the folder of the images to predict"
            text = f"it has no test images. Add the folder test, or {instead}."
            if unlabelled is not None:
                text = "its test images have no labels. Use `reslight validate` or `reslight predict`."
            raise UsageError(f"data.root is {self.root}: {text}")
        has_warned = self._splits or (stage == "predict" and unlabelled is not None)
        for warning in self._image_set.warnings if not has_warned else ():
            log.warning("%s", warning)
        if stage == "predict" and unlabelled is not None:
            self._splits["predict"] = replace(self._encoded(unlabelled, None), on_bad_image="skip")
        else:
            super().setup(stage if stage or self.has_test else "fit")
        # Splits that an earlier command loaded are updated, too: it may have used other views.
        for name, split in self.splits.items():
            if name != "train" and isinstance(split, EncodedSplit):
                self._splits[name] = replace(split, views=self._current_views())

    def load_split(self, split: Literal["train", "test"]) -> EncodedSplit:
        """Return the images of a split."""
        found = self._image_set.splits[split]
        return self._encoded(found, found.content)

    def load_validation(self) -> EncodedSplit | None:
        """Return the images of the split val; None if there is none."""
        found = self._image_set.splits.get("val")
        return None if found is None else self._encoded(found, found.content)

    def predict_dataloader(self) -> EvalLoader:
        """Return the loader of the images to predict: those without labels, if there are any, or else the test split."""
        return self._eval_loader("predict" if "predict" in self._splits else "test")

    def path_of(self, number: int) -> Path | None:
        """Return the path of an image of `predict_dataloader`, by its number; None for an image in a shard."""
        split = self._splits["predict" if "predict" in self._splits else "test"]
        assert isinstance(split, EncodedSplit)
        return split.images.paths[int(split.numbers[number])] if isinstance(split.images, Files) else None

    def validation_split(self, labels: Tensor) -> tuple[Tensor, Tensor] | None:
        """Choose the training images that are set apart for validation: a fold, or `val_size` of them, by whole groups if there are groups.

        Raises:
            UsageError: images or groups that cannot be divided so.
        """
        groups, classes = self._image_set.splits["train"].groups, strata(labels)
        if self._fold is not None:
            number, count = self._fold
            is_taken = folds(classes, groups, count, SPLIT_SEED, Draw.FOLD) == number - 1
            kept, taken = (~is_taken).nonzero().flatten(), is_taken.nonzero().flatten()
        elif self.val_size and groups is not None:
            kept, taken = grouped_split(classes, groups, self.val_size, SPLIT_SEED, Draw.VAL_SPLIT)
        elif (found := super().validation_split(labels)) is not None:
            kept, taken = found
        else:
            return None
        has_images, has_training = (class_counts(some, len(self.labels)) > 0 for some in (labels, labels[kept]))
        if absent := (has_images & ~has_training).nonzero().flatten().tolist():
            names = shortened([self.labels[number] for number in absent])
            setting = f"data.fold is {self.fold}" if self.fold else f"data.val_size is {self.val_size}"
            log.warning("%s: all images of %s are set apart for validation, so that training has none", setting, names)
        return kept, taken

    def for_training(self, split: AnySplit) -> AnySplit:
        """Return the split with the training crop."""
        assert isinstance(split, EncodedSplit)
        geometry = self.crop.geometry(self.preprocess)
        return replace(split, geometry=geometry, views=None, seed=self.seed, scaled_decode=self.scaled_decode)

    def data_info(self) -> dict[str, Any]:
        """Return what `ImageDataModule.data_info` does, the training crop, the views, the fold and the columns of the label file."""
        scales: dict[str, Any] = {"test_scales": list(self.test_scales)} if self.test_views == "multi_scale" else {}
        scales |= {"scaled_decode": self.scaled_decode}
        info = super().data_info() | {"kind": type(self).__name__, "crop": plain(self.crop), "test_views": self.test_views} | scales
        columns = self._image_set.label_columns
        return info | ({"fold": self.fold} if self.fold else {}) | ({"labels_columns": columns.info()} if columns else {})

    def _encoded(self, found: LabelledImages, content: str | None) -> EncodedSplit:
        preprocess = self.preprocess
        split = EncodedSplit(
            images=found.images,
            numbers=torch.arange(len(found.labels)),
            labels=found.labels,
            fingerprint=found.fingerprint,
            geometry=Center(preprocess.size, preprocess.resize, preprocess.interpolation, preprocess.crop, preprocess.fill_values),
            channels=self.in_channels,
            bits=preprocess.bits,
            threads=self._decoding_threads(),
            on_bad_image=self.on_bad_image,
            content=content,
        )
        skipped = found.labels == SKIPPED
        return split.subset((~skipped).nonzero().flatten()) if skipped.ndim == 1 and skipped.any() else split

    def _current_views(self) -> TenCrop | MultiScale | None:
        """Return the views for a command that evaluates; validation during training uses the center only."""
        if self.test_views == "center" or (self.trainer is not None and self.trainer.state.fn == "fit"):
            return None
        size, resize, interpolation = self.preprocess.size, self.preprocess.resize, self.preprocess.interpolation
        if self.test_views == "ten_crop":
            return TenCrop(size, resize or min(self.preprocess.shape), interpolation)
        return MultiScale(self.test_scales, interpolation)

    def _check_preprocess(self, preprocess: Preprocess) -> None:
        short, resize = min(preprocess.shape), preprocess.resize
        if (resize or 0) > _MAX_RESIZE_RATIO * short:
            log.warning(
                "data.preprocess.resize is %d: of images with this short side, evaluation sees only the center of %d x %d pixels. "
                "Set it to about 1.14 times data.preprocess.size.",
                *(resize, *preprocess.shape),
            )
        if self.test_views == "ten_crop" and (resize or short) == short:
            raise UsageError(
                f"data.preprocess.resize is {resize or 'null'}: ten crops need more pixels than data.preprocess.size, {short}. Increase it."
            )
        if self.test_views != "center" and preprocess.crop != "center":
            raise UsageError(
                f"data.test_views is {self.test_views}: it needs data.preprocess.crop center, not {preprocess.crop}. "
                "Use center, the default."
            )
        self.crop.geometry(preprocess)

    def _check_copies(self) -> None:
        copies, batch = self.repeated_augmentation, self.batch_size
        if copies < 1:
            raise UsageError(f"data.repeated_augmentation is {copies}: it must be at least 1. Use 1 for no repetition.")
        if batch % copies:
            raise UsageError(
                f"data.batch_size is {batch}: {copies} copies of each image (data.repeated_augmentation) cannot divide it. "
                f"Use {batch + copies - batch % copies}."
            )
        if copies > 1 and batch < 2 * copies and self.mix.is_on(0):
            raise UsageError(
                f"data.batch_size is {batch}: with {copies} copies of each image (data.repeated_augmentation), every image would be mixed "
                f"with itself. Use {2 * copies} or more."
            )

    def _validation_images(self, size: float) -> int:
        images = len(self._image_set.splits["train"].labels)
        if not 0 <= size < images or (size > 1 and size != int(size)):
            raise UsageError(
                f"data.val_size is {size:g}: it must be a share below 1, or a number of images below {images}, the training images. "
                "Use 0 for no validation."
            )
        return round(size * images) if size < 1 else int(size)

    def _decoding_threads(self) -> int:
        devices = getattr(self.trainer, "num_devices", 1)
        return self._threads or min(_MAX_THREADS, available_cores(devices))


def _parse_fold(fold: str) -> tuple[int, int]:
    """Return the number of a fold, from 1, and how many there are."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", str(fold))
    number, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not (count >= 2 and 1 <= number <= count):
        raise UsageError(f"data.fold is {fold}: it must be K/N, the K-th of N folds, such as 1/5 to 5/5. Use null for none.")
    return number, count
