"""The loggers of a configuration: in the run's folder unless the user says otherwise, and continued in every command.

A strategy that is named by its class is completed here, too: jsonargparse would take the name as a text.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch.loggers import Logger

from reslight.cli.command_line import Setting, expanded
from reslight.cli.settings import find_class
from reslight.runs.folder import Run
from reslight.runs.trackers import continue_trackers

RUN_FOLDER = "<run>"
"""The value of a logger's `save_dir` that means the run's folder."""
IN_RUN_FOLDER = ("CSVLogger", "TensorBoardLogger")
"""Loggers that write files, and have no folder of their own to write to."""


def complete_classes(words: Sequence[str], settings: Sequence[Setting]) -> tuple[list[str], list[Setting]]:
    """Give loggers of files the run's folder where no folder is chosen, since Lightning's own have no default; write out strategies.

    Args:
        words: The words for jsonargparse, see `read_command`.
        settings: The same as settings.
    """
    result: list[str] = []
    for word in words:
        option, equals, value = word.partition("=")
        if result[-1:] == ["--config"]:
            content = json.loads(word)
            if isinstance(trainer := content.get("trainer"), dict):
                completed = {name: complete(trainer[name]) for name, complete in _COMPLETE.items() if name in trainer}
                word = json.dumps(content | {"trainer": trainer | completed})
        elif result and (name := _class_option(result[-1])):
            word = _typed(name, word)
        elif equals and (name := _class_option(option)):
            word = f"{option}={_typed(name, value)}"
        result.append(word)
    added: list[Setting] = []
    for setting in settings:
        for inner in expanded(setting) if setting.key == "trainer.logger" else [setting]:
            added.append(inner)
            if inner.key == "trainer.logger" and _name(inner.value) in IN_RUN_FOLDER:
                added.append(Setting("trainer.logger.save_dir", RUN_FOLDER, inner.file))
    return result, added


def _class_option(option: str) -> str | None:
    """Return `logger` or `strategy` for the option of one; None for any other word."""
    name = option.removeprefix("--trainer.").removesuffix("+")
    return name if option.startswith("--trainer.") and name in _COMPLETE else None


def _typed(name: str, value: str) -> str:
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        return value  # jsonargparse reports it
    return value if (completed := _COMPLETE[name](parsed)) == parsed else json.dumps(completed)


def _with_folder(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_folder(one) for one in value]
    logger = {"class_path": value} if isinstance(value, str) else value
    if not isinstance(logger, dict) or _name(logger.get("class_path")) not in IN_RUN_FOLDER:
        return value
    return logger | {"init_args": {"save_dir": RUN_FOLDER} | (logger.get("init_args") or {})}


def _as_strategy(value: Any) -> Any:
    is_class = isinstance(value, str) and ("." in value or value[:1].isupper())
    return {"class_path": value} if is_class else value


_COMPLETE: Mapping[str, Callable[[Any], Any]] = {"logger": _with_folder, "strategy": _as_strategy}


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
