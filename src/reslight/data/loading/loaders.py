"""Loaders over a split: which images a step gets.

They are plain iterables, not `torch.utils.data.DataLoader`s, which Lightning rebuilds with samplers that pad. And they
count nothing: the order is a function of (seed, epoch), and where in it to start is asked of the trainer whenever an
iteration begins, so that a resumed run sees the images that an uninterrupted one would have seen.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from reslight.data.loading.encoded import EncodedSplit
from reslight.data.loading.split import Batch, Split
from reslight.data.rng import permutation
from reslight.messages import UsageError

AnySplit = Split | EncodedSplit
"""Images in memory, or images that stay files."""


class Position(NamedTuple):
    """Where in training an iteration begins."""

    epoch: int
    batch: int
    """Batches of this device already consumed in this epoch; each accumulation step counts as one."""


def position_of(trainer: Trainer | None) -> Position:
    """Where training is, when a batch is about to be handed out or is on its way; the beginning where there is none."""
    if trainer is None or not 0 < trainer.num_training_batches < math.inf:  # no training is going on
        return Position(epoch=0, batch=0)
    # The number of batches trained on tells both. Lightning's own epoch counter is one ahead after resuming from a
    # checkpoint that was saved as training ended, or as an epoch began.
    done = trainer.fit_loop.epoch_loop.batch_progress.total.completed
    return Position(*divmod(done, int(trainer.num_training_batches)))


def order_position_of(trainer: Trainer | None, accumulation: int) -> Position:
    """Where in which epoch's order training is.

    Args:
        trainer: The trainer, if there is one.
        accumulation: What the batch was divided by.

    Raises:
        ValueError: The trainer's accumulation is another by now.
    """
    now = 1 if trainer is None else trainer.accumulate_grad_batches
    if now != accumulation:
        raise UsageError(
            f"accumulate_grad_batches went from {accumulation} to {now} in training, which would "
            f"change the batch size; keep it constant, without GradientAccumulationScheduler"
        )
    position = position_of(trainer)
    # To overfit some batches they must be the same ones in every epoch. (getattr: Lightning sets it unseen by mypy)
    return position._replace(epoch=0) if getattr(trainer, "overfit_batches", 0) else position


@dataclass(frozen=True)
class BatchPlan:
    """How a global batch is divided: over accumulation steps first, over devices second."""

    batch_size: int
    """Images per optimizer step, over all devices."""
    devices: int
    accumulation: int

    def __post_init__(self) -> None:
        """Check that the batch can be divided.

        Raises:
            ValueError: It cannot; the message names the nearest sizes that can.
        """
        parts = self.devices * self.accumulation
        if self.batch_size < 1 or self.batch_size % parts:
            lower = self.batch_size // parts * parts
            fixes = f"{lower} or {lower + parts}" if lower > 0 else f"{parts}"
            raise UsageError(f"data.batch_size is {self.batch_size}, which {self._parts_text} cannot divide; use {fixes}")

    @property
    def per_device(self) -> int:
        """Images in one batch of one device."""
        return self.batch_size // (self.devices * self.accumulation)

    def fit_to(self, images: int) -> Self:
        """Return the plan for a set of `images`: this one, or a single smaller batch where the set is smaller than one.

        Raises:
            ValueError: There are fewer images than parts of a batch.
        """
        parts = self.devices * self.accumulation
        if images >= self.batch_size:
            return self
        if images < parts:
            raise UsageError(f"{images} training images cannot be shared by {self._parts_text}; use at most {images} in all")
        return type(self)(images // parts * parts, self.devices, self.accumulation)

    def __str__(self) -> str:
        """Return it as a run prints it, e.g. `batch 128 = 2 devices x 1 accumulation x 64`."""
        return f"batch {self.batch_size} = {self._parts_text} x {self.per_device}"

    @property
    def _parts_text(self) -> str:
        return f"{self.devices} device{'s' if self.devices > 1 else ''} x {self.accumulation} accumulation"


class TrainLoader:
    """One epoch of random batches; the images beyond the last full global batch sit this epoch out.

    With b images per device, W devices and A accumulation steps, batch m of step k on rank r takes b places of the
    epoch's order, from place `((k*A + m)*W + r) * b` on: whatever W and A are, a step is made of the same images.
    """

    def __init__(
        self, split: AnySplit, plan: BatchPlan, *, rank: int, seed: int, position: Callable[[], Position], copies: int = 1
    ) -> None:
        """Prepare to iterate; nothing is computed yet.

        Args:
            split: The training images.
            plan: The division of a batch; must fit the split.
            rank: This process's number, from 0 to `plan.devices - 1`.
            seed: Seed of the order.
            position: Answers where an iteration begins; asked at its first batch.
            copies: Copies of an image in a batch, see `repeated`.
        """
        self.split = split
        self.plan = plan
        self.rank = rank
        self.seed = seed
        self.copies = copies
        self._position = position

    def __len__(self) -> int:
        """Return the batches of a whole epoch on this device."""
        return len(self.split) // self.plan.batch_size * self.plan.accumulation

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches from the trainer's position to the end of the epoch.

        A generator: Lightning calls `iter()` before it has restored a checkpoint's progress, and `next()` after.
        """
        epoch, done = self._position()
        order = permutation(len(self.split), self.seed, epoch, device=self.split.device)
        size = self.plan.per_device
        starts = ((batch * self.plan.devices + self.rank) * size for batch in range(done, len(self)))
        if self.copies > 1:
            order = repeated(order, self.plan.batch_size, self.copies)
        for batch in self.split.batches((order[start : start + size] for start in starts), epoch):
            if not len(batch.labels):
                raise UsageError(f"none of {size} images of a training batch can be read; `reslight data check` lists those that cannot")
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return what the position in a checkpoint counts in; nothing is restored from it but the right to resume."""
        return {
            "images": len(self.split),
            "batch_size": self.plan.batch_size,
            "accumulation": self.plan.accumulation,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Check that a checkpoint's position means the same here. The number of devices may differ.

        Raises:
            ValueError: The checkpoint was taken with another batch size, accumulation or number of images.
        """
        names = {
            "images": "the number of training images",
            "batch_size": "data.batch_size",
            "accumulation": "trainer.accumulate_grad_batches",
        }
        for key, now in self.state_dict().items():
            if state.get(key, now) != now:
                raise UsageError(
                    f"{names[key]} is {now}, but the checkpoint was taken at {state[key]}, where its position in the "
                    f"epoch counts differently; resume with {state[key]}"
                )


def repeated(order: Tensor, batch_size: int, copies: int) -> Tensor:
    """Repeated augmentation (Hoffer et al. 2019, arXiv:1901.09335): copies of an image, differently augmented, in one batch.

    An epoch has as many places as before, so that each sees another part of the images. A batch is its distinct images one
    after the other, then their copies: neighbours, which may be mixed, are never the same image.

    Args:
        order: int64 `(N,)`, the images of an epoch.
        batch_size: Places of a batch; `copies` divides it.
        copies: Copies of each image.

    Returns:
        int64 `(N // batch_size * batch_size,)`: copy c of image i is numbered `c * N + i`, see `EncodedSplit.batches`.
    """
    batches, distinct = len(order) // batch_size, batch_size // copies
    rows = order[: batches * distinct].view(batches, 1, distinct)
    return (rows + torch.arange(copies).view(1, copies, 1) * len(order)).flatten()


class EvalLoader:
    """Every image of a split once, this rank's share of them, in order and unpadded.

    A rank without a share has one batch without images: Lightning leaves out one that has no batch, and the others
    would wait for it where their counts are added up.
    """

    def __init__(self, split: AnySplit, *, batch_size: int, rank: int, devices: int) -> None:
        """Prepare to iterate.

        Args:
            split: The images.
            batch_size: Images per batch over all devices; need not be divisible.
            rank: This process's number, from 0 to `devices - 1`.
            devices: Number of processes that share the split. There may be more than images.
        """
        self.split = split
        self.batch_size = math.ceil(batch_size / devices)
        self.rank = rank
        self.devices = devices

    def __len__(self) -> int:
        """Return the batches of this rank."""
        return max(1, math.ceil(len(range(self.rank, len(self.split), self.devices)) / self.batch_size))

    def __iter__(self) -> Iterator[Batch]:
        """Yield the images numbered rank, rank + devices, rank + 2 devices, ..."""
        share = torch.arange(self.rank, max(self.rank, len(self.split)), self.devices, device=self.split.device)
        return self.split.batches(torch.split(share, self.batch_size), epoch=0)
