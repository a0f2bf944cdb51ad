"""`ImageDataModule`: the one road of the data, from a split in memory to the batch that a network gets.

    split (uint8) -> loader -> device -> augment -> normalise, in the network's dtype and memory format

It works in any Lightning Trainer with any LightningModule; a step gets `(images, labels, indices)`. A data set is a
subclass that says what it is called and how its splits are had; everything else is here.
"""

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import nn

from reslight.data.augment.augment import Augment
from reslight.data.augment.mixup import Mix
from reslight.data.augment.views import Views
from reslight.data.loading.loaders import AnySplit, BatchPlan, EvalLoader, Position, TrainLoader, order_position_of, position_of
from reslight.data.loading.split import Batch, Split, carve
from reslight.data.rng import Draw
from reslight.messages import UsageError
from reslight.preprocess import Normalizer, Preprocess

log = logging.getLogger(__name__)

SPLIT_SEED = 0
"""Seed of which images are carved from which. Not the run's seed: all runs train and validate on the same images."""

_PARTS_OF_STAGE = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("test",)}


class ImageDataModule(LightningDataModule, ABC):
    """Base of every data set."""

    resident_limit = 2**30
    """Splits of at most so many bytes are kept on the training device, where a batch costs no transfer."""

    def __init__(
        self,
        *,
        name: str,
        labels: Sequence[str],
        preprocess: Preprocess,
        batch_size: int,
        eval_batch_size: int | None,
        val_size: int,
        seed: int | None,
        augment: Augment,
        mix: Mix = Mix(),
        repeated_augmentation: int = 1,
    ) -> None:
        """Check and keep the settings; nothing is read or downloaded before `prepare_data` and `setup`.

        Args:
            name: Name of the data set.
            labels: Name of each class, in the order of their numbers.
            preprocess: Size and statistics of the images.
            batch_size: Training images per optimizer step, over all devices and accumulation steps.
            eval_batch_size: Images per evaluation batch, over all devices; `batch_size` when left out.
            val_size: Images carved from the training set for validation, the same ones in every run; 0 for no
                validation.
            seed: Seed of the order and the augmentation; `seed_everything`'s when left out, 0 where there is none.
            augment: Augmentation of training images.
            mix: Training images mixed with one another.
            repeated_augmentation: Copies of an image in a training batch, each augmented for itself, of images that stay files.

        Raises:
            ValueError: A setting is out of range.
        """
        super().__init__()
        for what, value, least in (
            ("batch_size", batch_size, 1),
            ("eval_batch_size", batch_size if eval_batch_size is None else eval_batch_size, 1),
            ("val_size", val_size, 0),
            ("repeated_augmentation", repeated_augmentation, 1),
        ):
            if value < least:
                raise UsageError(f"data.{what} is {value}, must be at least {least}")
        copies = repeated_augmentation
        if batch_size % copies:
            raise UsageError(
                f"data.batch_size is {batch_size}: {copies} copies of each image (data.repeated_augmentation) cannot divide it. "
                f"Use {-(-batch_size // copies) * copies}."
            )
        if copies > 1 and batch_size < 2 * copies and mix.is_on(0):
            raise UsageError(
                f"data.repeated_augmentation is {copies}: in batches of {batch_size} every image would be mixed with itself. "
                f"Use a data.batch_size of {2 * copies} or more."
            )
        augment.check(preprocess.channels, preprocess.size)
        self.name = name
        self.labels = tuple(labels)
        self.preprocess = preprocess
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.val_size = val_size
        self.augment = augment
        self.mix = mix
        self.repeated_augmentation = repeated_augmentation
        self._seed = seed
        self._splits: dict[str, AnySplit] = {}
        self._normalizer: Normalizer | None = None
        self._accumulation = 1

    @abstractmethod
    def load_split(self, part: Literal["train", "test"]) -> AnySplit:
        """Return the official training set, validation included, or the official test set, in canonical order."""

    def load_validation(self) -> AnySplit | None:
        """Return the validation split of a set that has its own; None where it is carved from the training set."""
        return None

    @property
    def has_validation(self) -> bool:
        """Whether there are images to validate on: some that are carved from the training set, or a subclass's own."""
        return self.val_size > 0

    def for_training(self, split: AnySplit) -> AnySplit:
        """Return the training split as training sees it, where that is other than in evaluation."""
        return split

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.labels)

    @property
    def in_channels(self) -> int:
        """Channels of an image: 1 is grey, 3 is RGB."""
        return self.preprocess.channels

    @property
    def image_size(self) -> int:
        """Height and width, in pixels, of what the network gets."""
        return self.preprocess.size

    @property
    def seed(self) -> int:
        """Seed of the order and the augmentation."""
        # Lightning's seed_everything leaves its seed in the environment, so that launched processes find it too
        return int(os.environ.get("PL_GLOBAL_SEED", "0")) if self._seed is None else self._seed

    @property
    def splits(self) -> dict[str, AnySplit]:
        """The splits loaded so far, of `train`, `val` and `test`; each is in canonical order."""
        return dict(self._splits)

    @property
    def batch_plan(self) -> BatchPlan:
        """How the current trainer divides `batch_size`; its text is for the user.

        Raises:
            ValueError: It cannot be divided.
        """
        devices, accumulation = 1, 1
        if (trainer := self.trainer) is not None:
            devices, accumulation = trainer.world_size, trainer.accumulate_grad_batches
        plan = BatchPlan(self.batch_size, devices, accumulation)
        return plan.fit_to(len(self._splits["train"])) if "train" in self._splits else plan

    def describe(self) -> dict[str, Any]:
        """Return what checkpoints and cards must know of the data, in JSON types; `splits` has those loaded so far."""
        return {
            "name": self.name,
            "num_classes": self.num_classes,
            "in_channels": self.in_channels,
            "image_size": self.image_size,
            "labels": list(self.labels),
            "preprocess": self.preprocess.to_dict(),
            "splits": {part: described_split(split) for part, split in self._splits.items()},
            "seed": self.seed,
            "batch_size": self.batch_size,
            "val_size": self.val_size,
            "augment": plain(self.augment),
            "mix": plain(self.mix),
            "repeated_augmentation": self.repeated_augmentation,
        }

    def setup(self, stage: str | None = None) -> None:
        """Load the splits of a stage; `fit` and `validate` never touch the test set.

        Args:
            stage: `fit`, `validate`, `test` or `predict` (which predicts the test set); all when left out.

        Raises:
            ValueError: The stage needs a validation split and there is none, or the images are not what was announced.
        """
        if stage == "validate" and not self.has_validation:
            raise UsageError("data.val_size is 0, so there is nothing to validate on; set it to the number of images")
        stages = _PARTS_OF_STAGE if stage is None else (stage,)
        needed = {part for one in stages for part in _PARTS_OF_STAGE[one]} - self._splits.keys()
        if "test" in needed:
            self._splits["test"] = self._checked(self.load_split("test"))
        if needed & {"train", "val"}:
            if (own := self.load_validation()) is not None:
                self._splits["val"] = self._checked(own)
            self._carve_validation(self._checked(self.load_split("train")))
            self._splits["train"] = self.for_training(self._splits["train"])

    def train_dataloader(self) -> TrainLoader:
        """Return the loader of random batches.

        Raises:
            ValueError: The batch size cannot be divided over devices and accumulation steps.
        """
        split, plan = self._resident("train"), self.batch_plan
        if plan.batch_size % self.repeated_augmentation:
            raise UsageError(
                f"{plan}: {self.repeated_augmentation} copies of each image cannot divide it. Set data.repeated_augmentation to 1."
            )
        self._accumulation = plan.accumulation
        rank = self._rank_and_devices()[0]
        if plan.batch_size < self.batch_size and rank == 0:
            log.warning(
                "batch_size is %d, but there are only %d training images: each epoch is one batch of %d",
                self.batch_size,
                len(split),
                plan.batch_size,
            )
        return TrainLoader(split, plan, rank=rank, seed=self.seed, position=self._order_position, copies=self.repeated_augmentation)

    @property
    def val_dataloader(self) -> Callable[[], EvalLoader]:
        """The function that returns the loader of the validation split, or, without one, the hook as Lightning has it.

        Lightning validates where this hook is overridden. An empty loader would make it warn, and call the validation
        hooks without a batch.
        """
        return self._val_dataloader if self.has_validation else super().val_dataloader

    def test_dataloader(self) -> EvalLoader:
        """Return the loader of the test split."""
        return self._eval_loader("test")

    def predict_dataloader(self) -> EvalLoader:
        """Return the loader of the test split."""
        return self._eval_loader("test")

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment and mix, in training only, and normalise for the network: the last stretch of the road, on the device."""
        images, labels, indices = batch
        dtype, memory_format = torch.float32, torch.contiguous_format
        trainer, epoch = self.trainer, None
        if trainer is not None:
            dtype, memory_format = network_format(trainer.lightning_module)
            if trainer.training:
                epoch = self._position().epoch
                images = self.augment(images, indices, seed=self.seed, epoch=epoch)
        if isinstance(images, list):
            normalize = self._normalizer_for(labels.device, dtype)
            return Batch([Views(normalize(views.images, memory_format), views.owners) for views in images], labels, indices)
        images = self._normalizer_for(images.device, dtype)(images, memory_format)
        if epoch is not None and self.mix.is_on(epoch):
            images, labels = self.mix(images, labels, indices, num_classes=self.num_classes, seed=self.seed, epoch=epoch)
        return Batch(images, labels, indices)

    def _val_dataloader(self) -> EvalLoader:
        return self._eval_loader("val")

    def _carve_validation(self, train: AnySplit) -> None:
        if self.val_size >= len(train):
            raise UsageError(f"data.val_size is {self.val_size}, must be below the {len(train)} training images")
        if not self.val_size:
            self._splits["train"] = train
            return
        kept, taken = carve(train.labels, self.val_size, SPLIT_SEED, Draw.VAL_SPLIT)
        self._splits |= {"train": train.take(kept), "val": train.take(taken)}

    def _checked(self, split: AnySplit) -> AnySplit:
        shape = (self.in_channels, self.image_size, self.image_size)
        if isinstance(split, Split) and tuple(split.images.shape[1:]) != shape:
            raise UsageError(f"{self.name} has images of shape {tuple(split.images.shape[1:])}, expected {shape}")
        if len(split) == 0:
            raise UsageError(f"{self.name} has a split without images")
        low, high = int(split.labels.min()), int(split.labels.max())
        if low < 0 or high >= self.num_classes:
            raise UsageError(f"{self.name} has labels from {low} to {high}, expected 0 to {self.num_classes - 1}")
        return split

    def _resident(self, part: str) -> AnySplit:
        if part not in self._splits:
            raise UsageError(f"the {part} split is not loaded; call setup() first")
        split = self._splits[part]
        if (trainer := self.trainer) is not None and isinstance(split, Split) and split.nbytes <= self.resident_limit:
            split = self._splits[part] = split.to(trainer.strategy.root_device)
        return split

    def _eval_loader(self, part: str) -> EvalLoader:
        rank, devices = self._rank_and_devices()
        return EvalLoader(self._resident(part), batch_size=self.eval_batch_size, rank=rank, devices=devices)

    def _rank_and_devices(self) -> tuple[int, int]:
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)

    def _position(self) -> Position:
        return position_of(self.trainer)

    def _order_position(self) -> Position:
        return order_position_of(self.trainer, self._accumulation)

    def _normalizer_for(self, device: torch.device, dtype: torch.dtype) -> Normalizer:
        kept = self._normalizer
        if kept is None or kept.dtype != dtype or kept.scale.device != device:
            kept = self._normalizer = self.preprocess.normalizer(device, dtype)
        return kept


def plain(settings: Any) -> dict[str, Any]:
    """A dataclass of settings."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(settings).items()}


def described_split(split: AnySplit) -> dict[str, Any]:
    """A split: its size, its fingerprint, and of images that stay files how many could not be read, if any."""
    skipped = 0 if isinstance(split, Split) else split.skipped
    return {"size": len(split), "fingerprint": split.fingerprint} | ({"skipped": skipped} if skipped else {})


def network_format(module: nn.Module) -> tuple[torch.dtype, torch.memory_format]:
    """Return the dtype and memory format that a network's parameters have.

    Returns:
        The dtype of the first floating-point parameter, float32 where there is none; and channels_last if the first
        convolution weight of which it can be told is, else contiguous. (Of 1x1 kernels and single input channels it
        cannot: both layouts are the same.)
    """
    dtype = None
    for parameter in module.parameters():
        if dtype is None and parameter.is_floating_point():
            dtype = parameter.dtype
        if parameter.ndim == 4:
            is_channels_last = parameter.is_contiguous(memory_format=torch.channels_last)
            if is_channels_last != parameter.is_contiguous():
                return dtype or torch.float32, torch.channels_last if is_channels_last else torch.contiguous_format
    return dtype or torch.float32, torch.contiguous_format
