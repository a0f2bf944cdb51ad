"""`EvaluationModule`: evaluates a classifier, and records its metrics."""

import logging
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from reslight import lightning_private
from reslight.messages import UsageError
from reslight.metrics import ConfusionAndCalibration, EvalCounts, Evaluator
from reslight.models import ResNetConfig
from reslight.multi_label import ClassResults, MultiLabelCounts, MultiLabelEvaluator
from reslight.training.batches import Batch, checked_images, checked_label_sets, checked_labels, parts_of
from reslight.training.guards import check_total
from reslight.training.lightning_callbacks import report_batch_size
from reslight.training.numbering import epoch_of, epoch_of_batch, number_loggers, restore_loggers

log = logging.getLogger(__name__)


class EvaluationModule(LightningModule):
    """Evaluates a network on batches of (images, labels, indices) or (images, labels), see `batches`.

    Attributes:
        config: The network.
        data_info: The data module's information about the data; empty if it has none.
        recorded: The last value of each metric.
        counts: Counts of the last evaluation.
        details: Confusion and calibration, or the results of each class, of the last evaluation outside training.
        multi_label: Whether images have several labels, or none.
    """

    config: ResNetConfig
    multi_label = False

    def __init__(self) -> None:
        super().__init__()
        self.data_info: dict[str, Any] = {}
        self.recorded: dict[str, float] = {}
        self.counts: EvalCounts | MultiLabelCounts | None = None
        self.details: ConfusionAndCalibration | ClassResults | None = None
        self._evaluator: Evaluator | MultiLabelEvaluator | None = None
        self._predicted = 0
        self._has_indices = True

    def setup(self, stage: str) -> None:
        """Get the data module's information about the data, and number what the loggers get."""
        self._update_data_info()
        number_loggers(self.trainer)

    def teardown(self, stage: str) -> None:
        """Give the loggers their own numbers back."""
        restore_loggers(self.trainer)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Number what the loggers get by the step of the checkpoint that is evaluated."""
        if trainer := lightning_private.trainer_of(self):
            per_epoch = checkpoint.get("reslight", {}).get("batches_per_epoch", math.inf)
            number_loggers(trainer, (checkpoint["global_step"], epoch_of_batch(lightning_private.saved_batches(checkpoint), per_epoch)))

    def on_validation_epoch_start(self) -> None:
        """Start an evaluation."""
        self._start_evaluation()

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Count one batch."""
        self._evaluate_batch(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Record val/loss, val/acc1 and val/acc5; see `MultiLabelCounts.fractions` for several labels of each image."""
        self._finish_evaluation("val")

    def on_test_epoch_start(self) -> None:
        """Start an evaluation."""
        self._start_evaluation()

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Count one batch."""
        self._evaluate_batch(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Record test/loss, test/acc1 and test/acc5; see `MultiLabelCounts.fractions` for several labels of each image."""
        self._finish_evaluation("test")

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> tuple[Tensor, Tensor]:
        """Return indices `(N,)` and probabilities `(N, num_classes)` in float32, on the CPU.

        Labels are not needed. Images without indices are numbered in the order of the loader, which on several devices is that of
        Lightning's sampler: each device gets every so many-th image.
        """
        images, _, indices = parts_of(batch, labeled=False)
        images = self._checked_images(images)
        logits = self._logits_of(images, 0 if indices is None else len(indices)).float()
        probabilities = (logits.sigmoid() if self.multi_label else logits.softmax(dim=1)).cpu()
        if batch_idx == 0:
            self._predicted = 0
        if indices is None:
            own = torch.arange(self._predicted, self._predicted + len(probabilities))
            indices = own * self.trainer.world_size + self.global_rank
        self._predicted += len(probabilities)
        return indices.cpu(), probabilities

    def record(self, values: dict[str, float]) -> None:
        """Keep metrics, and pass them to the callbacks and, with the number of optimizer steps done, to the loggers.

        `self.log` alone would give the loggers the number of the last batch, counted from 0, which does not identify the weights.
        """
        self.recorded |= values
        fitting = self.trainer.state.fn == "fit"
        with warnings.catch_warnings():
            # trainer.test() returns only what is logged with `logger=True`.
            warnings.filterwarnings("ignore", message="You called `self.log")
            self.log_dict(values, logger=not fitting, batch_size=1)
        for logger in self.trainer.loggers if fitting else ():
            logger.log_metrics({"epoch": epoch_of(self.trainer), **values}, step=self.global_step)

    def _update_data_info(self) -> None:
        datamodule = getattr(self.trainer, "datamodule", None)
        # A user's own data module may have no such method, or call it `describe`, as reslight once did.
        if data_info := getattr(datamodule, "data_info", None) or getattr(datamodule, "describe", None):
            self.data_info = data_info()

    def _start_evaluation(self) -> None:
        testing = self.trainer.state.fn == "test"
        if (loaders := len(self.trainer.num_test_batches if testing else self.trainer.num_val_batches)) > 1:
            raise UsageError(
                f"there are {loaders} {'test' if testing else 'validation'} loaders: an ImageClassifier evaluates one. "
                "Join the datasets with torch.utils.data.ConcatDataset, or call trainer.test once for each."
            )
        if self.trainer.state.fn != "fit":
            report_batch_size(self.trainer, {})
        if self.multi_label:
            self._evaluator = MultiLabelEvaluator(self.config.num_classes, self.device)
        else:
            self._evaluator = Evaluator(self.config.num_classes, self.device, details=self.trainer.state.fn != "fit")

    def _checked_images(self, images: Any) -> Any:
        return checked_images(images, self.config.in_channels, next(self.parameters()).dtype)

    def _checked(self, batch: Any, batch_idx: int, *, probabilities: bool = False) -> Batch:
        """Return the parts of a batch, checked; the range of the labels in each batch on the CPU, and elsewhere in the first one."""
        images, labels, indices = parts_of(batch)
        images = self._checked_images(images)
        reads = batch_idx == 0 or self.device.type == "cpu"
        if self.multi_label:
            labels = checked_label_sets(labels, images, self.config.num_classes, mixed=probabilities, reads=reads)
        else:
            labels = checked_labels(labels, images, self.config.num_classes, probabilities=probabilities, reads=reads)
        return Batch(images, labels, indices)

    def _evaluate_batch(self, batch: Any, batch_idx: int) -> None:
        if self._evaluator is None:
            return
        images, labels, indices = self._checked(batch, batch_idx)
        if indices is None and self._has_indices and self.trainer.world_size > 1 and self.global_rank == 0:
            log.warning(
                "batches have no indices: on %d devices Lightning evaluates some images twice to share them equally, so counts are not "
                "exact. Evaluate on one device, or use a data module of reslight.",
                self.trainer.world_size,
            )
            self._has_indices = False
        self._evaluator.update(self._logits_of(images, len(labels)), labels)

    def _logits_of(self, images: Any, count: int) -> Tensor:
        """Return logits `(N, num_classes)` of a batch with one view or several views of each of `count` images."""
        if isinstance(images, list):
            return average_views(self, images, count, self.config.num_classes, multi_label=self.multi_label)
        logits: Tensor = self(images)
        return logits

    def _finish_evaluation(self, split: str) -> None:
        if self._evaluator is None or self.trainer.sanity_checking:
            return
        self.counts = self._evaluator.counts(self._sum_over_devices, self._gather_from_devices)
        self.details = self._evaluator.details(self._sum_over_devices, self._gather_from_devices)
        self._check_total(split, self.counts.total)
        if not math.isfinite(self.counts.nll):
            log.warning("the %s loss is %s: the network's logits are not finite. Lower model.optim.lr.", split, self.counts.nll)
        self.record({f"{split}/{name}": value for name, value in self.counts.fractions().items()})

    def _check_total(self, split: str, total: int) -> None:
        """Check that the whole split was evaluated, unless a limit was set."""
        trainer = self.trainer
        limit = trainer.limit_val_batches if split == "val" else trainer.limit_test_batches
        self._update_data_info()  # the number of skipped images is known only now
        info = self.data_info.get("splits", {}).get(split)
        skipped = int(self._sum_over_devices(torch.tensor((info or {}).get("skipped", 0), device=self.device)))
        # The float 1.0 means all batches, the integer 1 means one batch.
        if isinstance(limit, float) and limit == 1.0 and not getattr(trainer, "fast_dev_run", False):
            check_total(split, total, info, skipped)

    def _sum_over_devices(self, tensor: Tensor) -> Tensor:
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def _gather_from_devices(self, rows: Tensor) -> Tensor:
        """Return the rows of all devices, which have different numbers of them."""
        if self.trainer.world_size == 1:
            return rows
        sizes = torch.zeros(self.trainer.world_size, dtype=torch.int64, device=rows.device)
        sizes[self.global_rank] = len(rows)
        counts = self._sum_over_devices(sizes).tolist()
        if not any(counts):
            return rows
        # The collective takes tensors of one shape.
        padded = torch.cat([rows, rows.new_zeros(max(counts) - len(rows), rows.shape[1])])
        gathered = [torch.empty_like(padded) for _ in counts]
        torch.distributed.all_gather(gathered, padded)
        return torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)])


def average_views(
    net: Callable[[Tensor], Tensor],
    views: Sequence[tuple[Tensor, Tensor]],
    images: int,
    num_classes: int,
    *,
    multi_label: bool = False,
) -> Tensor:
    """Return logits of the mean probabilities over the views of each image.

    Args:
        net: From images `(M, C, H, W)` to logits `(M, num_classes)`.
        views: Pairs of images `(M, C, H, W)` and the position in the batch of the image that each is a view of, int64 `(M,)`. All images
            of a batch have the same number of views.
        images: Images in the batch.
        num_classes: Classes of the network.
        multi_label: Whether the probability of each class is a sigmoid of its own.

    Returns:
        `(images, num_classes)`, float32; their softmax, or sigmoid, is the mean probabilities.
    """
    if not views:
        return torch.zeros(images, num_classes)
    device = views[0][1].device
    total, seen = torch.zeros(images, num_classes, device=device), torch.zeros(images, 1, device=device)
    others = torch.zeros_like(total)  # sums of 1 - probability, which are lost where a probability is rounded to 1
    for pixels, owners in views:
        logits = net(pixels).float()
        total.index_add_(0, owners, logits.sigmoid() if multi_label else logits.softmax(dim=1))
        if multi_label:
            others.index_add_(0, owners, (-logits).sigmoid())
        seen.index_add_(0, owners, torch.ones(len(owners), 1, device=device))
    return total.log() - others.log() if multi_label else (total / seen).log()
