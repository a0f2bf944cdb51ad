"""Temperature scaling: probabilities that are as high as predictions are often right (Guo et al. 2017, arXiv:1706.04599).

The logits are divided by one number, the temperature, before the softmax. The order of the classes stays the same. The number is fitted to
images that the network was not trained on; what it is worth is measured on others again.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from reslight.messages import UsageError
from reslight.metrics import ConfusionAndCalibration, EvalCounts, Evaluator

LEAST, MOST = 0.01, 100.0
"""Temperatures between which the best one is looked for."""
_HALVINGS = 50


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature with the smallest mean negative log-likelihood of the labels.

    That is a convex function of the inverse temperature, and its derivative is the mean difference between the expected logit and that of
    the label. The derivative's zero is found by bisection.

    Args:
        logits: `(N, num_classes)`.
        labels: int64 `(N,)`.

    Raises:
        UsageError: no such temperature, for instance as all predictions are right.
    """
    logits = logits.double()
    logits = logits - logits.amax(dim=1, keepdim=True)
    target = logits.gather(1, labels[:, None]).mean()

    def slope(log_inverse: float) -> float:
        probabilities = (logits * math.exp(log_inverse)).softmax(dim=1)
        return float((probabilities * logits).sum(dim=1).mean() - target)

    low, high = -math.log(MOST), -math.log(LEAST)
    if not len(labels) or not slope(low) < 0 < slope(high):
        right = int((logits.argmax(dim=1) == labels).sum())
        raise UsageError(
            f"{right:,} of {len(labels):,} predictions are right: no temperature from {LEAST:g} to {MOST:g} fits their probabilities best. "
            "Use more validation images."
        )
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return math.exp(-(low + high) / 2)


def cross_fitted(logits: Tensor, labels: Tensor) -> tuple[Tensor, tuple[float, float]]:
    """Divide the logits of each half of the images by the temperature of the other half, so that none is tested on its own images.

    Args:
        logits: `(N, num_classes)`.
        labels: int64 `(N,)`.

    Returns:
        The divided logits, float64, and both temperatures.

    Raises:
        UsageError: a half without a temperature.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    result = logits.double().clone()  # double() returns float64 itself
    one, other = (fit_temperature(logits[half], labels[half]) for half in halves)
    for half, temperature in zip(halves, (other, one), strict=True):
        result[half] /= temperature
    return result, (one, other)


def evaluated(logits: Tensor, labels: Tensor) -> tuple[EvalCounts, ConfusionAndCalibration]:
    """Return the counts, the confusion and the calibration of logits `(N, num_classes)` and labels `(N,)`."""
    evaluator = Evaluator(logits.shape[1], details=True)
    evaluator.update(logits, labels)
    return evaluator.counts(), evaluator.details()


def thresholds(logits: Tensor, labels: Tensor, levels: Sequence[float]) -> list[tuple[float, int, int]]:
    """Return, for each level, the level, the images whose highest probability reaches it, and those of them that are predicted right."""
    best = logits.double().softmax(dim=1).max(dim=1)
    is_right = best.indices == labels
    found = [(level, best.values >= level) for level in levels]
    return [(level, int(is_sure.sum()), int((is_sure & is_right).sum())) for level, is_sure in found]
