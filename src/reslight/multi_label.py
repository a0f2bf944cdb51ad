"""Evaluate a classifier of several labels for each image: exact counts, F1 and mean average precision.

Each class is a decision of its own: it is predicted if its probability is above `THRESHOLD`. Counts are integers. Average precision needs
the order of all images, so their scores are kept until the end, and gathered from all devices: 5 bytes for each image and class (9 in
double precision), for instance 16 MB for 40,000 images of 80 classes. The result does not depend on the order of the images, their batches
or the number of devices.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

THRESHOLD = 0.5
"""Probability above which a class is predicted: that of a logit above 0."""
_MOST_SORTED = 2**24
"""Scores that are sorted at a time, which bounds the memory that this takes."""


@dataclass(frozen=True)
class MultiLabelCounts:
    """The result of an evaluation with several labels for each image.

    Attributes:
        total: Number of images.
        exact: Number of images of which the predicted classes are exactly the labels.
        tp: Predicted classes that are labels, over all images (true positives).
        fp: Predicted classes that are no labels.
        fn: Labels that are not predicted.
        mAP: Mean of the average precision of the classes that have images; 0 if none has.
        f1_macro: Mean of F1 of the classes that have images; 0 if none has.
        nll: Binary cross-entropy, averaged over the classes and summed over the images, in nats.
    """

    total: int
    exact: int
    tp: int
    fp: int
    fn: int
    mAP: float
    f1_macro: float
    nll: float

    def fractions(self) -> dict[str, float]:
        """Return `loss` (mean binary cross-entropy), `mAP`, `f1_micro` (over all decisions), `f1_macro` and `subset_acc`."""
        return {
            "loss": self.nll / self.total,
            "mAP": self.mAP,
            "f1_micro": f1(self.tp, self.fp, self.fn),
            "f1_macro": self.f1_macro,
            "subset_acc": self.exact / self.total,
        }

    def behind(self) -> dict[str, str]:
        """Return the integers behind the fractions, in words."""
        decisions = f"{self.tp} right, {self.fp} wrong and {self.fn} missing labels"
        return {"f1_micro": decisions, "subset_acc": f"{self.exact} of {self.total}"}


@dataclass(frozen=True)
class ClassResults:
    """The results of each class.

    Attributes:
        positives: Number of images that have the class.
        predicted: Number of images of which it is predicted.
        correct: Number of images of which it is predicted and that have it.
        ap: Average precision; None for a class without images.
    """

    positives: list[int]
    predicted: list[int]
    correct: list[int]
    ap: list[float | None]

    @property
    def f1(self) -> list[float | None]:
        """F1 of each class; None for a class without images."""
        rows = zip(self.positives, self.predicted, self.correct, strict=True)
        return [f1(tp, predicted - tp, positives - tp) if positives else None for positives, predicted, tp in rows]


class MultiLabelEvaluator:
    """Collect the scores of all images, without synchronizing with the device.

    Args:
        num_classes: Number of classes.
        device: Device of the scores: the device of the logits.
    """

    def __init__(self, num_classes: int, device: torch.device | str = "cpu") -> None:
        self._scores = [torch.zeros(0, num_classes, device=device)]
        self._labels = [torch.zeros(0, num_classes, dtype=torch.uint8, device=device)]
        self._results: tuple[MultiLabelCounts, ClassResults] | None = None

    @torch.no_grad()
    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch.

        Args:
            logits: `(N, num_classes)`, any floating dtype.
            labels: `(N, num_classes)`, 0 or 1, of any dtype.
        """
        logits = logits.detach() if logits.dtype == torch.float64 else logits.detach().float()
        self._scores.append(logits)
        self._labels.append(labels.to(logits.device, torch.uint8))

    def counts(
        self, reduce: Callable[[Tensor], Tensor] = lambda tensor: tensor, gather: Callable[[Tensor], Tensor] = lambda tensor: tensor
    ) -> MultiLabelCounts:
        """Return the counts so far.

        Args:
            reduce: Not used; all sums are taken over the gathered scores.
            gather: Joins the rows of a tensor `(N, num_classes)` over the devices of the run, each of which has another number of rows.
        """
        return self._finish(gather)[0]

    def details(
        self, reduce: Callable[[Tensor], Tensor] = lambda tensor: tensor, gather: Callable[[Tensor], Tensor] = lambda tensor: tensor
    ) -> ClassResults:
        """Return the results of each class so far; arguments as of `counts`."""
        return self._finish(gather)[1]

    def _finish(self, gather: Callable[[Tensor], Tensor]) -> tuple[MultiLabelCounts, ClassResults]:
        if self._results is None:
            wide = torch.float64 if any(part.dtype == torch.float64 for part in self._scores) else torch.float32
            scores = gather(torch.cat([part.to(wide) for part in self._scores])).cpu()
            labels = gather(torch.cat(self._labels)).cpu()
            self._scores, self._labels = [scores[:0]], [labels[:0]]
            self._results = evaluate_scores(scores, labels)
        return self._results


def evaluate_scores(scores: Tensor, labels: Tensor) -> tuple[MultiLabelCounts, ClassResults]:
    """Evaluate logits `(N, num_classes)` against labels `(N, num_classes)`, uint8, 0 or 1."""
    images, classes = labels.shape
    positives, predicted, correct = (torch.zeros(classes, dtype=torch.int64) for _ in range(3))
    precisions = torch.zeros(classes, dtype=torch.float64)
    nll = torch.zeros(images, dtype=torch.float64)
    is_exact = torch.ones(images, dtype=torch.bool)
    step = max(1, _MOST_SORTED // max(1, images))
    for first in range(0, classes, step):
        part = slice(first, first + step)
        has, said = labels[:, part].bool(), scores[:, part] > 0
        positives[part], predicted[part], correct[part] = (one.sum(dim=0) for one in (has, said, has & said))
        precisions[part] = average_precision(scores[:, part], labels[:, part])
        nll += F.binary_cross_entropy_with_logits(scores[:, part].double(), labels[:, part].double(), reduction="none").sum(dim=1)
        is_exact &= (has == said).all(dim=1)
    ap = [float(value) if count else None for value, count in zip(precisions, positives.tolist(), strict=True)]
    results = ClassResults(positives.tolist(), predicted.tolist(), correct.tolist(), ap)
    tp, fp, fn = (int(one.sum()) for one in (correct, predicted - correct, positives - correct))
    # Sorted, so that the sum does not depend on the order of the images.
    loss = float(nll.sort().values.sum()) / classes
    return MultiLabelCounts(images, int(is_exact.sum()), tp, fp, fn, _mean(ap), _mean(results.f1), loss), results


def average_precision(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the average precision of each class, as scikit-learn's `average_precision_score` does, float64 `(K,)`.

    It is the precision at each threshold, weighted by the recall that the threshold adds; images with equal scores have one threshold.

    Args:
        scores: `(N, K)`, floating point; higher ones come first.
        labels: `(N, K)`, 0 or 1.

    Returns:
        0 for a class without images.
    """
    if not len(scores):
        return torch.zeros(scores.shape[1], dtype=torch.float64)
    ranked, order = scores.sort(dim=0, descending=True)
    found = labels.long().gather(0, order).cumsum(dim=0)
    is_last = torch.ones_like(ranked, dtype=torch.bool)  # of the images with this score
    is_last[:-1] = ranked[:-1] != ranked[1:]
    until = torch.where(is_last, found, 0).cummax(dim=0).values
    new = found.clone()
    new[1:] -= until[:-1]
    seen = torch.arange(1, len(scores) + 1, dtype=torch.float64).unsqueeze(1)
    weighted = torch.where(is_last, new * (found / seen), 0.0).sum(dim=0)
    return weighted / found[-1].clamp(min=1)


def f1(tp: int, fp: int, fn: int) -> float:
    """Return the harmonic mean of precision and recall; 0 if there is nothing to predict and nothing is predicted."""
    return 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 0.0


def _mean(values: list[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else 0.0
