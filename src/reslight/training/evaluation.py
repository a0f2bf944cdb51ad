"""`Measuring`: the half of a classifier that counts what it gets right, in validation, test and prediction."""

import logging
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from reslight.metrics import ConfusionAndCalibration, EvalCounts, Evaluator
from reslight.models import ResNetConfig
from reslight.training.guards import check_total

log = logging.getLogger(__name__)

Batch = tuple[Tensor, Tensor, Tensor]
"""Images `(N, C, H, W)` in the network's dtype; labels int64 `(N,)`, or of mixed images probabilities `(N, num_classes)`; indices
int64 `(N,)`. In a test images may be a list of views, see `training.views.averaged`."""


class Measuring(LightningModule):
    """Measures a network on batches of (images, labels, indices).

    Attributes:
        config: The network.
        described: What the data say of themselves.
        recorded: The last value of every metric.
        counts: What was measured last.
        details: More of it, when a command measured it.
    """

    config: ResNetConfig

    def __init__(self) -> None:
        super().__init__()
        self.described: dict[str, Any] = {}
        self.recorded: dict[str, float] = {}
        self.counts: EvalCounts | None = None
        self.details: ConfusionAndCalibration | None = None
        self._evaluator: Evaluator | None = None

    @abstractmethod
    def _record(self, values: dict[str, float]) -> None:
        """Keep metrics, and give them to callbacks and loggers."""

    def on_validation_epoch_start(self) -> None:
        """Start counting."""
        self._start_counting()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count one batch."""
        self._count(batch)

    def on_validation_epoch_end(self) -> None:
        """Record val/loss, val/acc1 and val/acc5."""
        self._finish_counting("val")

    def on_test_epoch_start(self) -> None:
        """Start counting."""
        self._start_counting()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Count one batch."""
        self._count(batch)

    def on_test_epoch_end(self) -> None:
        """Record test/loss, test/acc1 and test/acc5."""
        self._finish_counting("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Indices `(N,)` and probabilities `(N, num_classes)` in float32, on the CPU."""
        return batch[2].cpu(), self._answers(batch).float().softmax(dim=1).cpu()

    def _start_counting(self) -> None:
        self._evaluator = Evaluator(self.config.num_classes, self.device, details=self.trainer.state.fn != "fit")

    def _count(self, batch: Batch) -> None:
        if self._evaluator is not None:
            self._evaluator.update(self._answers(batch), batch[1])

    def _answers(self, batch: Batch) -> Tensor:
        """Logits `(N, num_classes)`, whether there is one view of each image or several."""
        images, labels, _ = batch
        answers: Tensor = averaged(self, images, len(labels), self.config.num_classes) if isinstance(images, list) else self(images)
        return answers

    def _finish_counting(self, split: str) -> None:
        if self._evaluator is None or self.trainer.sanity_checking:
            return
        self.counts = self._evaluator.counts(self._sum_over_devices)
        self.details = self._evaluator.details(self._sum_over_devices)
        self._check_total(split, self.counts.total)
        if not math.isfinite(self.counts.nll):
            log.warning("the %s loss is %s: the network's answers are no longer numbers; lower model.optim.lr", split, self.counts.nll)
        self._record({f"{split}/{name}": value for name, value in self.counts.fractions().items()})

    def _check_total(self, split: str, total: int) -> None:
        """Compare with what the data say of the split, unless fewer images were asked for."""
        trainer = self.trainer
        limit = trainer.limit_val_batches if split == "val" else trainer.limit_test_batches
        describe = getattr(getattr(trainer, "datamodule", None), "describe", None)
        if describe:  # again, for images may have been skipped
            self.described = describe()
        splits = self.described.get("splits", {})
        skipped = int(self._sum_over_devices(torch.tensor(splits.get(split, {}).get("skipped", 0), device=self.device)))
        if isinstance(limit, float) and limit == 1.0 and not getattr(trainer, "fast_dev_run", False):  # the whole number 1 is one batch
            check_total(split, total, splits.get(split), skipped)

    def _sum_over_devices(self, tensor: Tensor) -> Tensor:
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(tensor)
        return tensor


def averaged(net: Callable[[Tensor], Tensor], views: Sequence[tuple[Tensor, Tensor]], images: int, num_classes: int) -> Tensor:
    """Log-probabilities `(images, num_classes)` in float32, which are logits of their own softmax.

    Args:
        net: From images `(M, C, H, W)` to logits `(M, num_classes)`.
        views: Pairs of images `(M, C, H, W)` and their owners, int64 `(M,)`; every image of the batch has as many views.
        images: Images in the batch.
        num_classes: Classes of the network.
    """
    if not views:
        return torch.zeros(images, num_classes)
    device = views[0][1].device
    total, seen = torch.zeros(images, num_classes, device=device), torch.zeros(images, 1, device=device)
    for pixels, owners in views:
        total.index_add_(0, owners, net(pixels).float().softmax(dim=1))
        seen.index_add_(0, owners, torch.ones(len(owners), 1, device=device))
    return (total / seen).log()
