"""`ImageDataModule`: the path of the data, from a split to the batch that a network gets.

    split (uint8) -> loader -> device -> augment -> normalize, in the network's dtype and memory format

It works in any Lightning Trainer with any LightningModule; a step gets `(images, labels, indices)`. A dataset is a
subclass that gives its name, its classes and its splits; everything else is here.
"""

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from reslight.data.augment.augment import Augment
from reslight.data.augment.mixup import Mix
from reslight.data.augment.views import Views
from reslight.data.loading.balance import ClassWeights, Sampling, checked_class_weights, imbalance, loss_weights, positive_weights
from reslight.data.loading.labels import class_counts
from reslight.data.loading.loaders import AnySplit, BatchPlan, EvalLoader, Position, TrainLoader, position_of
from reslight.data.loading.split import Batch, Split, stratified_split
from reslight.data.rng import Draw
from reslight.lightning_private import restore_training_loaders
from reslight.messages import UsageError, check_number, shortened, unprintable
from reslight.plain import plain
from reslight.preprocess import Normalizer, Preprocess, Size, network_format

log = logging.getLogger(__name__)

SPLIT_SEED = 0
"""Seed of random splits. Not the run's seed: all runs train and validate on the same images."""

_SPLITS_OF_STAGE = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("test",)}


class ImageDataModule(LightningDataModule, ABC):
    """Base class of the datasets.

    A dataset's constructor names its own settings and those whose default it changes, and passes the others on as `**settings`;
    its class docstring documents its own settings, and the command line takes the rest, defaults and help texts, from this class.

    Args:
        name: Name of the dataset.
        labels: Name of each class, in the order of their numbers.
        preprocess: Size and statistics of the images.
        batch_size: Training images per optimizer step, over all devices and accumulation steps.
        eval_batch_size: Images per evaluation batch, over all devices; batch_size if null.
        val_size: Training images that are set apart for validation, the same ones in every run; 0 for no validation.
        seed: Seed of the order and the augmentation; the seed of seed_everything if null, or 0 without one.
        augment: Augmentation of training images.
        mix: Mixtures of training images (mixup, cutmix).
        class_weights: Weight of each class in the training loss, by its name, and 1 for classes that are not named; balanced for weights
            that are inversely proportional to the number of training images; null for equal weights. With several labels for each image
            it is the weight of the images that have the class, balanced if it is the number of those without it for each that has it.
            Evaluation has no weights.
        sampling: uniform draws all training images equally often; balanced draws all classes equally often, in as many images an epoch.
    """

    resident_limit = 2**30
    """Splits of at most this many bytes are kept on the training device, where a batch costs no transfer."""
    repeated_augmentation = 1
    """Copies of an image in a training batch; more than one only for splits that stay encoded."""

    def __init__(
        self,
        *,
        name: str,
        labels: Sequence[str],
        preprocess: Preprocess,
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        val_size: int = 0,
        seed: int | None = None,
        augment: Augment = Augment(),
        mix: Mix = Mix(),
        class_weights: ClassWeights | None = None,
        sampling: Sampling = "uniform",
    ) -> None:
        """Check and keep the settings; `prepare_data` and `setup` download and read the images.

        Raises:
            UsageError: a setting that is out of range.
        """
        super().__init__()
        eval_size = batch_size if eval_batch_size is None else eval_batch_size
        least_values = {"batch_size": (batch_size, 1), "eval_batch_size": (eval_size, 1), "val_size": (val_size, 0), "seed": (seed or 0, 0)}
        for key, (value, least) in least_values.items():
            check_number(f"data.{key}", value, whole=True)
            if value < least:
                raise UsageError(f"data.{key} is {value}: it must be {least} or more.")
        if bad := unprintable(labels):
            raise UsageError(f"labels has {shortened(bad)}: the name of a class must be one line of printable text. Rename the class.")
        augment.check(preprocess.channels, preprocess.shape, preprocess.bits)
        if sampling not in get_args(Sampling):
            raise UsageError(f"data.sampling is {sampling}: it must be {' or '.join(get_args(Sampling))}. Use uniform, the default.")
        if self.multi_label and sampling == "balanced":
            raise UsageError(
                "data.sampling is balanced: each image has several labels, or none, so that no order of images has all classes equally "
                "often. Use uniform, with data.class_weights balanced."
            )
        self.name, self.labels = name, tuple(labels)
        self.preprocess = preprocess
        self.batch_size = batch_size
        self.eval_batch_size = eval_size
        self.val_size = val_size
        self.augment, self.mix = augment, mix
        self.class_weights, self.sampling = checked_class_weights(class_weights, labels), sampling
        self._seed = seed
        self._splits: dict[str, AnySplit] = {}
        self._normalizer: Normalizer | None = None
        self._accumulation = 1

    @abstractmethod
    def load_split(self, split: Literal["train", "test"]) -> AnySplit:
        """Return the official training set, validation included, or the official test set, in canonical order."""

    def load_validation(self) -> AnySplit | None:
        """Return the dataset's own validation split, or None if validation images are set apart from the training set."""
        return None

    @property
    def has_training(self) -> bool:
        """Whether there are training images; not so where a trained network is evaluated on images elsewhere."""
        return True

    @property
    def has_validation(self) -> bool:
        """Whether there are validation images."""
        return self.val_size > 0

    def validation_split(self, labels: Tensor) -> tuple[Tensor, Tensor] | None:
        """Choose the training images that are set apart for validation.

        Args:
            labels: The labels of all training images, see `loading.labels`.

        Returns:
            int64 numbers, ascending, of the images that are kept and of those that are set apart; None if none are.
        """
        return stratified_split(labels, self.val_size, SPLIT_SEED, Draw.VAL_SPLIT) if self.val_size else None

    def for_training(self, split: AnySplit) -> AnySplit:
        """Return the training split as it is used in training, if that differs from evaluation."""
        return split

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.labels)

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several classes, or none."""
        return False

    @property
    def in_channels(self) -> int:
        """Channels of an image: 1 is gray, 3 is RGB."""
        return self.preprocess.channels

    @property
    def image_size(self) -> Size:
        """Height and width of the network's input, in pixels; one number for a square."""
        return self.preprocess.size

    @property
    def seed(self) -> int:
        """Seed of the order and the augmentation."""
        # Lightning's seed_everything keeps its seed in the environment, so that launched processes find it too.
        return int(os.environ.get("PL_GLOBAL_SEED", "0")) if self._seed is None else self._seed

    @property
    def splits(self) -> dict[str, AnySplit]:
        """The splits that are loaded, out of `train`, `val` and `test`; each is in canonical order."""
        return dict(self._splits)

    @property
    def batch_plan(self) -> BatchPlan:
        """How the current trainer divides `batch_size`; its text is meant for the user.

        Raises:
            UsageError: a batch size that cannot be divided.
        """
        devices, accumulation = 1, 1
        if (trainer := self.trainer) is not None:
            devices, accumulation = trainer.world_size, trainer.accumulate_grad_batches
        plan = BatchPlan(self.batch_size, devices, accumulation)
        return plan.fit_to(len(self._splits["train"])) if "train" in self._splits else plan

    def data_info(self) -> dict[str, Any]:
        """Return what checkpoints and model cards record about the data, in JSON types; `splits` has the loaded ones."""
        return {
            "name": self.name,
            "num_classes": self.num_classes,
            "in_channels": self.in_channels,
            "image_size": plain(self.image_size),
            "labels": list(self.labels),
            "preprocess": self.preprocess.to_dict(),
            "splits": {name: split.info() for name, split in self._splits.items()},
            "seed": self.seed,
            "batch_size": self.batch_size,
            "val_size": self.val_size,
            "augment": plain(self.augment),
            "mix": plain(self.mix),
            "class_weights": self._class_weights_info(),
            "sampling": self.sampling,
            "repeated_augmentation": self.repeated_augmentation,
        } | ({"multi_label": True} if self.multi_label else {})

    def setup(self, stage: str | None = None) -> None:
        """Load the splits of a stage; `fit` and `validate` never load the test set.

        Args:
            stage: `fit`, `validate`, `test` or `predict` (which predicts the test set); None for all.

        Raises:
            UsageError: no validation images in stage `validate`, or images that differ from the dataset's description.
        """
        if stage == "validate" and not self.has_validation:
            raise UsageError("data.val_size is 0: there are no images to validate on. Set it to the number of validation images.")
        stages = _SPLITS_OF_STAGE if stage is None else (stage,)
        needed = {name for one in stages for name in _SPLITS_OF_STAGE[one]} - self._splits.keys()
        if "test" in needed:
            self._splits["test"] = self._checked(self.load_split("test"))
        if needed & {"train", "val"}:
            if (own := self.load_validation()) is not None:
                self._splits["val"] = self._checked(own)
            if self.has_training:
                self._set_validation_apart(self._checked(self.load_split("train")))
                self._splits["train"] = self.for_training(self._splits["train"])

    def train_dataloader(self) -> TrainLoader:
        """Return the loader of random batches.

        Raises:
            UsageError: a batch size that cannot be divided over devices and accumulation steps.
        """
        split, plan, copies = self._resident("train"), self.batch_plan, self.repeated_augmentation
        if plan.batch_size % copies:
            raise UsageError(f"{plan}: {copies} copies of each image cannot divide it. Set data.repeated_augmentation to 1.")
        self._accumulation = plan.accumulation
        rank = self._rank_and_devices()[0]
        if plan.batch_size < self.batch_size and rank == 0:
            log.warning(
                "data.batch_size is %d, but there are only %d training images: each epoch is one batch of %d",
                *(self.batch_size, len(split), plan.batch_size),
            )
        if rank == 0:
            self._report_imbalance()
        # getattr: Lightning sets the attribute where mypy does not see it.
        overfits = bool(getattr(self.trainer, "overfit_batches", 0))
        options: dict[str, Any] = {"copies": copies, "same_order": overfits, "sampling": self.sampling}
        return TrainLoader(split, plan, rank=rank, seed=self.seed, position=self._position, **options)

    @property
    def val_dataloader(self) -> Callable[[], EvalLoader]:
        """The function that returns the loader of the validation split, or Lightning's own hook if there is no such split.

        Lightning validates if this hook is overridden. An empty loader would make it warn, and call the validation hooks
        without a batch.
        """
        return self._val_dataloader if self.has_validation else super().val_dataloader

    def test_dataloader(self) -> EvalLoader:
        """Return the loader of the test split."""
        return self._eval_loader("test")

    def predict_dataloader(self) -> EvalLoader:
        """Return the loader of the test split."""
        return self._eval_loader("test")

    def path_of(self, number: int) -> Path | None:
        """Return the path of an image of `predict_dataloader`, by its number; None if it has no file of its own."""
        return None

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment and mix, in training only, and normalize for the network; all of it on the device."""
        if not (isinstance(batch, tuple | list) and len(batch) == 3):  # of a loader of the user's own, such as images alone for predictions
            return batch
        images, labels, indices = batch
        dtype, memory_format = torch.float32, torch.contiguous_format
        trainer = self.trainer
        if trainer is not None:
            dtype, memory_format = network_format(trainer.lightning_module)
            if trainer.training:
                return self.training_batch(Batch(*batch), position_of(trainer).epoch, dtype, memory_format)
        labels = _for_loss(labels)
        if isinstance(images, list):
            normalize = self._normalizer_for(labels.device, dtype)
            return Batch([Views(normalize(views.images, memory_format), views.owners) for views in images], labels, indices)
        return Batch(self._normalizer_for(images.device, dtype)(images, memory_format), labels, indices)

    def training_batch(
        self,
        batch: Batch,
        epoch: int,
        dtype: torch.dtype = torch.float32,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> Batch:
        """Augment, normalize and mix a batch as in training.

        Args:
            batch: A batch of `train_dataloader`.
            epoch: Epoch, counted from 0.
            dtype: Dtype of the result.
            memory_format: Layout of the result.
        """
        images, labels, indices = batch
        labels = _for_loss(labels)
        images = self.augment(images, indices, seed=self.seed, epoch=epoch)
        images = self._normalizer_for(images.device, dtype)(images, memory_format)
        if self.mix.is_on(epoch):
            images, labels = self.mix(images, labels, indices, num_classes=self.num_classes, seed=self.seed, epoch=epoch)
        return Batch(images, labels, indices)

    def _val_dataloader(self) -> EvalLoader:
        return self._eval_loader("val")

    def class_counts(self) -> Tensor:
        """Return the number of training images of each class, int64 `(K,)`, once they are loaded."""
        return class_counts(self._splits["train"].labels, self.num_classes)

    def _class_weights_info(self) -> str | list[float]:
        """Return the weight of each class in the loss; a word if there are none, or if they depend on images that are not loaded."""
        if self.class_weights is None:
            return "none"  # not None, which a resume does not compare
        if self.class_weights == "balanced" and "train" not in self._splits:
            return "balanced"
        counts = self.class_counts() if self.class_weights == "balanced" else torch.zeros(0)
        if self.multi_label:
            return positive_weights(self.class_weights, self.labels, counts, len(self._splits["train"]) if len(counts) else 0)
        return loss_weights(self.class_weights, self.labels, counts)

    def _report_imbalance(self) -> None:
        if not (text := imbalance(self.class_counts(), self.labels)):
            return
        if self.class_weights is None and self.sampling == "uniform":
            keys = "data.class_weights" if self.multi_label else "data.class_weights or data.sampling"
            log.warning("%s. To train for all classes equally, set %s to balanced.", text, keys)
        else:
            log.info("%s", text)

    def _set_validation_apart(self, train: AnySplit) -> None:
        if self.val_size >= len(train):
            raise UsageError(f"data.val_size is {self.val_size}: it must be below {len(train)}, the number of training images.")
        if (numbers := self.validation_split(train.labels)) is None:
            self._splits["train"] = train
            return
        kept, taken = numbers
        self._splits |= {"train": train.subset(kept), "val": train.subset(taken)}

    def _checked(self, split: AnySplit) -> AnySplit:
        shape = (self.in_channels, *self.preprocess.shape)
        if isinstance(split, Split) and tuple(split.images.shape[1:]) != shape:
            raise UsageError(f"{self.name} has images of shape {tuple(split.images.shape[1:])}: its preprocess expects {shape}.")
        if len(split) == 0:
            raise UsageError(f"{self.name} has a split without images.")
        if self.multi_label or split.labels.ndim > 1:
            if not self.multi_label:
                raise UsageError(f"{self.name} has several labels for an image: its multi_label must be True. Override the property.")
            if split.labels.shape != (len(split), self.num_classes):
                raise UsageError(f"{self.name} has labels of shape {tuple(split.labels.shape)}: they must be (N, {self.num_classes}).")
            return split
        low, high = int(split.labels.min()), int(split.labels.max())
        if low < 0 or high >= self.num_classes:
            raise UsageError(f"{self.name} has labels from {low} to {high}: they must be 0 to {self.num_classes - 1}.")
        return split

    def _resident(self, name: str) -> AnySplit:
        if name not in self._splits:
            raise UsageError(f"the {name} split is not loaded: call setup() first.")
        split = self._splits[name]
        if (trainer := self.trainer) is not None and isinstance(split, Split) and split.nbytes <= self.resident_limit:
            split = self._splits[name] = split.to(trainer.strategy.root_device)
        return split

    def _eval_loader(self, name: str) -> EvalLoader:
        rank, devices = self._rank_and_devices()
        return EvalLoader(self._resident(name), batch_size=self.eval_batch_size, rank=rank, devices=devices)

    def _rank_and_devices(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _position(self) -> Position:
        if self.trainer is not None:
            restore_training_loaders(self.trainer)
        now = 1 if self.trainer is None else self.trainer.accumulate_grad_batches
        if now != self._accumulation:
            raise UsageError(
                f"trainer.accumulate_grad_batches went from {self._accumulation} to {now} in training: that would change the batch size. "
                "Keep it constant, without GradientAccumulationScheduler."
            )
        return position_of(self.trainer)

    def _normalizer_for(self, device: torch.device, dtype: torch.dtype) -> Normalizer:
        normalizer = self._normalizer
        if normalizer is None or normalizer.dtype != dtype or normalizer.scale.device != device:
            normalizer = self._normalizer = self.preprocess.normalizer(device, dtype)
        return normalizer


def _for_loss(labels: Tensor) -> Tensor:
    """Return labels as a step gets them: several classes of an image as float32."""
    return labels.float() if labels.ndim == 2 else labels
