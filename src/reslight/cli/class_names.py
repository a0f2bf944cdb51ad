"""Values of settings that name a class, completed for jsonargparse before it parses them."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reslight.cli.command_line import Setting, expanded
from reslight.cli.loggers import RUN_FOLDER, with_folder, writes_to_run
from reslight.runs import yaml_file


def _as_strategy(value: Any) -> Any:
    """Return a class as a mapping: jsonargparse would take its name as a text."""
    is_class = isinstance(value, str) and ("." in value or value[:1].isupper())
    return {"class_path": value} if is_class else value


COMPLETE: Mapping[str, Callable[[Any], Any]] = {"logger": with_folder, "strategy": _as_strategy}
"""For each setting of the Trainer whose value is completed what completes it."""


def complete_classes(words: Sequence[str], settings: Sequence[Setting]) -> tuple[list[str], list[Setting]]:
    """Complete the loggers and the strategy in words and settings.

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
                completed = {name: complete(trainer[name]) for name, complete in COMPLETE.items() if name in trainer}
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
            if inner.key == "trainer.logger" and writes_to_run(inner.value):
                added.append(Setting("trainer.logger.save_dir", RUN_FOLDER, inner.file))
    return result, added


def _class_option(option: str) -> str | None:
    """Return `logger` or `strategy` for the option of one; None for any other word."""
    name = option.removeprefix("--trainer.").removesuffix("+")
    return name if option.startswith("--trainer.") and name in COMPLETE else None


def _typed(name: str, value: str) -> str:
    try:
        parsed = yaml_file.parse(value)
    except ValueError:
        return value  # jsonargparse reports it
    return value if (completed := COMPLETE[name](parsed)) == parsed else json.dumps(completed)
