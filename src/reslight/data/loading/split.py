"""`Split`: the images of a training, validation or test split, whole in memory, and how one split is taken from another."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from reslight.data.loading.fingerprint import canonical_order, fingerprint, image_keys
from reslight.data.loading.labels import strata
from reslight.data.rng import permutation
from reslight.messages import UsageError


class Batch(NamedTuple):
    """What a loader yields and, with float images, what a training step gets."""

    images: Any
    """`(N, C, H, W)`: uint8 from the loader; normalized, in the network's dtype, on the device. In a test with several views of
    each image, a list of `Views`."""
    labels: Tensor
    """int64 `(N,)`; float32 `(N, num_classes)`, the probability of each class, for mixed images; of several classes for an image, uint8
    `(N, num_classes)` from the loader and float32 on the device."""
    indices: Tensor
    """int64 `(N,)`: each image's number in its split; see `Split.rows_of` for an image that an epoch has several times."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images in canonical order with their labels. Tensors are shared, not copied: treat them as read-only."""

    images: Tensor
    """uint8 `(N, C, H, W)`, contiguous, on any device."""
    labels: Tensor
    """int64 `(N,)`, or uint8 `(N, num_classes)`, see `loading.labels`; on the same device."""
    keys: Tensor
    """uint8 `(N, 32)` on the CPU: the sha256 of every image, see `image_keys`."""

    @classmethod
    def from_images(cls, images: Tensor, labels: Tensor) -> Self:
        """Make a split of images, in canonical order.

        Args:
            images: uint8 `(N, C, H, W)` on the CPU, in any order.
            labels: int64 `(N,)`, or uint8 `(N, num_classes)`, see `loading.labels`.

        Raises:
            UsageError: other shapes or dtypes.
        """
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise UsageError(f"images are {images.dtype} {tuple(images.shape)}: they must be torch.uint8 (N, C, H, W).")
        is_multi_hot = labels.dtype == torch.uint8 and labels.ndim == 2 and len(labels) == len(images)
        if not is_multi_hot and (labels.dtype != torch.int64 or labels.shape != images.shape[:1]):
            expected = f"torch.int64 ({len(images)},), one for each image"
            raise UsageError(f"labels are {labels.dtype} {tuple(labels.shape)}: they must be {expected}.")
        keys = image_keys(images)
        return cls(images.contiguous(), labels, keys).subset(canonical_order(keys, labels))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 that identifies this split, see `loading.fingerprint`."""
        return fingerprint(self.keys, self.labels.cpu())

    @property
    def device(self) -> torch.device:
        """Device of images and labels."""
        return self.images.device

    @property
    def nbytes(self) -> int:
        """Size of the images in bytes."""
        return self.images.nbytes

    def info(self) -> dict[str, Any]:
        """Return the size and the fingerprint, for checkpoints and model cards."""
        return {"size": len(self), "fingerprint": self.fingerprint}

    def to(self, device: torch.device) -> Self:
        """Return the split with images and labels on `device`."""
        if self.device == device:
            return self
        return type(self)(self.images.to(device), self.labels.to(device), self.keys)

    def subset(self, indices: Tensor) -> Self:
        """Return the split of the images at `indices`, in that order; ascending indices keep a split canonical."""
        on_device = indices.to(self.device)
        return type(self)(
            self.images.index_select(0, on_device),
            self.labels.index_select(0, on_device),
            self.keys.index_select(0, indices.cpu()),
        )

    def readable(self) -> Self:
        """Return the split itself: all of its images have been read. The counterpart of `EncodedSplit.readable`."""
        return self

    def order(self, seed: int, epoch: int) -> Tensor:
        """Return the random order of the images in an epoch, int64 `(N,)` on the split's device."""
        return permutation(len(self), seed, epoch, device=self.device)

    def rows_of(self, numbers: Tensor) -> Tensor:
        """Return the rows of `labels` for `numbers` of `batches`: with N images, row i and its copies i + N, i + 2N, ... are one image."""
        return numbers % len(self)

    def batches(self, numbers: Iterable[Tensor], epoch: int) -> Iterator[Batch]:
        """Yield the batch of each of `numbers`; the epoch makes no difference to decoded images."""
        return map(self.batch, numbers)

    def batch(self, indices: Tensor) -> Batch:
        """Return copies of the images and labels with these numbers, int64 `(N,)` on the split's device, see `rows_of`."""
        rows = self.rows_of(indices)
        # index_select copies whole images; images[rows] copies value by value and takes ten times as long on a CPU.
        return Batch(self.images.index_select(0, rows), self.labels.index_select(0, rows), indices)


def stratified_split(labels: Tensor, size: int, seed: int, draw: int) -> tuple[Tensor, Tensor]:
    """Choose `size` images at random, each class in proportion (largest remainder, ties to the lower class).

    Args:
        labels: int64 `(N,)`, or uint8 `(N, num_classes)`, in canonical order; see `strata` for several classes of an image.
        size: Number of images to take, from 0 to N.
        seed: Seed of the choice; not the run's seed, so that runs with different seeds use the same images.
        draw: Purpose of the choice, see `Draw`.

    Returns:
        int64 numbers, ascending, of the images that are kept, and of those that are taken.
    """
    labels = strata(labels)
    counts = torch.bincount(labels)
    order = permutation(len(labels), seed, epoch=0, draw=draw)
    by_class = order[labels[order].argsort(stable=True)]  # the images of each class in their random order
    place = torch.arange(len(labels)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    is_taken = torch.zeros(len(labels), dtype=torch.bool)
    is_taken[by_class[place < class_quotas(counts, size).repeat_interleave(counts)]] = True
    return (~is_taken).nonzero().flatten(), is_taken.nonzero().flatten()


def class_quotas(counts: Tensor, size: int) -> Tensor:
    """Return how many of `size` images are of each class, in proportion to `counts` (largest remainder, ties to the lower class)."""
    total = int(counts.sum())
    quotas, remainders = counts * size // total, counts * size % total
    extra = remainders.argsort(descending=True, stable=True)[: size - int(quotas.sum())]
    quotas[extra] += 1
    return quotas
