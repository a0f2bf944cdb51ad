"""One line for a mistake on the command line or in a configuration: the value, what is allowed, the fix."""

import dataclasses
import difflib
import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import set_parsing_settings
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser

from reslight import data
from reslight.data import Augment, Crop, ImageDataModule, Mix
from reslight.preprocess import Preprocess
from reslight.runs import config_files as recipes
from reslight.training import Checkpoints, ImageClassifier, OptimConfig, ScheduleConfig

set_parsing_settings(docstring_parse_attribute_docstrings=True)  # the text under a setting's field is its help


class ParsingError(Exception):
    """A command line or a configuration that does not parse, with jsonargparse's message."""


class Parser(LightningArgumentParser):
    """jsonargparse's parser, which raises ParsingError where it would print pages of usage and leave.

    Nor does it guess from the beginning of an option: a `--trainer.max_epoch` is a mistake, in a file as on the command line.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Hand the message over."""
        raise ParsingError(message) from ex


def explain(message: str, configs: Sequence[Path] = ()) -> str:
    """Reduce a message of jsonargparse to the line that matters.

    Args:
        message: What jsonargparse says.
        configs: The configuration files in use, to say which of them holds a key.
    """
    if found := re.search(r"(?:class_path '[\w.]*?(\w+)':\s+)?(?:Option|Key) '([\w.]+)' is not accepted", message):
        return _unknown_key(f"data.{found[2]}", configs, found[1])
    if found := re.search(r"(?:does not accept option|[Uu]nrecognized arguments:) '?(?:--)?([\w.]+)", message):
        return _unknown_key(found[1], configs)
    if found := re.search(r"argument [\w.]+ --> ([\w.]+):", message):
        return f"{found[1]} comes from the data and cannot be set{_where(found[1], configs)}; leave it out"
    if found := re.search(r"Expected a dot import path string: (\S+)", message):
        key = _keys(message)
        if key == "data":
            return f"data is {found[1]!r}, which is no data set; allowed are {', '.join(datasets())}"
        return f"{key} is {found[1]!r}, which is no class; give its import path, such as lightning.pytorch.callbacks.LearningRateMonitor"
    if found := re.search(r"Unable to load config '([^']+)'", message):
        return f"{_keys(message)} is {found[1]!r}; it holds settings of its own, such as --{_keys(message)}.{_example(_keys(message))}"
    if found := re.search(r"arguments are required: (.+)", message):
        keys = [key.strip().partition(".")[2] or key.strip() for key in found[1].split(",")]
        if not set(keys) <= set(known_keys()):  # of a class that was named, such as a callback
            if _keys(message) == "data":
                return f"--data.{' --data.'.join(keys)} is missing; give it, such as --data.root PICTURES"
            return f"{_keys(message) or 'a class'} lacks its {', '.join(keys)}; give it as init_args beside its class_path"
        return f"--{' --'.join(keys)} is missing; give it, or a configuration that has it, such as --config digits"
    return _bad_value(message, configs) or "; ".join(
        line.strip().removeprefix("- ").rstrip(":") for line in message.splitlines() if line.strip()
    )


def _bad_value(message: str, configs: Sequence[Path]) -> str | None:
    """A value of the wrong type, or one that a class itself refused; jsonargparse lists a line for each type of a union."""
    refused = re.search(r"Errors:\s+- ((?!Expected|Parser|Problem)[^\n]+)", message)
    if refused:
        return refused[1]
    expected = re.findall(r"Expected an? ([^\n]+?)(?:\. Got value|\n|$)", message)
    value = re.search(r"Got value: ([^\n]*)|Given value: ([^\n]*)", message)
    key = _keys(message)
    if not (expected and value and key):
        return None
    kinds = [kind for kind in expected if "NoneType" not in kind and not kind.startswith("path but")]
    given = value[1] or value[2]
    return f"{key} is {given}{_where(key, configs, given)}; it must be {_readable(kinds)}"


def _keys(message: str) -> str:
    """The setting that a message is about, with dots."""
    return ".".join(dict.fromkeys(re.findall(r'[Kk]ey "([\w.]+)"', message)))


def _example(key: str) -> str:
    """A setting below a key."""
    return {"model": "net resnet20", "model.optim": "name sgd", "model.schedule": "name cosine"}.get(key, "NAME VALUE")


def datasets() -> list[str]:
    """Names of the data sets that `data` can be."""
    public = (getattr(data, name) for name in data.__all__)
    return sorted(item.__name__ for item in public if inspect.isclass(item) and _is_dataset(item))


def known_keys(dataset: str | None = None) -> list[str]:
    """Every key of a configuration, with dots.

    Args:
        dataset: Whose settings to list under `data`; all data sets' if None.
    """
    owners: list[tuple[str, Any]] = [
        ("trainer", Trainer),
        ("model", ImageClassifier),
        ("model.optim", OptimConfig),
        ("model.schedule", ScheduleConfig),
        ("checkpoint", Checkpoints),
        ("data.augment", Augment),
        ("data.crop", Crop),
        ("data.mix", Mix),
        ("data.preprocess", Preprocess),
    ]
    owners += [("data", getattr(data, name)) for name in ([dataset] if dataset in datasets() else datasets())]
    keys = {f"{prefix}.{name}" for prefix, owner in owners for name in _settings(owner)}
    return sorted(keys | {"trainer", "model", "data", "checkpoint", "seed_everything", "ckpt_path", "config"})


def _settings(owner: Any) -> list[str]:
    if dataclasses.is_dataclass(owner):
        return [field.name for field in dataclasses.fields(owner)]
    return [name for name in inspect.signature(owner).parameters if name not in ("self", "kwargs")]


def _is_dataset(item: type) -> bool:
    return issubclass(item, ImageDataModule) and not inspect.isabstract(item)


def _unknown_key(key: str, configs: Sequence[Path], dataset: str | None = None) -> str:
    """The nearest known key, and where the unknown one stands."""
    if key in recipes.names():
        return f"there is no setting {key}; did you mean --config {key}?"
    known = known_keys(dataset)
    if "." not in key and (paths := [path for path in _all_keys(configs) if path.endswith(f".{key}")]):
        key = paths[0]  # jsonargparse names only the end of a key inside a class
    leaf = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6) or leaf[:1]
    top = key.split(".")[0]
    if not near and (tops := difflib.get_close_matches(top, [name for name in known if "." not in name], n=1, cutoff=0.6)):
        near = [key.replace(top, tops[0], 1)]
    hint = f"did you mean {near[0]}?" if near else "`reslight fit --help` lists them"
    return f"there is no setting {key}{_where(key, configs)}; {hint}"


def _where(key: str, configs: Sequence[Path], value: str | None = None) -> str:
    """The configuration file that holds a key, with that value if one is given; nothing for what stands on the command line."""
    for path in configs:
        found = dict(_keys_in(yaml.safe_load(path.read_text(encoding="utf-8"))))
        if key in found and value in (None, str(found[key])):
            return f" (in {path})"
    return ""


def _all_keys(configs: Sequence[Path]) -> list[str]:
    return [key for path in configs for key, _ in _keys_in(yaml.safe_load(path.read_text(encoding="utf-8")))]


def _keys_in(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of a configuration with dots, as it is typed on the command line, without init_args; and its value."""
    if isinstance(value, dict):
        for name, inner in value.items():
            path = prefix if name == "init_args" else f"{prefix}.{name}" if prefix else str(name)
            yield path, inner
            yield from _keys_in(inner, path)


def _readable(kinds: Sequence[str]) -> str:
    """Types as a person says them."""
    words = {
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false",
        "str": "text",
        "dict": "a mapping",
        "tuple": "a list, such as [1, 2]",
    }
    said = []
    for kind in kinds:
        if choices := re.search(r"Literal\[(.+)\]", kind):
            said += [choice.strip(" '") for choice in choices[1].split(",")]
        else:
            said.append(re.sub(r"<class '(?:\w+\.)*(\w+)'>", lambda found: words.get(found[1], found[1]), kind))
    *first, last = dict.fromkeys(said)
    return f"{', '.join(first)} or {last}" if first else last
