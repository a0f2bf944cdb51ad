"""The loggers of a configuration: in the run's folder unless the user says otherwise, and continued in every command."""

from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.loggers import Logger

from reslight.cli.command_line import Setting
from reslight.cli.settings import find_class
from reslight.runs.folder import Run
from reslight.runs.trackers import continue_trackers

RUN_FOLDER = "<run>"
"""The value of a logger's `save_dir` that means the run's folder."""
IN_RUN_FOLDER = ("CSVLogger", "TensorBoardLogger")
"""Loggers that write files, and have no folder of their own to write to."""


def with_folder(value: Any) -> Any:
    """Return the value of `trainer.logger` with the run's folder for loggers of files that have none, since Lightning's have no default."""
    if isinstance(value, list):
        return [with_folder(one) for one in value]
    logger = {"class_path": value} if isinstance(value, str) else value
    if not isinstance(logger, dict) or not writes_to_run(logger.get("class_path")):
        return value
    return logger | {"init_args": {"save_dir": RUN_FOLDER} | (logger.get("init_args") or {})}


def writes_to_run(name: Any) -> bool:
    """Return whether this is the name of a logger that writes to the run's folder."""
    return _name(name) in IN_RUN_FOLDER


def _name(value: Any) -> str:
    return str(value).rpartition(".")[2]


class Loggers:
    """The loggers of a configuration.

    Those in the run's folder can be made only when the run has a folder.

    Args:
        trainer: The settings of the Trainer, which keep the loggers that can be made at once.
        run: The run that a command continues; None for a new run.
    """

    def __init__(self, trainer: Namespace, run: Run | None) -> None:
        self.configured = trainer.logger
        chosen = self.configured if isinstance(self.configured, list) else [self.configured]
        own = [one.clone() for one in chosen if isinstance(one, Namespace)]
        if run:
            continue_trackers(own, run)
        # A class without arguments has no init_args.
        self._late = [one for one in own if str((one.get("init_args") or {}).get("save_dir")).startswith(RUN_FOLDER)]
        if own:
            trainer.logger = [one for one in own if one not in self._late] or None

    def make(self, folder: Path) -> list[Logger]:
        """Make the loggers that write to the run's folder."""
        loggers = []
        for one in self._late:
            arguments = one.init_args.as_dict()
            arguments["save_dir"] = str(folder) + arguments["save_dir"].removeprefix(RUN_FOLDER)
            if _name(one.class_path) == "TensorBoardLogger" and arguments.get("version") is None:
                arguments["version"] = 0  # a resume and a test append to the events of the run
            made: Any = find_class(Setting("trainer.logger", one.class_path))
            loggers.append(made(**arguments, **(one.get("dict_kwargs") or {})))
        return loggers
