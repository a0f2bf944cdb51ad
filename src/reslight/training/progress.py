"""What a person sees while a run works: a bar in a terminal, and one line an epoch everywhere."""

import sys
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from reslight.training.classifier import ImageClassifier

BAR_SECONDS = 0.2
"""How often the bar's numbers are brought up to date: reading the loss more often would keep a GPU waiting."""
LINE_SECONDS = 60.0
"""Where there is no terminal, how often a long epoch gives a sign of life."""


class Progress(ProgressBar):
    """Loss, accuracy, learning rate and images per second of a run.

    The bar's numbers are of this process and of the epoch so far; those of an epoch's line are of all devices and of the whole epoch.
    Images per second count training alone, not validation, and go to the loggers as `images_per_second`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self._bar: Bar | None = None
        self._enabled = True
        self._validated = False
        self._epoch = ""
        self._finished: str | None = None
        self._batches, self._seconds = 0, 0.0
        self._clock = self._shown = time.monotonic()

    def enable(self) -> None:
        """Show."""
        self._enabled = True

    def disable(self) -> None:
        """Show nothing: Lightning says so to all processes but the first."""
        self._enabled = False
        self._stop_bar()

    # -- training

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin: a run that goes on in the middle of an epoch begins none."""
        self._begin_epoch(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the last epoch's line and begin the next."""
        self._write_line(trainer)
        self._begin_epoch(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count, and now and then show."""
        now = time.monotonic()
        self._seconds += now - self._clock
        self._clock = now
        self._batches += 1
        if self._enabled and now - self._shown > (BAR_SECONDS if self._bar else LINE_SECONDS):
            self._shown = now
            numbers = f"{_local(trainer, pl_module)}   {self._images_per_second(trainer):,.0f} images/s"
            if self._bar:
                self._bar.update(self._bar.task_ids[0], completed=batch_idx + 1, numbers=numbers)
            else:
                self._console.print(f"{self._epoch}   batch {batch_idx + 1}/{self.total_train_batches}   {numbers}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Clear the bar. The line has to wait: callbacks come before the module, which now measures the epoch."""
        self._stop_bar()
        if not self._batches:  # resumed from a checkpoint at its very end
            return
        rate = self._images_per_second(trainer)
        self._finished = f"{rate:,.0f} images/s   {self._seconds:.1f} s"
        for logger in trainer.loggers:
            logger.log_metrics({"images_per_second": rate}, step=trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the last epoch's line."""
        self._write_line(trainer)

    # -- measuring

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start a bar; validation is not training time."""
        self._start_bar("validate", sum(trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches))

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Move on."""
        self._advance()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go back to training's clock."""
        self._stop_bar()
        self._validated = True
        self._clock = time.monotonic()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start a bar."""
        self._start_bar("test", sum(trainer.num_test_batches))

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Move on."""
        self._advance()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start a bar."""
        self._start_bar("predict", sum(trainer.num_predict_batches))

    def on_predict_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Move on."""
        self._advance()

    # -- leaving the terminal as it was

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Clear the bar."""
        self._stop_bar()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Clear the bar."""
        self._stop_bar()

    # -- inside

    def _begin_epoch(self, trainer: Trainer) -> None:
        self._epoch, self._validated = _epoch(trainer), False
        self._batches, self._seconds = 0, 0.0
        self._clock = self._shown = time.monotonic()
        self._start_bar(self._epoch, self.total_train_batches)

    def _start_bar(self, text: str, total: int | float) -> None:
        self._stop_bar()
        if self._enabled and self._console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(compact=True),
            )
            self._bar = Bar(*columns, TextColumn("{task.fields[numbers]}"), console=self._console, transient=True)
            self._bar.add_task(text, total=total if total < float("inf") else None, numbers="")
            self._bar.start()

    def _advance(self) -> None:
        if self._bar:
            self._bar.advance(self._bar.task_ids[0])

    def _stop_bar(self) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None

    def _write_line(self, trainer: Trainer) -> None:
        if self._finished and self._enabled:
            self._console.print(f"{self._epoch}   {_measured(trainer, self._validated)}   {self._finished}")
        self._finished = None

    def _images_per_second(self, trainer: Trainer) -> float:
        plan = getattr(getattr(trainer, "datamodule", None), "batch_plan", None)
        if plan is None or not self._seconds:
            return 0.0
        return float(self._batches * plan.batch_size / plan.accumulation / self._seconds)


def _epoch(trainer: Trainer) -> str:
    """The epoch that begins, counted from 1, and how many there will be."""
    per_epoch = trainer.num_training_batches
    begun = trainer.fit_loop.epoch_loop.batch_progress.total.ready  # right after a resume too, unlike current_epoch
    number = trainer.current_epoch if per_epoch in (0, float("inf")) else begun // int(per_epoch)
    total = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
    return f"epoch {number + 1:>{max(1, len(total) - 1)}}{total}"


def _local(trainer: Trainer, module: LightningModule) -> str:
    """Loss, accuracy and rate of the epoch so far, of this process."""
    if not isinstance(module, ImageClassifier):
        return ""
    parts = [f"{name} {value:.4f}" for name, value in module.training_sums.fractions().items()]
    return "   ".join([*parts, f"lr {trainer.optimizers[0].param_groups[0]['lr']:.3g}"])


def _measured(trainer: Trainer, validated: bool) -> str:
    """What the epoch gave, of all processes."""
    values = {name: float(value) for name, value in trainer.callback_metrics.items()}
    parts = [f"lr {values['lr']:<8.3g}"] if "lr" in values else []
    for split in ("train", "val") if validated else ("train",):
        numbers = [f"{name} {values[f'{split}/{name}']:.4f}" for name in ("loss", "acc1") if f"{split}/{name}" in values]
        parts += [f"{split} {' '.join(numbers)}"] if numbers else []
    return "   ".join(parts)
