"""Saves a run: makes its folder when training starts, and writes its configuration and summary."""

import json
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger

from reslight.atomic import write_files
from reslight.lightning_private import batches_begun, has_hp_metric, requeue_checkpoint, restore_training_loaders, validation_is_scheduled
from reslight.runs.folder import Run, RunDirectory
from reslight.runs.lock import RunInUseError, RunLock
from reslight.runs.logger import RunLogger
from reslight.runs.metrics_table import FIRST_COLUMNS
from reslight.runs.report import start_lines, summary
from reslight.runs.trackers import log_settings, remember_ids
from reslight.runs.yaml_file import read
from reslight.training.checkpoints import Checkpoints
from reslight.training.classifier import ImageClassifier
from reslight.training.numbering import number_loggers
from reslight.training.signals import Preempted

log = logging.getLogger(__name__)

ROW = "metrics_row"
"""Where a checkpoint of a run that was stopped within an epoch has the row of its step without what the stop added."""


class RunFolder(Callback):
    """Makes the folder of a run when training starts, and writes its summary.json when training ends.

    Nothing is made before the first step: a mistake in the configuration leaves no empty run behind. While it trains, the run is locked:
    a second process that resumes it is refused.

    Args:
        runs: The runs of the configuration; a new run gets the next number.
        write_config: Writes the run's configuration to the path that it gets.
        resume: The checkpoint that training resumes from: its run is continued in its folder.
        make_loggers: Makes the loggers that write to the folder of the run, which it gets.

    Attributes:
        run: The run; None before training starts, and where nothing is saved.
        config: The configuration that was saved in the run.
    """

    def __init__(
        self,
        runs: RunDirectory,
        write_config: Callable[[Path], None],
        resume: Path | None = None,
        make_loggers: Callable[[Path], list[Logger]] = lambda _: [],
    ) -> None:
        self.runs, self.resume, self._write_config, self._make_loggers = runs, resume, write_config, make_loggers
        self.run: Run | None = None
        self.config: Path | None = None
        self._lock: RunLock | None = None
        self._started = time.monotonic()
        self._without_folder: list[ModelCheckpoint] = []
        self._row: dict[str, str] | None = None  # of metrics.csv, before training stopped within an epoch
        self._resumed_row: dict[str, str] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lock a run that is resumed. Give each ModelCheckpoint without a `dirpath` the folder of the run, or of the next one until then.

        Lightning would take a folder of the first logger, and on a resume forget the best checkpoints of another folder.

        Raises:
            RunInUseError: another process is training the run.
        """
        callbacks = trainer.checkpoint_callbacks
        found = [one for one in callbacks if isinstance(one, ModelCheckpoint) and not one.dirpath]
        self._without_folder = found or self._without_folder
        if stage == "fit":
            resumed = Run.of_checkpoint(self.resume) if self.resume else None
            if resumed and not getattr(trainer, "fast_dev_run", False):
                self._own(trainer, resumed)
            if trainer.is_global_zero and self.resume is None and (requeued := requeue_checkpoint(trainer)):
                log.warning(
                    "%s is a checkpoint that Lightning saved when it requeued a SLURM job: training starts from it, as a new run. "
                    "Delete it to start from the beginning, or resume a run with --ckpt_path last.",
                    requeued,
                )
            self._place(resumed or Run(self.runs.next_folder()))

    def _own(self, trainer: Trainer, run: Run) -> None:
        """Lock the run on the first process; all processes are refused together."""
        refusal = None
        if trainer.is_global_zero:
            try:
                self._lock = RunLock(run.folder)
            except RunInUseError as error:
                refusal = str(error)
        if refusal := trainer.strategy.broadcast(refusal):
            raise RunInUseError(refusal)

    def _release(self) -> None:
        if self._lock:
            self._lock.release()
        self._lock = None

    def _place(self, run: Run) -> None:
        for callback in self._without_folder:
            callback.dirpath = str(run.more_checkpoints.resolve())

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the folder on the first process, send metrics and checkpoints there, and log what is trained."""
        self._started = time.monotonic()
        restore_training_loaders(trainer)  # before the run's folder changes: they may refuse the checkpoint
        if not getattr(trainer, "fast_dev_run", False):
            self._open(trainer)
        if trainer.is_global_zero and isinstance(pl_module, ImageClassifier):
            log.info("%s", "\n".join(start_lines(trainer, pl_module, self.run)))

    def _open(self, trainer: Trainer) -> None:
        resumed = Run.of_checkpoint(self.resume) if self.resume else None
        chosen = (resumed or self.runs.create()).folder if trainer.is_global_zero else None
        self.run = run = Run(trainer.strategy.broadcast(chosen) or Path())
        if not resumed:
            self._own(trainer, run)
        for logger in trainer.loggers:  # first of all: a damaged metrics.csv is refused
            if isinstance(logger, RunLogger):
                logger.open(run, *((trainer.global_step, self._resumed_row) if resumed else ()))
        if trainer.is_global_zero:
            run.summary.unlink(missing_ok=True)  # a run that is resumed is not finished
            self.config = run.next_config()
            self._write_config(self.config)
        self._row = self._resumed_row = None
        trainer.loggers = [*self._make_loggers(run.folder), *trainer.loggers]
        number_loggers(trainer)
        if trainer.is_global_zero and self.config:
            log_settings(trainer.loggers, read(self.config), run)
            remember_ids(trainer.loggers, run)
            for logger in trainer.loggers:
                logger.log_graph(trainer.lightning_module)  # a logger's own setting, which Lightning reads when it logs settings
        self._place(run)
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, Checkpoints):
                callback.folder = run.checkpoints

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the row of the present step, if this validation is one that only the end of training within an epoch adds."""
        if trainer.state.fn == "fit" and not (trainer.sanity_checking or validation_is_scheduled(trainer)):
            self._keep_row(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the row of the present step, if the epoch was cut short."""
        if math.isfinite(per_epoch := trainer.num_training_batches) and batches_begun(trainer) % int(per_epoch):
            self._keep_row(trainer)

    def _keep_row(self, trainer: Trainer) -> None:
        """Keep the row for a resume, which trains the rest of the epoch: the whole epoch's values come then."""
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger) and self._row is None:
                row = logger.row_of(trainer.global_step)
                row.pop("images_per_second", None)  # Progress has logged the epoch's speed by now
                self._row = row if row.keys() > {*FIRST_COLUMNS} else {}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put metrics.csv on the disk before any checkpoint, of Checkpoints or another callback, is put in place."""
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.flush()
        if self._row is not None:
            checkpoint[ROW] = self._row

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Get the row that replaces the last one of a run that was stopped within an epoch."""
        self._resumed_row = checkpoint.get(ROW)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Release the run. After a signal, log which checkpoint it can be resumed from."""
        self._release()
        if isinstance(exception, KeyboardInterrupt | Preempted) and trainer.is_global_zero and self.run:
            last = self.run.checkpoint()
            if last.is_file():
                log.info("saved  %s; resume with --ckpt_path last", last)
            else:
                off = not any(isinstance(one, Checkpoints) for one in trainer.checkpoint_callbacks)
                log.info("no checkpoint was saved: %s", "checkpoints are off" if off else "training stopped before the first one")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Release the run."""
        if stage == "fit":
            self._release()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write summary.json, and the last accuracy or mAP as the metric of TensorBoard's hyper-parameters."""
        if self.run is None or not trainer.is_global_zero or not isinstance(pl_module, ImageClassifier):
            return
        names = ("val/mAP", "train/subset_acc") if pl_module.multi_label else ("val/acc1", "train/acc1")
        final = next((pl_module.recorded[name] for name in names if name in pl_module.recorded), None)
        for logger in trainer.loggers:
            if final is not None and has_hp_metric(logger):
                logger.log_metrics({"hp_metric": final}, step=trainer.global_step)
        text = json.dumps(summary(trainer, pl_module, time.monotonic() - self._started), indent=2)
        write_files({self.run.summary: f"{text}\n".encode()})
