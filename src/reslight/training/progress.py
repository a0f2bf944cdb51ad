"""Progress of a run: a bar in a terminal, and one line per epoch everywhere."""

import math
import os
import sys
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, Timer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from reslight.lightning_private import batches_begun, batches_completed, callbacks_of
from reslight.training.batches import images_in
from reslight.training.classifier import ImageClassifier
from reslight.training.run_length import batches_of_run

BAR_SECONDS = 0.2
"""Interval at which the metrics on the bar are updated: reading the loss more often would stall a GPU."""
LINE_SECONDS = 60.0
"""Interval of the lines that a long epoch prints without a terminal."""


class Progress(ProgressBar):
    """Shows loss, accuracy, learning rate and images per second of a run.

    The bar shows the metrics of this process in the epoch so far; the line of an epoch shows those of all devices in the whole epoch.
    Values that a module or a callback logs with `prog_bar=True` follow. Images per second count training only, not validation, and are
    logged as `images_per_second`. The time that the whole run still takes, if it is a minute or more, is that of its batches so far with
    their validations, and at most what trainer.max_time leaves.
    """

    def __init__(self) -> None:
        super().__init__()
        self._console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self._bar: Bar | None = None
        self._enabled = True
        self._validated = False
        self._epoch = ""
        self._finished: str | None = None
        self._images, self._seconds = 0, 0.0
        self._clock = self._shown = self._started = time.monotonic()
        self._batches_before = 0

    def enable(self) -> None:
        """Show the bar and the lines."""
        self._enabled = True

    def disable(self) -> None:
        """Show nothing; Lightning calls this in all processes but the first."""
        self._enabled = False
        self._stop_bar()

    # -- training

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin an epoch; for a run that resumes within an epoch, `on_train_epoch_start` is not called."""
        self._started, self._batches_before = time.monotonic(), batches_completed(trainer)
        self._begin_epoch(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of the last epoch and begin the next one."""
        self._print_line(trainer)
        self._begin_epoch(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count the batch; update the bar, or print a line, if it is time."""
        now = time.monotonic()
        self._seconds += now - self._clock
        self._clock = now
        self._images += images_in(batch) * trainer.world_size
        if self._enabled and now - self._shown > (BAR_SECONDS if self._bar else LINE_SECONDS):
            self._shown = now
            numbers = f"{_metrics_so_far(trainer, pl_module)}   {self._images_per_second():,.0f} images/s{self._left(trainer)}"
            if self._bar:
                self._bar.update(self._bar.task_ids[0], completed=batch_idx + 1, numbers=numbers)
            else:
                self._console.print(f"{self._epoch}   batch {batch_idx + 1}/{self.total_train_batches}   {numbers}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Clear the bar; the epoch's line is printed later, since Lightning calls the module, which records the epoch, after callbacks."""
        self._stop_bar()
        if not self._seconds:  # resumed from a checkpoint at the end of the epoch
            return
        speed = self._images_per_second()
        self._finished = f"{speed:,.0f} images/s   {self._seconds:.1f} s"
        for logger in trainer.loggers:
            logger.log_metrics({"images_per_second": speed}, step=trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of the last epoch."""
        self._print_line(trainer)

    # -- evaluation

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start a bar."""
        self._start_bar("validate", sum(trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches))

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Advance the bar."""
        self._advance()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Clear the bar, and leave validation out of the training time."""
        self._stop_bar()
        self._validated = True
        self._clock = time.monotonic()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start a bar."""
        self._start_bar("test", sum(trainer.num_test_batches))

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Advance the bar."""
        self._advance()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start a bar."""
        self._start_bar("predict", sum(trainer.num_predict_batches))

    def on_predict_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Advance the bar."""
        self._advance()

    # -- clean-up

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Clear the bar."""
        self._stop_bar()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Clear the bar."""
        self._stop_bar()

    # -- helpers

    def _begin_epoch(self, trainer: Trainer) -> None:
        self._epoch, self._validated = _epoch(trainer), False
        self._images, self._seconds = 0, 0.0
        self._clock = self._shown = time.monotonic()
        self._start_bar(self._epoch, self.total_train_batches)

    def _start_bar(self, text: str, total: int | float) -> None:
        self._stop_bar()
        if self._enabled and self._console.is_terminal and _can_move_cursor():
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

    def _print_line(self, trainer: Trainer) -> None:
        if self._finished and self._enabled:
            self._console.print(f"{self._epoch}   {_epoch_metrics(trainer, self._validated)}   {self._finished}{self._left(trainer)}")
        self._finished = None

    def _left(self, trainer: Trainer) -> str:
        """Return how long the run still takes, as the end of a line."""
        done = batches_begun(trainer)  # this is read at the end of a batch or of an epoch
        seconds = time_left(done - self._batches_before, batches_of_run(trainer) - done, time.monotonic() - self._started)
        limits = (callback.time_remaining() for callback in callbacks_of(trainer) if isinstance(callback, Timer))  # of trainer.max_time
        seconds = min(seconds, *(limit for limit in limits if limit is not None), math.inf)
        return f"   {hours_and_minutes(seconds)} left" if 60 <= seconds < math.inf else ""

    def _images_per_second(self) -> float:
        return self._images / self._seconds if self._seconds else 0.0


def time_left(done: float, left: float, seconds: float) -> float:
    """Return the seconds that `left` batches take where `done` batches took `seconds`; infinity where that is not known."""
    return seconds / done * left if done > 0 else math.inf


def hours_and_minutes(seconds: float) -> str:
    """Return a time such as `1 h 05 min` or `12 min`."""
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {minutes:02d} min" if hours else f"{minutes} min"


def _can_move_cursor() -> bool:
    """Return whether a bar can be drawn where it was: on a terminal, but not in the output of a notebook's `!` command.

    With FORCE_COLOR, which notebooks and CI services set, rich takes any stream for a terminal; and a notebook gives `!` commands a
    terminal of their own, whose control sequences it then prints.
    """
    return sys.stdout.isatty() and "JPY_PARENT_PID" not in os.environ


def _epoch(trainer: Trainer) -> str:
    """Return the number of the epoch that begins, counted from 1, and the number of epochs."""
    per_epoch = trainer.num_training_batches
    number = trainer.current_epoch if per_epoch in (0, float("inf")) else batches_begun(trainer) // int(per_epoch)
    total = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
    return f"epoch {number + 1:>{max(1, len(total) - 1)}}{total}"


def _metrics_so_far(trainer: Trainer, module: LightningModule) -> str:
    """Return loss, accuracy and learning rate of the epoch so far, of this process, and what was logged for a bar."""
    parts = []
    if isinstance(module, ImageClassifier):
        parts = [f"{name} {value:.4f}" for name, value in module.training_sums.fractions().items()]
        parts += [f"lr {trainer.optimizers[0].param_groups[0]['lr']:.3g}"]
    return "   ".join([*parts, *_logged_for_bar(trainer)])


def _epoch_metrics(trainer: Trainer, validated: bool) -> str:
    """Return the metrics of the epoch, of all processes, and what was logged for a bar."""
    values = {name: float(value) for name, value in trainer.callback_metrics.items()}
    parts = [f"lr {values['lr']:<8.3g}"] if "lr" in values else []
    for split in ("train", "val") if validated else ("train",):
        numbers = [f"{name} {values[f'{split}/{name}']:.4f}" for name in ("loss", "acc1", "mAP") if f"{split}/{name}" in values]
        parts += [f"{split} {' '.join(numbers)}"] if numbers else []
    return "   ".join([*parts, *_logged_for_bar(trainer)])


def _logged_for_bar(trainer: Trainer) -> list[str]:
    """Return the last values that a module or a callback logged with `prog_bar=True`."""
    return [f"{escape(name)} {float(value):.5g}" for name, value in trainer.progress_bar_metrics.items()]
