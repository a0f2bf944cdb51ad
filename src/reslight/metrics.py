"""Count the correct predictions of a classifier: integers first, fractions last.

The number of correct predictions and the number of images are integers. They are summed over batches and devices and divided
once at the end, so accuracy does not depend on the batch size, the order of the images or the number of devices.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

TOP_K = 5
"""Top-5 accuracy is reported for more than five classes; with fewer it is always 1."""
BINS = 15
"""Number of equal bins of the predicted probability, 0 to 1, in which it is compared with the accuracy (Guo et al. 2017)."""
_MOST_UNCOUNTED = 2**16
"""Images whose pairs of label and prediction are kept one by one; more are counted."""


@dataclass(frozen=True)
class EvalCounts:
    """The counts of an evaluation.

    Attributes:
        total: Number of images.
        correct1: Number of images whose most probable class is the label.
        correct5: Number of images whose label is among the five most probable classes; None with five classes or fewer.
        nll: Negative log-likelihood of the labels, summed over the images, in nats.
    """

    total: int
    correct1: int
    correct5: int | None
    nll: float

    def behind(self) -> dict[str, str]:
        """Return the integers behind the fractions, in words."""
        correct = {"acc1": self.correct1, "acc5": self.correct5}
        return {name: f"{hits} of {self.total}" for name, hits in correct.items()}

    def fractions(self) -> dict[str, float]:
        """Return `loss` (mean negative log-likelihood), `acc1` and, with more than five classes, `acc5`."""
        result = {"loss": self.nll / self.total, "acc1": self.correct1 / self.total}
        if self.correct5 is not None:
            result["acc5"] = self.correct5 / self.total
        return result


@dataclass(frozen=True)
class ConfusionAndCalibration:
    """Which classes are confused with which, and how well the probabilities are calibrated.

    Attributes:
        num_classes: Number of classes.
        pairs: int64 `(P, 3)`: a label, a prediction, and the number of images that have both; sorted, without pairs that no image has. Of
            21,000 classes, a matrix would take 3.5 GB.
        bins: float64 `(BINS, 3)`: for the images whose highest probability is in a bin, their number, the number of correct
            predictions, and the sum of those probabilities.
    """

    num_classes: int
    pairs: Tensor
    bins: Tensor

    @property
    def confusion(self) -> Tensor:
        """The number of images with the label of the row and the prediction of the column, int64 `(num_classes, num_classes)`."""
        labels, predictions, images = self.pairs.unbind(dim=1)
        matrix = torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64)
        matrix[labels, predictions] = images
        return matrix

    @property
    def totals(self) -> list[int]:
        """The number of images of each class."""
        return self._sums(self.pairs)

    @property
    def correct(self) -> list[int]:
        """The number of images of each class that are predicted correctly."""
        return self._sums(self.pairs[self.pairs[:, 0] == self.pairs[:, 1]])

    @property
    def per_class(self) -> list[float | None]:
        """Accuracy (recall) of each class, 0 to 1; None for a class without images."""
        return [correct / total if total else None for correct, total in zip(self.correct, self.totals, strict=True)]

    def _sums(self, pairs: Tensor) -> list[int]:
        sums: list[int] = torch.zeros(self.num_classes, dtype=torch.int64).index_add_(0, pairs[:, 0], pairs[:, 2]).tolist()
        return sums

    @property
    def ece(self) -> float:
        """Expected calibration error, 0 to 1: the mean difference of accuracy and probability over the bins (Guo et al. 2017)."""
        total, correct, probability = self.bins.unbind(dim=1)
        return float((correct - probability).abs().sum() / total.sum())


class Evaluator:
    """Sum `EvalCounts` over batches, without synchronizing with the device.

    Args:
        num_classes: Number of classes.
        device: Device of the sums: the device of the logits.
        details: Sum `ConfusionAndCalibration`, too.
    """

    def __init__(self, num_classes: int, device: torch.device | str = "cpu", *, details: bool = False) -> None:
        self._k = TOP_K if num_classes > TOP_K else 1
        self._num_classes, self._with_details = num_classes, details
        self._device = _double_device(torch.device(device))
        self._integers = torch.zeros(3, dtype=torch.int64, device=self._device)  # total, correct1, correct5
        self._nll = torch.zeros((), dtype=torch.float64, device=self._device)
        self._pairs = torch.zeros(0, 3, dtype=torch.int64)
        self._new_pairs: list[Tensor] = []  # label * num_classes + prediction of each image that is not counted in _pairs
        self._images = 0
        self._bins = torch.zeros(BINS, 3, dtype=torch.float64, device=self._device)

    @torch.no_grad()
    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch.

        Args:
            logits: `(N, num_classes)`, any floating dtype.
            labels: int64 `(N,)`.
        """
        logits, labels = logits.to(self._device).double(), labels.to(self._device)
        # A stable sort breaks ties by the class index on every device; topk and argmax do not define the order.
        ranked = logits.argsort(dim=1, descending=True, stable=True)[:, : self._k]
        hits = ranked == labels[:, None]
        self._integers += torch.stack([hits.new_full((), len(labels), dtype=torch.int64), hits[:, 0].sum(), hits.sum()])
        self._nll += F.cross_entropy(logits, labels, reduction="sum")
        if self._with_details:
            self._add_details(logits.softmax(dim=1), ranked[:, 0], labels)

    def _add_details(self, probabilities: Tensor, predictions: Tensor, labels: Tensor) -> None:
        self._new_pairs.append(labels * self._num_classes + predictions)
        self._images += len(labels)
        if self._images > _MOST_UNCOUNTED:
            self._count_pairs()
        highest = probabilities.gather(1, predictions[:, None])[:, 0]
        edges = torch.linspace(0, 1, BINS + 1, dtype=torch.float64, device=self._device)[1:-1]
        rows = torch.stack([torch.ones_like(highest), (predictions == labels).double(), highest], dim=1)
        self._bins.index_add_(0, torch.bucketize(highest, edges), rows)  # a bin includes its upper edge

    def counts(
        self, reduce: Callable[[Tensor], Tensor] = lambda tensor: tensor, gather: Callable[[Tensor], Tensor] = lambda tensor: tensor
    ) -> EvalCounts:
        """Return the counts so far.

        Args:
            reduce: Sums a tensor over the devices of the run; each device has seen a part of the images.
            gather: Not used; a `MultiLabelEvaluator` needs it.
        """
        total, correct1, correct5 = (int(n) for n in reduce(self._integers.clone()))
        return EvalCounts(total, correct1, correct5 if self._k > 1 else None, float(reduce(self._nll.clone())))

    def details(
        self, reduce: Callable[[Tensor], Tensor] = lambda tensor: tensor, gather: Callable[[Tensor], Tensor] = lambda tensor: tensor
    ) -> ConfusionAndCalibration:
        """Return the confusion and calibration so far, without images unless `details=True`.

        Args:
            reduce: As for `counts`.
            gather: Joins the rows of a tensor `(P, 3)` over the devices of the run, each of which has another number of rows.
        """
        self._count_pairs()
        pairs = _counted(gather(self._pairs.to(self._device)).cpu(), self._num_classes) if self._with_details else self._pairs
        return ConfusionAndCalibration(self._num_classes, pairs, reduce(self._bins.clone()).cpu())

    def _count_pairs(self) -> None:
        """Count the new pairs. It waits for the device, so it is not done for each batch."""
        if self._new_pairs:
            numbers = torch.cat(self._new_pairs).cpu()
            new = torch.stack([numbers // self._num_classes, numbers % self._num_classes, torch.ones_like(numbers)], dim=1)
            self._pairs = _counted(torch.cat([self._pairs, new]), self._num_classes)
        self._new_pairs, self._images = [], 0


def _counted(pairs: Tensor, num_classes: int) -> Tensor:
    """Return rows of label, prediction and images, int64 `(P, 3)`, sorted, with the images of equal pairs added up."""
    found, places = torch.unique(pairs[:, 0] * num_classes + pairs[:, 1], return_inverse=True)
    images = torch.zeros_like(found).index_add_(0, places, pairs[:, 2])
    return torch.stack([found // num_classes, found % num_classes, images], dim=1)


class TrainingSums:
    """Sum the loss and the top-1 accuracy of an epoch's training batches, with a few small kernels for each step.

    Unlike an `Evaluator`, it takes the training loss (with smoothed or mixed labels), and its state is saved in checkpoints, so
    that a resumed epoch reports all of its batches.

    Args:
        accuracy: Name of the fraction of correct images.
    """

    def __init__(self, accuracy: str = "acc1") -> None:
        self._accuracy = accuracy
        self.reset()

    def reset(self) -> None:
        """Set the sums to zero, for a new epoch."""
        self.total = 0
        self._loss: Tensor | float = 0.0
        self._correct: Tensor | int = 0

    @torch.no_grad()
    def update(self, loss: Tensor, is_correct: Tensor) -> None:
        """Add a batch: its mean loss, and whether the prediction of each image is correct, `(N,)`."""
        self.total += len(is_correct)
        # In the network's own dtype the sum of an epoch would be inexact (bfloat16) or infinite (float16).
        self._loss = self._loss + loss.detach().to(_sum_dtype(loss.device)) * len(is_correct)
        self._correct = self._correct + is_correct.sum()

    def fractions(self, reduce: Callable[[Tensor], Tensor] = lambda tensor: tensor, device: torch.device | str = "cpu") -> dict[str, float]:
        """Return `loss` and the accuracy, over all devices if `reduce` sums over them; an empty dict before the first batch."""
        sums = self.state_dict(reduce, device)
        total = sums["total"]
        return {"loss": sums["loss"] / total, self._accuracy: sums["correct"] / total} if total else {}

    def state_dict(
        self, reduce: Callable[[Tensor], Tensor] = lambda tensor: tensor, device: torch.device | str = "cpu"
    ) -> dict[str, float]:
        """Return `total`, `correct` and `loss`, summed by `reduce`, as plain numbers for a checkpoint."""
        own = torch.tensor([float(self.total), float(self._correct), float(self._loss)], dtype=torch.float64)
        total, correct, loss = reduce(own.to(_double_device(torch.device(device)))).tolist()
        return {"total": total, "correct": correct, "loss": loss}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Restore the sums from `state_dict()`."""
        self.total, self._correct, self._loss = int(state["total"]), int(state["correct"]), float(state["loss"])


def _sum_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


def _double_device(device: torch.device) -> torch.device:
    """Return the device itself, or the CPU for Apple's GPUs, which have no float64."""
    return torch.device("cpu") if device.type == "mps" else device
