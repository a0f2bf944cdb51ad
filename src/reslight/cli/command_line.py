"""A command line of `fit`, `validate`, `test` or `predict` and its configuration files, as a list of settings."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reslight.cli.net import net_with
from reslight.messages import UsageError, suggestion, visible
from reslight.renamed import new_key, new_value, with_new_names
from reslight.runs import config_files, yaml_file

log = logging.getLogger(__name__)

CLASSES = ("data", "trainer.callbacks", "trainer.logger", "trainer.profiler", "trainer.strategy")
"""Settings whose value is the name of a class, or a list of names."""
_PRINT_FLAGS = ("comments", "skip_null", "skip_default")
NULLS = ("null", "Null", "NULL", "~")
"""How YAML writes that there is no value."""
_OBSOLETE = ("weights_only", "verbose", "return_predictions")
"""Keys that configurations of earlier runs have, always with the default value."""


@dataclass(frozen=True)
class Setting:
    """A setting as it was written.

    Args:
        key: Its key with dots, without `init_args` and `class_path`.
        value: Its value; a mapping for a group.
        file: The configuration file that has it; None for the command line.
    """

    key: str
    value: Any
    file: Path | None = None

    @property
    def where(self) -> str:
        """The file, as part of a message."""
        return f" (in {self.file})" if self.file else ""


def read_command(arguments: Sequence[str]) -> tuple[list[str], list[Setting], list[Path]]:
    """Read a command line and its configuration files, with old names of settings replaced by today's.

    Args:
        arguments: What was typed behind the command's name.

    Returns:
        The words for jsonargparse, first the content of each file; all settings in the order in which they apply; and the files.

    Raises:
        UsageError: a file that is no configuration, or a word that belongs to no option or is not UTF-8.
        FileNotFoundError: a configuration that is missing.
    """
    for word in arguments:
        if not word.isascii() and any("\ud800" <= character <= "\udfff" for character in word):
            raise UsageError(f"{visible(word)} is not UTF-8 text, in which a run's configuration is saved. Rename the file or folder.")
    files, waiting = config_files.find_all([*arguments])
    words: list[str] = []
    settings: list[Setting] = []
    net: Any = None
    for file in files:
        content = _read_file(file)
        words += ["--config", json.dumps(content, default=str)]
        settings += settings_in(content, file)
        net = next((one.value for one in reversed(settings) if one.key == "model.net"), None)
    typed_net: list[tuple[str, Any]] = []
    while waiting:
        word = waiting.pop(0)
        if word == "-h" or word.startswith(("--help", "--print_config")):
            words.append(_checked_flags(word))
        elif not word.startswith("--"):
            raise UsageError(f"{word} belongs to no option. {_hint(word)}")
        else:
            value = waiting.pop(0) if "=" not in word and waiting and not waiting[0].startswith("--") else None
            new_words, setting = _typed(word, value)
            words += _nested_null(setting) or new_words
            settings += [] if setting.key.endswith(".help") else [setting]
            if setting.key == "model.net" or setting.key.startswith("model.net."):
                typed_net.append((setting.key, _parsed(setting)))
    if any(key != "model.net" for key, _ in typed_net):  # jsonargparse would drop a name where a field of it is changed
        words.append(f"--model.net={json.dumps(net_with(net, typed_net))}")
    return words, settings, files


def _checked_flags(word: str) -> str:
    """Return `word` if it is no --print_config with an unknown flag.

    Raises:
        UsageError: an unknown flag.
    """
    option, _, flags = word.partition("=")
    for flag in flags.split(",") if option == "--print_config" and flags else ():
        if flag not in _PRINT_FLAGS:
            fix = suggestion(flag, _PRINT_FLAGS, "Leave it out.")
            raise UsageError(f"--print_config is {flag}: it must be {', '.join(_PRINT_FLAGS[:-1])} or {_PRINT_FLAGS[-1]}. {fix}")
    return word


def expanded(setting: Setting) -> list[Setting]:
    """List the settings in a typed mapping or list as if they were in a file; any other setting alone.

    Raises:
        UsageError: text that is not YAML, or has a colon without a space behind it.
    """
    if not (isinstance(setting.value, str) and setting.value.startswith(("{", "["))):
        return [setting]
    check_colons(setting)
    return list(settings_in({setting.key: _parsed(setting)}, setting.file))


def check_colons(setting: Setting) -> None:
    """Check that a typed mapping has a space behind each colon: YAML takes `{lr:0.1}` for a key `lr:0.1`, and `{1:2}` for a key 62.

    Raises:
        UsageError: text that is not YAML, or has a colon without a space behind it.
    """
    value = _parsed(setting)
    has_number = isinstance(value, Mapping) and any(inner is None and not isinstance(key, str) for key, inner in value.items())
    if has_number or yaml_file.glued_key(value):
        text = yaml_file.spaced(str(setting.value))
        raise UsageError(f"{setting.key} is {setting.value}: YAML needs a space behind each colon. Write '{text}'.")


def _parsed(setting: Setting) -> Any:
    """Return a typed value as YAML has it.

    Raises:
        UsageError: text that is not YAML.
    """
    try:
        return yaml_file.parse(str(setting.value)) if setting.value is not None else None
    except ValueError as error:
        raise UsageError(f"{setting.key} is {setting.value}: it is not YAML. Put spaces behind colons, and close all brackets.") from error


def settings_in(content: Mapping[str, Any], file: Path | None, prefix: str = "") -> Iterator[Setting]:
    """List the settings of a configuration file, a chosen class before its own settings."""
    for name, value in content.items():
        key = f"{prefix}{name}"
        for one in value if isinstance(value, list) and key in CLASSES else [value]:
            if key == "model.net" or not isinstance(one, Mapping):
                yield Setting(key, one, file)
            elif "class_path" in one or "init_args" in one:
                if "class_path" in one:
                    yield Setting(key, one["class_path"], file)
                yield from settings_in(one.get("init_args") or {}, file, f"{key}.")
            else:
                yield from settings_in(one, file, f"{key}.")


def _read_file(file: Path) -> dict[str, Any]:
    """Read a configuration under today's names; each old one is reported in a line."""
    content = yaml_file.read(file)
    for setting in settings_in(content, file):
        _report_rename(setting)
    result = {key: value for key, value in content.items() if key not in _OBSOLETE or value}
    for top in ("model", "data"):
        if isinstance(inner := result.get(top), Mapping):
            own = inner.get("init_args")
            result[top] = {**inner, "init_args": with_new_names(own, top)} if isinstance(own, Mapping) else with_new_names(inner, top)
    return result


def _typed(word: str, value: str | None) -> tuple[list[str], Setting]:
    """Return an option and its value under today's names, as words and as a setting; `value` is None for `--key=value`."""
    option, equals, joined = word.partition("=")
    value = joined if equals else value
    key, plus = option.removeprefix("--").removesuffix("+"), "+" if option.endswith("+") else ""
    setting = Setting(key.replace(".init_args.", ".").removesuffix(".class_path"), value)
    _report_rename(setting)
    value = new_value(setting.key, value)
    option = f"--{new_key(key)}{plus}"
    words = [option] if value is None else [f"{option}={value}"] if equals else [option, value]
    return words, Setting(new_key(setting.key), value)


def _nested_null(setting: Setting) -> list[str]:
    """Return a null for a field of a group of the data, such as `data.preprocess.resize`, as a configuration; nothing for other settings.

    jsonargparse would take a typed one for the text None.
    """
    top, _, name = setting.key.partition(".")
    *groups, field = name.split(".")
    if top != "data" or not groups or setting.value not in NULLS:
        return []
    fields: dict[str, Any] = {field: None}
    for group in reversed(groups):
        fields = {group: fields}
    return ["--config", json.dumps({"data": {"init_args": fields}})]


def _report_rename(setting: Setting) -> None:
    key, value = setting.key, setting.value
    if new_key(key) != key:
        log.warning("%s is now called %s%s", key, new_key(key), setting.where)
    elif (new := new_value(key, value)) != value:
        log.warning("%s %s is now called %s%s", key, value, new, setting.where)


def _hint(word: str) -> str:
    """Return what to do about a word that belongs to no option."""
    name = word.partition("=")[0]
    if name in config_files.names() or name.endswith((".yaml", ".yml")):
        return f"Did you mean --config {name}?"
    if word.startswith("-"):
        return f"Options begin with two hyphens: did you mean -{word}?"
    return f"Did you mean --{word}?" if "=" in word or "." in word else "Write settings as --name VALUE."
