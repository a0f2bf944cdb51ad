"""Classes with unequal numbers of images: their weights in the loss, and epochs in which all classes are equally frequent."""

import math
import reprlib
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from reslight.data.rng import NEXT_DRAW, Draw, bits, permutation
from reslight.messages import UsageError, check_number, suggestion, visible

ClassWeights = Literal["balanced"] | dict[str, float]
Sampling = Literal["uniform", "balanced"]
IMBALANCE = 5
"""Ratio of the most frequent to the rarest class that is reported when training starts."""


def checked_class_weights(weights: ClassWeights | None, labels: Sequence[str]) -> ClassWeights | None:
    """Check the setting `data.class_weights`, and return it with names of classes as text, which YAML may have read as numbers.

    Args:
        weights: The setting.
        labels: Name of each class.

    Raises:
        UsageError: a word other than balanced, a class that the dataset does not have, or a weight that is not above 0 and finite.
    """
    if weights is None or weights == "balanced":
        return weights
    if not isinstance(weights, Mapping):
        raise UsageError(f"data.class_weights is {reprlib.repr(weights)}: it must be balanced, a weight for each class, or null.")
    weights = {str(name): weight for name, weight in weights.items()}
    for name, weight in weights.items():
        if name not in labels:
            hint = suggestion(name, labels, "Use names of the dataset's classes.")
            raise UsageError(f"data.class_weights has the class {visible(name)}: the dataset has no such class. {hint}")
        check_number(f"data.class_weights.{visible(name)}", weight)
        if not 0 < weight < math.inf:
            raise UsageError(f"data.class_weights.{visible(name)} is {weight}: it must be above 0 and finite. Use 1 for no change.")
    return weights


def loss_weights(weights: ClassWeights, labels: Sequence[str], counts: Tensor) -> list[float]:
    """Return the weight of each class in the loss.

    Args:
        weights: A weight for some classes, and 1 for the others; or balanced: inversely proportional to the number of training images
            of the class, with a mean of 1 over the images. A class without images has weight 1.
        labels: Name of each class.
        counts: int64 `(K,)`: training images of each class.
    """
    if isinstance(weights, Mapping):
        return [float(weights.get(label, 1)) for label in labels]
    images, classes = int(counts.sum()), int((counts > 0).sum())
    # Rounded, since they are printed, and saved in checkpoints and cards.
    return [float(f"{images / (classes * count):.6g}") if count else 1.0 for count in counts.tolist()]


def positive_weights(weights: ClassWeights, labels: Sequence[str], counts: Tensor, images: int) -> list[float]:
    """Return the weight in the loss of the images that have a class, where an image may have several.

    Args:
        weights: A weight for some classes, and 1 for the others; or balanced: images without the class for each that has it, as in the
            documentation of torch.nn.BCEWithLogitsLoss (`pos_weight`). A class that no image has, or that all have, has weight 1.
        labels: Name of each class.
        counts: int64 `(K,)`: training images of each class.
        images: Training images.
    """
    if isinstance(weights, Mapping):
        return [float(weights.get(label, 1)) for label in labels]
    return [float(f"{(images - count) / count:.6g}") if 0 < count < images else 1.0 for count in counts.tolist()]


def imbalance(counts: Tensor, labels: Sequence[str]) -> str:
    """Return the rarest and the most frequent class as text; empty if the ratio of their images is below `IMBALANCE`."""
    rarest, most = int(counts.argmin()), int(counts.argmax())
    if int(counts[most]) < IMBALANCE * int(counts[rarest]):
        return ""
    (low, rare), (high, frequent) = ((f"{int(counts[number]):,}", visible(labels[number], 40)) for number in (rarest, most))
    return f"training images of a class: {low} ({rare}) to {high} ({frequent})"


def balanced_order(labels: Tensor, draws: int, seed: int, epoch: int, *, spread: int = 1) -> Tensor:
    """Draw the images of an epoch so that all classes are equally frequent: to one image in each epoch, and over all epochs.

    Draws are dealt to the classes in turn, and each class deals its images in rounds: one random order of all its images after the
    other, from where the last epoch stopped. So no image is drawn again before all others of its class, in an epoch or in the next.

    Args:
        labels: int64 `(N,)` on the CPU. Classes without images get no draws.
        draws: Images of an epoch.
        seed: Seed of the order.
        epoch: Epoch, counted from 0.
        spread: Distance of the numbers of an image's draws, in N.

    Returns:
        int64 `(draws,)`, in random order: draw d of image i in this epoch has the number `d * spread * N + i`, see `Split.rows_of`.
    """
    images, (names, classes) = len(labels), torch.unique(labels, return_inverse=True)
    counts, turns = classes.bincount(), permutation(len(names), seed, 0, Draw.CLASS_TURN)
    first, end = ((dealt - turns + len(names) - 1) // len(names) for dealt in (epoch * draws, (epoch + 1) * draws))
    begun = first // counts  # rounds that each class has finished before this epoch
    rounds = (end - 1) // counts - begun + 1
    # All images of a class, once for each of the rounds that the epoch takes part of.
    times = rounds[classes]
    rows = torch.arange(images).repeat_interleave(times)
    turn: Tensor = torch.arange(len(rows)) - (times.cumsum(0) - times).repeat_interleave(times)
    of_class = classes[rows]
    key = bits(seed, 0, rows + (begun[of_class] + turn) * NEXT_DRAW, Draw.CLASS_ORDER)
    # Sorted by class, round and key: the images of a class in the order in which they are dealt, `begun` whole rounds left out.
    order = key.argsort(stable=True)
    order = order[(of_class * int(rounds.max()) + turn)[order].argsort(stable=True)]
    dealt = counts * rounds
    place = torch.arange(len(rows)) - (dealt.cumsum(0) - dealt - begun * counts).repeat_interleave(dealt)
    is_drawn = (place >= first.repeat_interleave(dealt)) & (place < end.repeat_interleave(dealt))
    drawn = order[is_drawn]
    return (turn[drawn] * (spread * images) + rows[drawn])[permutation(draws, seed, epoch)]
