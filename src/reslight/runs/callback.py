"""One folder is one run: `runs/<config>/<n>`, never overwritten, continued by a resume."""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from reslight.runs.folder import Runs, run_of
from reslight.runs.logger import RunLogger
from reslight.runs.report import banner, summary
from reslight.training.checkpoints import Checkpoints
from reslight.training.classifier import ImageClassifier
from reslight.training.signals import Preempted

log = logging.getLogger(__name__)


class RunFolder(Callback):
    """Makes the folder of a run when training starts, and puts its summary there when it ends.

    Nothing is made before the first step is due: a mistake in the configuration leaves no empty run behind.

    Args:
        runs: Where the folder goes.
        write_config: Writes the run's configuration to the path that it gets.
        resume: The checkpoint that the run goes on from: then its folder is used again.
    """

    def __init__(self, runs: Runs, write_config: Callable[[Path], None], resume: Path | None = None) -> None:
        self.runs, self.resume, self._write_config = runs, resume, write_config
        self.path: Path | None = None
        self.config: Path | None = None
        self._started = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the folder on the first process, tell it to all, send metrics and checkpoints there, and say what is trained."""
        self._started = time.monotonic()
        if not getattr(trainer, "fast_dev_run", False):
            self._open(trainer)
        if trainer.is_global_zero and isinstance(pl_module, ImageClassifier):
            log.info("%s", "\n".join(banner(trainer, pl_module, self.path)))

    def _open(self, trainer: Trainer) -> None:
        resumed = run_of(self.resume) if self.resume else None
        chosen = (resumed or self.runs.create()) if trainer.is_global_zero else None
        self.path = folder = trainer.strategy.broadcast(chosen) or Path()
        if trainer.is_global_zero:
            self.config = _free_name(folder)
            self._write_config(self.config)
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.open(folder, trainer.global_step if resumed else None)
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, Checkpoints):
                callback.folder = folder / "checkpoints"

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """After a signal: what there is to go on from."""
        last = self.path / "checkpoints" / "last.ckpt" if self.path else None
        if isinstance(exception, KeyboardInterrupt | Preempted) and trainer.is_global_zero and last:
            kept = f"{last}; go on with --ckpt_path last" if last.is_file() else "no checkpoint: the first epoch was not done"
            log.info("kept   %s", kept)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write summary.json."""
        if self.path is None or not trainer.is_global_zero or not isinstance(pl_module, ImageClassifier):
            return
        text = json.dumps(summary(trainer, pl_module, time.monotonic() - self._started), indent=2)
        (self.path / "summary.json").write_text(text + "\n", encoding="utf-8")


def _free_name(folder: Path) -> Path:
    """config.yaml, or for a resume the next of config.1.yaml, config.2.yaml ..."""
    path, number = folder / "config.yaml", 0
    while path.exists():
        number += 1
        path = folder / f"config.{number}.yaml"
    return path
