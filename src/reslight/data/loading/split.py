"""`Split`: the images of a training, validation or test split, whole in memory, and how one is carved from another."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from reslight.data.loading.fingerprint import canonical_order, fingerprint, image_keys
from reslight.data.rng import permutation
from reslight.messages import UsageError


class Batch(NamedTuple):
    """What a loader yields and, with float images, what a training step gets."""

    images: Any
    """`(N, C, H, W)`: uint8 from the loader; normalised, in the network's dtype, once on the device. Or, in a test on several
    views of each image, a list of `Views`."""
    labels: Tensor
    """int64 `(N,)`; float32 `(N, num_classes)`, the probability of each class, where images were mixed."""
    indices: Tensor
    """int64 `(N,)`: each image's number in its split."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images in canonical order with their labels. Tensors are shared, not copied: treat them as read-only."""

    images: Tensor
    """uint8 `(N, C, H, W)`, contiguous, on any device."""
    labels: Tensor
    """int64 `(N,)` on the same device."""
    keys: Tensor
    """uint8 `(N, 32)` on the CPU: the sha256 of every image, see `image_keys`."""

    @classmethod
    def from_images(cls, images: Tensor, labels: Tensor) -> Self:
        """Put images in canonical order.

        Args:
            images: uint8 `(N, C, H, W)` on the CPU, in any order.
            labels: int64 `(N,)`.

        Raises:
            ValueError: Shapes or dtypes are not those above.
        """
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise UsageError(f"images are {images.dtype} {tuple(images.shape)}, must be torch.uint8 (N, C, H, W)")
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise UsageError(f"labels are {labels.dtype} {tuple(labels.shape)}, must be torch.int64 ({len(images)},), one per image")
        keys = image_keys(images)
        return cls(images.contiguous(), labels, keys).take(canonical_order(keys, labels))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 that names this split, see `canonical.fingerprint`."""
        return fingerprint(self.keys, self.labels.cpu())

    @property
    def device(self) -> torch.device:
        """Where images and labels are."""
        return self.images.device

    @property
    def nbytes(self) -> int:
        """The size of the images."""
        return self.images.nbytes

    def to(self, device: torch.device) -> Self:
        """Return the split with images and labels on `device`."""
        if self.device == device:
            return self
        return type(self)(self.images.to(device), self.labels.to(device), self.keys)

    def take(self, indices: Tensor) -> Self:
        """Return the split of the images at `indices`, in that order; ascending indices keep a split canonical."""
        on_device = indices.to(self.device)
        return type(self)(
            self.images.index_select(0, on_device),
            self.labels.index_select(0, on_device),
            self.keys.index_select(0, indices.cpu()),
        )

    def batches(self, numbers: Iterable[Tensor], epoch: int) -> Iterator[Batch]:
        """Return copies of the images and labels at each of `numbers`; the epoch changes nothing in images that are decoded."""
        return map(self.batch, numbers)

    def batch(self, indices: Tensor) -> Batch:
        """Return copies of the images and labels at `indices`, int64 `(N,)` on the split's device."""
        # index_select copies whole images; images[indices] goes element by element and costs ten times as much on a CPU
        return Batch(self.images.index_select(0, indices), self.labels.index_select(0, indices), indices)


def carve(labels: Tensor, size: int, seed: int, draw: int) -> tuple[Tensor, Tensor]:
    """Choose `size` images at random, each class in proportion (largest remainder, ties to the lower class).

    Args:
        labels: int64 `(N,)`, in canonical order.
        size: How many to take, from 0 to N.
        seed: Fixes the choice; not the run's seed, lest runs of different seeds differ in their images.
        draw: What the choice is for, see `Draw`.

    Returns:
        The ascending numbers of the images that stay, and of those that are taken.
    """
    counts = torch.bincount(labels)
    quotas, remainders = counts * size // len(labels), counts * size % len(labels)
    extra = remainders.argsort(descending=True, stable=True)[: size - int(quotas.sum())]
    quotas[extra] += 1
    order = permutation(len(labels), seed, epoch=0, draw=draw)
    ordered_labels = labels[order]
    taken = torch.cat([order[ordered_labels == c][:quota] for c, quota in enumerate(quotas.tolist())])
    is_taken = torch.zeros(len(labels), dtype=torch.bool)
    is_taken[taken] = True
    return (~is_taken).nonzero().flatten(), is_taken.nonzero().flatten()
