"""Loaders over a split: which images a step gets.

They are plain iterables, not `torch.utils.data.DataLoader`s, which Lightning rebuilds with samplers that pad. They keep no
count: the order is a function of (seed, epoch), and an iteration starts at the position that the trainer has then. So a
resumed run gets the images that an uninterrupted run would have got.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from reslight.data.loading.balance import Sampling, balanced_order
from reslight.data.loading.encoded import EncodedSplit
from reslight.data.loading.split import Batch, Split
from reslight.data.rng import Draw, permutation
from reslight.lightning_private import batches_completed
from reslight.messages import UsageError, counted

AnySplit = Split | EncodedSplit
"""Images in memory, or images that stay encoded."""


class Position(NamedTuple):
    """How far training has come."""

    epoch: int
    batch: int
    """Batches that this device has finished in this epoch; each accumulation step counts as one."""


def position_of(trainer: Trainer | None) -> Position:
    """Return the trainer's position; (0, 0) without a trainer or outside training."""
    if trainer is None or not 0 < trainer.num_training_batches < math.inf:
        return Position(epoch=0, batch=0)
    return Position(*divmod(batches_completed(trainer), int(trainer.num_training_batches)))


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
            UsageError: a batch that cannot be divided; the message names the nearest sizes that can.
        """
        parts = self.devices * self.accumulation
        if self.batch_size < 1 or self.batch_size % parts:
            lower = self.batch_size // parts * parts
            fixes = f"{lower} or {lower + parts}" if lower > 0 else f"{parts}"
            raise UsageError(f"data.batch_size is {self.batch_size}: {self._parts_text} cannot divide it. Use {fixes}.")

    @property
    def per_device(self) -> int:
        """Images in one batch of one device."""
        return self.batch_size // (self.devices * self.accumulation)

    def fit_to(self, images: int) -> Self:
        """Return the plan for a dataset of `images`: this one, or a single smaller batch for a dataset smaller than a batch.

        Raises:
            UsageError: fewer images than parts of a batch.
        """
        parts = self.devices * self.accumulation
        if images >= self.batch_size:
            return self
        if images < parts:
            raise UsageError(f"{images} training images cannot be divided over {self._parts_text}. Use at most {images} in all.")
        return type(self)(images // parts * parts, self.devices, self.accumulation)

    def __str__(self) -> str:
        """Return the text that a run prints, e.g. `batch 128 = 2 devices x 1 accumulation step x 64`."""
        return f"batch {self.batch_size} = {self._parts_text} x {self.per_device}"

    @property
    def _parts_text(self) -> str:
        return f"{counted(self.devices, 'device')} x {counted(self.accumulation, 'accumulation step')}"


class TrainLoader:
    """One epoch of random batches. All batches are full: the images that do not fill one are left out of the epoch, in turn.

    With N images and r = N mod `batch_size`, epoch e leaves out the images number e*r to e*r + r - 1, modulo N, of one permutation
    that depends on the seed alone. So all images are left out equally often, and none of them in two epochs running. With several
    copies of an image, where an epoch has a random part of the images anyway, the last ones of its order are left out. Balanced
    sampling fills the same batches with other images, see `balanced_order`.

    With b images per device, W devices and A accumulation steps, batch m of step k on rank r takes b images of the epoch's
    order, from number `((k*A + m)*W + r) * b` on: a step has the same images for any W and A.
    """

    def __init__(
        self,
        split: AnySplit,
        plan: BatchPlan,
        *,
        rank: int,
        seed: int,
        position: Callable[[], Position],
        copies: int = 1,
        same_order: bool = False,
        sampling: Sampling = "uniform",
    ) -> None:
        """Prepare to iterate; nothing is computed yet.

        Args:
            split: The training images.
            plan: The division of a batch; must fit the split.
            rank: This process's number, from 0 to `plan.devices - 1`.
            seed: Seed of the order.
            position: Returns where an iteration starts; called at its first batch.
            copies: Copies of an image in a batch, see `repeated`.
            same_order: Whether all epochs have the order of epoch 0, to overfit a few batches.
            sampling: uniform for all images equally often, balanced for all classes equally often.

        `rotates` is whether images are left out in turn; runs from before that resume with the last ones of each order left out.
        """
        self.split = split
        self.plan = plan
        self.rank = rank
        self.seed = seed
        self.copies = copies
        self.same_order = same_order
        self.rotates = copies == 1
        self.sampling = sampling
        self._position = position

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch on this device."""
        return len(self.split) // self.plan.batch_size * self.plan.accumulation

    @property
    def left_out(self) -> int:
        """Number of images that are left out of an epoch because they do not fill a batch; 0 where images are drawn by class."""
        return 0 if self.sampling == "balanced" else len(self.split) % self.plan.batch_size

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches from the trainer's position to the end of the epoch.

        A generator, because Lightning calls `iter()` before it restores a checkpoint's progress, and `next()` after.
        """
        epoch, done = self._position()
        order = self._order(0 if self.same_order else epoch)
        size = self.plan.per_device
        starts = ((batch * self.plan.devices + self.rank) * size for batch in range(done, len(self)))
        if self.copies > 1:
            order = repeated(order, self.plan.batch_size, self.copies, len(self.split))
        for batch in self.split.batches((order[start : start + size] for start in starts), epoch):
            if not len(batch.labels):
                raise UsageError(
                    f"a training batch has {size} images, and none of them can be read. `reslight data check` lists the files."
                )
            yield batch

    def _order(self, epoch: int) -> Tensor:
        """Return the images of an epoch in their order, int64; those that are left out are missing or last."""
        images, device = len(self.split), self.split.device
        if self.sampling == "balanced":
            draws = (images - images % self.plan.batch_size) // self.copies
            return balanced_order(self.split.labels.cpu(), draws, self.seed, epoch, spread=self.copies).to(device)
        order = self.split.order(self.seed, epoch)
        if not self.rotates or not self.left_out:
            return order
        turns = permutation(images, self.seed, 0, Draw.LEFT_OUT, device)
        is_used = torch.ones(images, dtype=torch.bool, device=device)
        is_used[turns[(torch.arange(self.left_out, device=device) + epoch * self.left_out) % images]] = False
        return order[is_used[order]]

    def state_dict(self) -> dict[str, int]:
        """Return the units of a checkpoint's position, and whether images are left out in turn."""
        return self._units() | ({"rotates": 1} if self.rotates else {})

    def _units(self) -> dict[str, int]:
        return {
            "images": len(self.split),
            "batch_size": self.plan.batch_size,
            "accumulation": self.plan.accumulation,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restore whether images are left out in turn, and check that a checkpoint's position has the same units here.

        The number of devices may differ.

        Raises:
            UsageError: another batch size, accumulation or number of images in the checkpoint.
        """
        names = {
            "images": "the number of training images",
            "batch_size": "data.batch_size",
            "accumulation": "trainer.accumulate_grad_batches",
        }
        for key, now in self._units().items():
            if state.get(key, now) != now:
                raise UsageError(
                    f"{names[key]} is {now}: the checkpoint was saved with {state[key]}, and its position within the epoch "
                    f"depends on that. Resume with {state[key]}."
                )
        self.rotates = self.copies == 1 and bool(state.get("rotates", 0))


def repeated(order: Tensor, batch_size: int, copies: int, images: int) -> Tensor:
    """Return an epoch's order with repeated augmentation (Hoffer et al. 2019, arXiv:1901.09335): copies of an image in a batch.

    An epoch has as many batches as before, so each epoch uses another part of the images. A batch has its distinct images one
    after the other, then their copies: neighbors, which may be mixed, are never the same image.

    Args:
        order: The images of an epoch, int64; as many as it has places for different ones, or more.
        batch_size: Images of a batch; `copies` divides it.
        copies: Copies of each image.
        images: N, the number of images of the split.

    Returns:
        int64 `(N // batch_size * batch_size,)`: copy c of image i has the number `c * N + i`, see `Split.rows_of`.
    """
    batches, distinct = images // batch_size, batch_size // copies
    rows = order[: batches * distinct].view(batches, 1, distinct)
    return (rows + torch.arange(copies).view(1, copies, 1) * images).flatten()


class EvalLoader:
    """Every image of a split once: this rank's share, in order and unpadded.

    A rank without images yields one empty batch: Lightning skips a loader without batches, and the other ranks would then
    wait for this one when the counts are added up.
    """

    def __init__(self, split: AnySplit, *, batch_size: int, rank: int, devices: int) -> None:
        """Prepare to iterate.

        Args:
            split: The images.
            batch_size: Images per batch over all devices; need not be divisible.
            rank: This process's number, from 0 to `devices - 1`.
            devices: Number of processes that share the split; may be larger than the number of images.
        """
        self.split = split
        self.batch_size = math.ceil(batch_size / devices)
        self.rank = rank
        self.devices = devices

    def __len__(self) -> int:
        """Return the number of batches of this rank."""
        return max(1, math.ceil(len(range(self.rank, len(self.split), self.devices)) / self.batch_size))

    def __iter__(self) -> Iterator[Batch]:
        """Yield the images numbered rank, rank + devices, rank + 2 devices, ..."""
        share = torch.arange(self.rank, max(self.rank, len(self.split)), self.devices, device=self.split.device)
        return self.split.batches(torch.split(share, self.batch_size), epoch=0)
