"""Checkpoints that are whole or not there: written beside their place, flushed to the disk, then renamed."""

import logging
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

log = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Replaces a checkpoint in one step of the file system, whatever TMPDIR is.

    Lightning's own writes to the system's temporary folder and moves the file; between two file systems a move is a copy, and a copy
    can be cut short.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None) -> None:
        """Write `checkpoint` to `path`; on any failure what stood there before is untouched."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)


class Checkpoints(Checkpoint):
    """Keeps `last.ckpt` and, where there is a validation set, `best.ckpt`.

    Args:
        every_n_train_steps: Write last.ckpt every so many optimizer steps too, not only at the end of an epoch.
        every_n_epochs: Write last.ckpt every so many epochs, and at the end of the run.
        monitor: What decides which is best: the highest accuracy or the lowest loss. A tie keeps the earlier one.
        best: Keep best.ckpt.
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
                raise ValueError(f"checkpoint.{name} is {value}; it must be at least 1")
        self.folder: Path | None = None
        self.monitor = monitor
        self.best_score: float | None = None
        self.best_step: int | None = None
        self._every_steps, self._every_epochs, self._best = every_n_train_steps, every_n_epochs, best
        self._saved_step = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Where the run begins there is nothing to keep yet."""
        self._saved_step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Keep last.ckpt in the middle of an epoch."""
        step = trainer.global_step
        if self._every_steps and step % self._every_steps == 0 and step != self._saved_step:
            self._save(trainer, "last.ckpt")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep best.ckpt when the validation was the best yet."""
        # Lightning keeps its metrics in float32; the classifier has them as they were divided.
        score = getattr(pl_module, "recorded", trainer.callback_metrics).get(self.monitor)
        if trainer.sanity_checking or trainer.state.fn != "fit" or score is None or not self._best:
            return
        if self._is_better(float(score)):
            self.best_score, self.best_step = float(score), trainer.global_step
            self._save(trainer, "best.ckpt")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep last.ckpt after an epoch, and where the run ends.

        Not in `on_train_end`: by then Lightning has put the average in the place of the raw weights.
        """
        epochs = trainer.current_epoch + 1
        ends = trainer.should_stop or trainer.global_step == trainer.max_steps or epochs == trainer.max_epochs
        if ends or epochs % self._every_epochs == 0:
            self._save(trainer, "last.ckpt")

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

    def _save(self, trainer: Trainer, name: str) -> None:
        if self.folder is None or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if name == "last.ckpt":
            self._saved_step = trainer.global_step
        trainer.save_checkpoint(self.folder / name, weights_only=False)


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
