"""One folder is one run: `runs/<config>/<n>`, never overwritten, continued by a resume."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from reslight.training.checkpoints import Checkpoints
from reslight.training.classifier import ImageClassifier
from reslight.training.logger import RunLogger
from reslight.training.report import banner, summary
from reslight.training.resume import run_of
from reslight.training.stopping import Preempted

log = logging.getLogger(__name__)

ROOT = "runs"
"""Where runs are kept unless trainer.default_root_dir says otherwise."""


@dataclass(frozen=True)
class Runs:
    """The runs of one configuration.

    Args:
        root: Where runs are kept; `runs` by default, or trainer.default_root_dir.
        name: The configuration's name: `digits`, `cifar10/resnet20`.
        number: Look for checkpoints in this run alone, not in the newest.
    """

    root: Path
    name: str
    number: int | None = None

    @classmethod
    def of(cls, config: Path | None, name: str) -> "Runs":
        """The runs of a configuration file of that name. One that lies in a run's folder means that run."""
        if config is None:
            return cls(Path(ROOT), name)
        folder = config.resolve().parent
        if folder.name.isdecimal() and config.stem.split(".")[0] == "config":
            here = Path.cwd()
            root = folder.parents[1]
            return cls(root.relative_to(here) if root.is_relative_to(here) else root, folder.parent.name, int(folder.name))
        return cls(Path(ROOT), name)

    @property
    def folder(self) -> Path:
        """Holds one folder a run."""
        return self.root / self.name

    def numbers(self) -> list[int]:
        """Numbers of the runs that are there, rising."""
        if not self.folder.is_dir():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdecimal() and path.is_dir())

    def newest(self, checkpoint: str) -> Path:
        """That checkpoint of the newest run, or of run `number`.

        Raises:
            FileNotFoundError: There is no run, or it has none: an older one is only offered, lest it be taken for the newest.
        """
        numbers = self.numbers()
        wanted = self.number or (numbers[-1] if numbers else None)
        paths = {number: self.folder / str(number) / "checkpoints" / checkpoint for number in numbers}
        if wanted in paths and paths[wanted].is_file():
            return paths[wanted]
        fix = "train one with `reslight fit`, or give the path of a checkpoint as --ckpt_path"
        if older := [path for number, path in paths.items() if number != wanted and path.is_file()]:
            fix = f"give the path of one as --ckpt_path, such as {older[-1]}"
        which = f"run {wanted} in {self.folder} has" if wanted in paths else f"no run in {self.folder} has"
        raise FileNotFoundError(f"{which} {'no' if wanted in paths else 'a'} checkpoint {checkpoint}; {fix}")

    def under(self, root: Path) -> "Runs":
        """The same configuration's runs elsewhere; the same runs where they are in that folder already, however deep."""
        here, folder = root.resolve(), self.folder.resolve()
        name = folder.relative_to(here).as_posix() if self.number and folder.is_relative_to(here) else self.name
        return replace(self, root=root, name=name)

    def checkpoint(self, wanted: str | None, *, resume: bool) -> Path | None:
        """The checkpoint that a command means.

        Args:
            wanted: `last` or `best` of the newest run (or of `number`), a file, or None.
            resume: For training, where None means a new run; to measure, None means `last`.

        Raises:
            FileNotFoundError: There is none.
        """
        if wanted is None and resume:
            return None
        if wanted not in (None, "last", "best"):
            file = Path(wanted)
            if file.is_dir():  # a run
                file = file / "checkpoints" / "last.ckpt"
            if not file.is_file():
                raise FileNotFoundError(f"no checkpoint {wanted}; give the path of one, or last or best for the newest run's")
            return file
        return self.newest(f"{wanted or 'last'}.ckpt")

    def create(self) -> Path:
        """Make the folder of the next run; two processes never get the same one.

        Raises:
            PermissionError: The folder cannot be made there.
        """
        while True:
            path = self.folder / str(max(self.numbers(), default=0) + 1)
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                if self.folder.is_dir():
                    continue  # another process was faster
                raise
            except OSError as error:
                raise PermissionError(
                    f"no run can be kept in {self.folder} ({error.strerror}); choose another place with --trainer.default_root_dir"
                ) from error
            return path


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
