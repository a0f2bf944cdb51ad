"""Checkpoints that are whole or not there: written beside their place, flushed to the disk, then renamed."""

import logging
import math
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, WeightAveraging
from lightning.pytorch.plugins.io import TorchCheckpointIO

from reslight.messages import UsageError
from reslight.training.signals import NUMBERS, StopSignals

log = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Replaces a checkpoint in one step of the file system, whatever TMPDIR is.

    Lightning's own writes to the system's temporary folder and moves the file; between two file systems a move is a copy, and a copy
    can be cut short.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None) -> None:
        """Write `checkpoint` to `path`; on any failure what stood there before is untouched.

        Raises:
            OSError: The file system does not take it.
        """
        target = Path(path)
        unfinished = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(target)
        except BaseException as error:
            with suppress(OSError):  # what went wrong is the error to tell
                unfinished.unlink(missing_ok=True)
            if cause := _system_error(error):
                kept = "the one before it is as it was" if target.is_file() else "there is none before it"
                raise OSError(
                    f"{target} of step {checkpoint.get('global_step')} cannot be written ({cause.strerror or cause}); {kept}. "
                    "Make room and go on with --ckpt_path last"
                ) from error
            raise
        _sync_folder(target.parent)


class Checkpoints(Checkpoint):
    """Keeps `last.ckpt` and, where there is a validation set, `best.ckpt`; ends the run after a signal, when last.ckpt is written.

    A checkpoint lies between two steps, before a validation, in its middle (which begins again then), or behind it.

    Args:
        every_n_train_steps: Write last.ckpt every so many optimizer steps too, not only at the end of an epoch.
        every_n_epochs: Write last.ckpt every so many epochs, and at the end of the run.
        monitor: What decides which is best: the highest accuracy or the lowest loss. A tie keeps the earlier one.
        best: Keep best.ckpt.

    Attributes:
        folder: Where to; None keeps nothing.
        signals: Those that end the run.
    """

    def __init__(
        self,
        every_n_train_steps: int | None = None,
        every_n_epochs: int = 1,
        monitor: Literal["val/acc1", "val/loss"] = "val/acc1",
        best: bool = True,
    ) -> None:
        for name, value in (("every_n_train_steps", every_n_train_steps), ("every_n_epochs", every_n_epochs)):
            if value is not None and value < 1:
                raise UsageError(f"checkpoint.{name} is {value}; it must be at least 1")
        self.folder: Path | None = None
        self.signals = StopSignals()
        self.monitor = monitor
        self.best_score: float | None = None
        self.best_step: int | None = None
        self._every_steps, self._every_epochs, self._best = every_n_train_steps, every_n_epochs, best
        self._step = self._saved_step = -1
        self._is_validating = False

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to signals, in the place of Lightning's handler."""
        self._listen(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Where the run begins there is nothing to keep yet; what a killed process left half-written goes."""
        if self.folder and trainer.is_global_zero:
            for unfinished in self.folder.glob(".*.ckpt.*.tmp"):
                unfinished.unlink(missing_ok=True)
        self._step = self._saved_step = trainer.global_step
        self._listen(trainer)
        self.signals.waits = self.folder is not None
        if self.signals.received:  # by another's handler
            self.signals.stop(self.signals.received)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Keep last.ckpt in the middle of an epoch, and end there after a signal."""
        step = trainer.global_step
        if step == self._step:  # accumulation: the step is not done yet
            return
        self._step = step
        if not _more_follows(trainer):
            self._keep_when_due(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep last.ckpt before a validation where it is due, and end there after a signal."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if trainer.global_step != trainer.max_steps:  # a finished run would not be validated when it is resumed
            self._is_validating = True
            self._keep_when_due(trainer)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """End in the middle of a validation after a signal; several processes, which may have unequal shares, end behind it."""
        if self._is_validating and trainer.world_size == 1 and self.signals.received:
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, WeightAveraging):
                    callback.on_validation_epoch_end(trainer, pl_module)  # puts the raw weights back
            self._keep_when_due(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep best.ckpt when the validation was the best yet."""
        self._is_validating = False
        # Lightning keeps its metrics in float32; the classifier has them as they were divided.
        score = getattr(pl_module, "recorded", trainer.callback_metrics).get(self.monitor)
        if trainer.sanity_checking or trainer.state.fn != "fit" or score is None or not self._best:
            return
        if self._is_better(float(score)):
            self.best_score, self.best_step = float(score), trainer.global_step
            self._save(trainer, "best.ckpt")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep last.ckpt after an epoch, and where the run ends; end there after a signal.

        Not in `on_train_end`: by then Lightning has put the average in the place of the raw weights.
        """
        epochs = trainer.current_epoch + 1
        ends = trainer.should_stop or trainer.global_step == trainer.max_steps or epochs == trainer.max_epochs
        if ends:
            self._save(trainer, "last.ckpt")
        else:
            self._keep_when_due(trainer, epochs % self._every_epochs == 0)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """There is nothing left to finish."""
        self.signals.waits = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """There is nothing left to finish."""
        self.signals.waits = False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Say of a validation that has begun that it must begin again: Lightning would go on in its middle, or skip it."""
        if self._is_validating:
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            done = progress["total"]["completed"] - progress["current"]["completed"]
            begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            progress |= {"current": begun, "total": {key: value + done for key, value in begun.items()}, "is_last_batch": False}

    def state_dict(self) -> dict[str, Any]:
        """What is best so far."""
        return {"monitor": self.monitor, "best_score": self.best_score, "best_step": self.best_step}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from there; another monitor starts afresh."""
        if state_dict.get("monitor") == self.monitor:
            self.best_score, self.best_step = state_dict["best_score"], state_dict["best_step"]

    def _is_better(self, score: float) -> bool:
        if self.best_score is None:
            return not math.isnan(score)
        return score < self.best_score if self.monitor == "val/loss" else score > self.best_score

    def _keep_when_due(self, trainer: Trainer, due: bool = False) -> None:
        """Write last.ckpt if it is due by now, or if a signal ends the run here."""
        step, received = trainer.global_step, self._received_by_any(trainer)
        by_steps = self._every_steps and step % self._every_steps == 0
        if due or ((by_steps or received) and step != self._saved_step):
            self._save(trainer, "last.ckpt")
        if received:
            self.signals.stop(received)

    def _received_by_any(self, trainer: Trainer) -> int:
        """The signal that one of the processes received, the same answer for all; 0 for none."""
        if trainer.world_size == 1:
            return self.signals.received
        received = torch.tensor(self.signals.received, device=trainer.strategy.root_device)
        torch.distributed.all_reduce(received, torch.distributed.ReduceOp.MAX)
        return int(received)

    def _listen(self, trainer: Trainer) -> None:
        """Take the signals from Lightning: its handler saves nothing, and calls the other processes at whatever moment it is."""
        requeued = isinstance(getattr(trainer._accelerator_connector, "cluster_environment", None), SLURMEnvironment)
        self.signals.listen(tuple(number for number in NUMBERS if not (requeued and number == signal.SIGUSR1)))

    def _save(self, trainer: Trainer, name: str) -> None:
        if self.folder is None or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if name == "last.ckpt":
            self._saved_step = trainer.global_step
        trainer.save_checkpoint(self.folder / name, weights_only=False)


def _more_follows(trainer: Trainer) -> bool:
    """Whether a validation or the end of the epoch follows the present batch at once: a checkpoint from here would leave it out."""
    loop = trainer.fit_loop
    ends = loop.epoch_loop._num_ready_batches_reached() or trainer.global_step == trainer.max_steps or trainer.should_stop
    return ends or (loop._data_fetcher is not None and loop.epoch_loop._should_check_val_fx(loop._data_fetcher))


def _system_error(error: BaseException | None) -> OSError | None:
    """The operating system's own error: behind what torch makes of a write that failed."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut; not every system lets a folder be opened."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        log.debug("folder %s was not flushed: %s", folder, error)
    finally:
        os.close(descriptor)
