"""Checkpoints of a run: written whole or not at all, at the right moments, and after a signal to stop."""

import math
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, WeightAveraging
from lightning.pytorch.plugins.io import TorchCheckpointIO

from reslight import lightning_private
from reslight.atomic import unfinished_files, write_files
from reslight.messages import UsageError
from reslight.training.signals import NUMBERS, StopSignals


class AtomicCheckpointIO(TorchCheckpointIO):
    """Replaces a checkpoint by a single rename, in the checkpoint's own folder.

    Lightning writes to the system's temporary folder and then moves the file. Between two file systems a move is a copy, which can be cut
    short.
    """

    def __init__(self) -> None:
        super().__init__()
        self._read: dict[str, dict[str, Any]] = {}

    def provide(self, path: Path, contents: dict[str, Any]) -> None:
        """Set what `load_checkpoint` returns the next time: a running fit may replace the file after it was read."""
        self._read = {str(path): contents}

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the contents of a checkpoint: those that were provided, or else of the file."""
        provided = self._read.pop(str(path), None)
        return super().load_checkpoint(path, *args, **kwargs) if provided is None else provided

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None) -> None:
        """Write a checkpoint; on any failure an earlier file at `path` is kept.

        Raises:
            OSError: a file that cannot be written.
        """
        target = Path(path)
        try:
            write_files({target: lambda file: torch.save(checkpoint, file)})
        except OSError as error:
            cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
            kept = "The earlier checkpoint is kept" if target.is_file() else "There is no earlier checkpoint"
            raise OSError(
                f"{target} of step {checkpoint.get('global_step')} cannot be written: {cause.strerror or cause}. {kept}. "
                "Make room and resume with --ckpt_path last."
            ) from error


class Checkpoints(Checkpoint):
    """Writes `last.ckpt` and, with a validation set, `best.ckpt`; after a signal, writes last.ckpt and ends the run.

    Checkpoints are taken between steps and before, during or after a validation. An interrupted validation restarts on resume.

    Args:
        every_n_train_steps: Interval of last.ckpt in optimizer steps, besides the ends of epochs; none if null.
        every_n_epochs: Interval of last.ckpt in epochs. It is always written at the end of the run.
        monitor: The metric of the best checkpoint: the highest accuracy or the lowest loss; if null, val/acc1, or val/mAP for several
            labels of each image. The earlier one wins a tie.
        best: Write best.ckpt.

    Attributes:
        folder: The folder of the checkpoints. If none is set when training starts: `checkpoints` in the folder of the trainer's first
            logger, or without one in its default_root_dir.
        signals: The signals that end the run.
        best_score: The best value of `monitor` so far.
        best_step: Its step.
    """

    def __init__(
        self,
        every_n_train_steps: int | None = None,
        every_n_epochs: int = 1,
        monitor: Literal["val/acc1", "val/loss", "val/mAP"] | None = None,
        best: bool = True,
    ) -> None:
        for name, value in (("every_n_train_steps", every_n_train_steps), ("every_n_epochs", every_n_epochs)):
            if value is not None and value < 1:
                raise UsageError(f"checkpoint.{name} is {value}: it must be at least 1.")
        self.folder: Path | str | None = None
        self._used = Path()  # of this training
        self.signals = StopSignals()
        self._chosen_monitor = monitor
        self.monitor: str = monitor or "val/acc1"
        self.best_score: float | None = None
        self.best_step: int | None = None
        self._every_steps, self._every_epochs, self._best = every_n_train_steps, every_n_epochs, best
        self._step = self._saved_step = -1
        self._is_validating = False
        self._group: Any = None  # of processes, through which they share signals; None for the one of the run

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the metric of the best checkpoint.

        Raises:
            UsageError: a metric that images with one label, or with several, do not have.
        """
        several = getattr(pl_module, "multi_label", False)
        usual, other = ("val/mAP", "val/acc1") if several else ("val/acc1", "val/mAP")
        if self._chosen_monitor == other:
            raise UsageError(
                f"checkpoint.monitor is {other}: each image has {'several labels' if several else 'one label'}. Use val/loss or {usual}."
            )
        self.monitor = self._chosen_monitor or usual

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle signals in place of Lightning."""
        self._listen(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove what a killed process left half-written, and handle signals."""
        # reslight's command line has set the run's folder by now.
        chosen = self.folder or Path(trainer.log_dir or trainer.default_root_dir) / "checkpoints"
        self._used = Path(trainer.strategy.broadcast(chosen))
        if trainer.is_global_zero:
            for unfinished in unfinished_files(self._used, "*.ckpt"):
                unfinished.unlink(missing_ok=True)
        self._step = self._saved_step = trainer.global_step
        if trainer.world_size > 1 and trainer.strategy.root_device.type == "cuda":
            # Through NCCL, every step would wait for the device to know of a signal.
            self._group = torch.distributed.new_group(backend="gloo")
        self._listen(trainer)
        self.signals.waits = not getattr(trainer, "fast_dev_run", False)
        if self.signals.received:  # while another handler was installed
            self.signals.stop(self.signals.received)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Save last.ckpt in the middle of an epoch if it is due, and end there after a signal."""
        step = trainer.global_step
        if step == self._step:  # with gradient accumulation, the step is not complete yet
            return
        self._step = step
        # A checkpoint from here would skip a validation or the end of the epoch that follows at once; those save it themselves.
        if not lightning_private.validation_or_epoch_end_follows(trainer):
            self._save_when_due(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save last.ckpt before a validation if it is due, and end there after a signal."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if trainer.global_step != trainer.max_steps:  # resuming a finished run would not validate it
            self._is_validating = True
            self._save_when_due(trainer)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """End in the middle of a validation after a signal; several processes may have unequal numbers of batches and end after it."""
        if self._is_validating and trainer.world_size == 1 and self.signals.received:
            for callback in lightning_private.callbacks_of(trainer):
                if isinstance(callback, WeightAveraging):
                    callback.on_validation_epoch_end(trainer, pl_module)  # restores the raw weights
            self._save_when_due(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save best.ckpt if this validation was the best so far."""
        self._is_validating = False
        # Lightning keeps metrics in float32, the classifier in full precision.
        score = getattr(pl_module, "recorded", trainer.callback_metrics).get(self.monitor)
        if trainer.sanity_checking or trainer.state.fn != "fit" or score is None or not self._best:
            return
        if self._is_better(float(score)):
            self.best_score, self.best_step = float(score), trainer.global_step
            self._save(trainer, "best.ckpt")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save last.ckpt after an epoch if it is due, and at the end of the run; end there after a signal.

        `on_train_end` would be too late: by then the average has replaced the raw weights.
        """
        epochs = trainer.current_epoch + 1
        ends = trainer.should_stop or trainer.global_step == trainer.max_steps or epochs == trainer.max_epochs
        if ends:
            self._save(trainer, "last.ckpt")
        else:
            self._save_when_due(trainer, epochs % self._every_epochs == 0)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let signals stop the process at once."""
        self.signals.waits = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let signals stop the process at once."""
        self.signals.waits = False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Make a validation that has begun restart when the run resumes."""
        if self._is_validating:
            lightning_private.restart_validation_on_resume(checkpoint)

    def state_dict(self) -> dict[str, Any]:
        """Return the best score so far."""
        return {"monitor": self.monitor, "best_score": self.best_score, "best_step": self.best_step}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the best score, if it is of the same metric."""
        if state_dict.get("monitor") == self.monitor:
            self.best_score, self.best_step = state_dict["best_score"], state_dict["best_step"]

    def _is_better(self, score: float) -> bool:
        if self.best_score is None:
            return not math.isnan(score)
        return score < self.best_score if self.monitor == "val/loss" else score > self.best_score

    def _save_when_due(self, trainer: Trainer, due: bool = False) -> None:
        """Save last.ckpt if it is due or a signal ends the run here."""
        step, received = trainer.global_step, self._received_by_any(trainer)
        by_steps = self._every_steps and step % self._every_steps == 0
        if due or ((by_steps or received) and step != self._saved_step):
            self._save(trainer, "last.ckpt")
        if received:
            self.signals.stop(received)

    def _received_by_any(self, trainer: Trainer) -> int:
        """Return the signal that any of the processes received, the same number on all of them; 0 for none."""
        if trainer.world_size == 1:
            return self.signals.received
        received = torch.tensor(self.signals.received, device="cpu" if self._group else trainer.strategy.root_device)
        torch.distributed.all_reduce(received, torch.distributed.ReduceOp.MAX, group=self._group)
        return int(received)

    def _listen(self, trainer: Trainer) -> None:
        """Replace Lightning's signal handlers, which save no checkpoint; under SLURM, SIGUSR1 stays Lightning's, which requeues the job."""
        left_out = {signal.SIGUSR1} if lightning_private.runs_under_slurm(trainer) else set()
        self.signals.listen(tuple(number for number in NUMBERS if number not in left_out))

    def _save(self, trainer: Trainer, name: str) -> None:
        if getattr(trainer, "fast_dev_run", False):
            return
        if name == "last.ckpt":
            self._saved_step = trainer.global_step
        trainer.save_checkpoint(self._used / name, weights_only=False)
