"""Counting what a classifier gets right: integers first, fractions last.

Accuracy is the sum of correct answers over the number of images, both integers, added up over batches and devices and divided once at the
end. So it cannot depend on the batch size, the order or the number of devices.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

TOP_K = 5
"""Top-5 is reported where there are more than five classes; with fewer it is 1 by definition."""
BINS = 15
"""Bins of equal width between 0 and 1 in which the probabilities are compared with the accuracy, as in Guo et al. 2017."""


@dataclass(frozen=True)
class EvalCounts:
    """What was measured over a set of images.

    Attributes:
        total: Images seen.
        correct1: Images whose most probable class is the label.
        correct5: Images whose label is among the five most probable classes; None with five classes or fewer.
        nll: Sum over the images of the negative log-likelihood of the label, in nats.
    """

    total: int
    correct1: int
    correct5: int | None
    nll: float

    def fractions(self) -> dict[str, float]:
        """`loss` (mean negative log-likelihood), `acc1` and, where it says something, `acc5`."""
        result = {"loss": self.nll / self.total, "acc1": self.correct1 / self.total}
        if self.correct5 is not None:
            result["acc5"] = self.correct5 / self.total
        return result


@dataclass(frozen=True)
class ConfusionAndCalibration:
    """Which classes are taken for which, and how far the probabilities can be believed.

    Attributes:
        confusion: `(num_classes, num_classes)`, int64: images of the class of the row that were taken for that of the column.
        bins: `(BINS, 3)`, float64: of the images whose highest probability lies in a bin, their number, how many are right,
            and the sum of those probabilities.
    """

    confusion: Tensor
    bins: Tensor

    @property
    def per_class(self) -> list[float | None]:
        """Accuracy of each class (its recall); None for a class without images."""
        pairs = zip(self.confusion.diagonal().tolist(), self.confusion.sum(dim=1).tolist(), strict=True)
        return [correct / total if total else None for correct, total in pairs]

    @property
    def ece(self) -> float:
        """Expected calibration error (Guo et al. 2017, section 2): the mean distance of accuracy from probability, over the bins."""
        total, right, probability = self.bins.unbind(dim=1)
        return float((right - probability).abs().sum() / total.sum())


class Evaluator:
    """Adds up `EvalCounts` over batches, without waiting for the device.

    Args:
        num_classes: Classes of the classifier.
        device: Where the sums are kept: the device of the logits.
        details: Add up `ConfusionAndCalibration`, too.
    """

    def __init__(self, num_classes: int, device: torch.device | str = "cpu", *, details: bool = False) -> None:
        self._k = TOP_K if num_classes > TOP_K else 1
        self._num_classes, self._with_details = num_classes, details
        self._device = _double_device(torch.device(device))
        self._integers = torch.zeros(3, dtype=torch.int64, device=self._device)  # total, correct1, correct5
        self._nll = torch.zeros((), dtype=torch.float64, device=self._device)
        self._confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=self._device)
        self._bins = torch.zeros(BINS, 3, dtype=torch.float64, device=self._device)

    @torch.no_grad()
    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch.

        Args:
            logits: `(N, num_classes)`, any floating dtype.
            labels: `(N,)`, int64.
        """
        logits, labels = logits.to(self._device).double(), labels.to(self._device)
        # A stable sort breaks ties by the class number, on every device; topk and argmax promise no order.
        ranked = logits.argsort(dim=1, descending=True, stable=True)[:, : self._k]
        hits = ranked == labels[:, None]
        self._integers += torch.stack([hits.new_full((), len(labels), dtype=torch.int64), hits[:, 0].sum(), hits.sum()])
        self._nll += F.cross_entropy(logits, labels, reduction="sum")
        if self._with_details:
            self._add_details(logits.softmax(dim=1), ranked[:, 0], labels)

    def _add_details(self, probabilities: Tensor, answers: Tensor, labels: Tensor) -> None:
        from torchmetrics.functional.classification import multiclass_confusion_matrix  # seconds, which training need not wait

        self._confusion += multiclass_confusion_matrix(answers, labels, self._num_classes, validate_args=False)
        highest = probabilities.gather(1, answers[:, None])[:, 0]
        edges = torch.linspace(0, 1, BINS + 1, dtype=torch.float64, device=self._device)[1:-1]
        rows = torch.stack([torch.ones_like(highest), (answers == labels).double(), highest], dim=1)
        self._bins.index_add_(0, torch.bucketize(highest, edges), rows)  # a bin has its upper edge

    def counts(self, reduce: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> EvalCounts:
        """The counts so far.

        Args:
            reduce: Sums a tensor over the devices of a run; each holds its part of the images.
        """
        total, correct1, correct5 = (int(n) for n in reduce(self._integers.clone()))
        return EvalCounts(total, correct1, correct5 if self._k > 1 else None, float(reduce(self._nll.clone())))

    def details(self, reduce: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> ConfusionAndCalibration:
        """The details so far, all zero unless they were asked for; `reduce` as for `counts`."""
        return ConfusionAndCalibration(reduce(self._confusion.clone()).cpu(), reduce(self._bins.clone()).cpu())


class TrainingSums:
    """Loss and top-1 of an epoch's training batches, at the cost of a few small kernels a step.

    Unlike an `Evaluator` it takes the loss as it was trained (smoothed or mixed labels) and its state can be kept in a checkpoint, so
    that an epoch interrupted in the middle still reports its whole.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start an epoch."""
        self.total = 0
        self._loss: Tensor | float = 0.0
        self._correct: Tensor | int = 0

    @torch.no_grad()
    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: its mean loss, logits `(N, num_classes)` and labels `(N,)`."""
        self.total += len(labels)
        # In the network's own dtype a sum over an epoch would be wrong (bfloat16) or infinite (float16).
        self._loss = self._loss + loss.detach().to(_sum_dtype(loss.device)) * len(labels)
        self._correct = self._correct + (logits.argmax(dim=1) == labels).sum()

    def fractions(self, reduce: Callable[[Tensor], Tensor] = lambda tensor: tensor, device: torch.device | str = "cpu") -> dict[str, float]:
        """`loss` and `acc1`, over all devices if `reduce` sums over them; empty before the first batch."""
        sums = self.state_dict(reduce, device)
        total = sums["total"]
        return {"loss": sums["loss"] / total, "acc1": sums["correct"] / total} if total else {}

    def state_dict(
        self, reduce: Callable[[Tensor], Tensor] = lambda tensor: tensor, device: torch.device | str = "cpu"
    ) -> dict[str, float]:
        """Plain numbers for a checkpoint: `total`, `correct` and `loss`, summed by `reduce`."""
        own = torch.tensor([float(self.total), float(self._correct), float(self._loss)], dtype=torch.float64)
        total, correct, loss = reduce(own.to(_double_device(torch.device(device)))).tolist()
        return {"total": total, "correct": correct, "loss": loss}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from `state_dict()`."""
        self.total, self._correct, self._loss = int(state["total"]), int(state["correct"]), float(state["loss"])


def _sum_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


def _double_device(device: torch.device) -> torch.device:
    """The device itself, or the CPU for Apple's GPUs, which have no float64."""
    return torch.device("cpu") if device.type == "mps" else device
