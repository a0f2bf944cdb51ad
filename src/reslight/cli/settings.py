"""The check of all keys, of configurations and of the command line, before jsonargparse parses the values.

jsonargparse names only the end of an unknown key, or the class that it tried last. Here each key is looked up in the class that was
chosen for it, so that the message has the whole key, the class, and the nearest setting.
"""

import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch import Callback, callbacks, loggers, profilers, strategies
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import Strategy

from reslight import data
from reslight.cli.command_line import NULLS, Setting, expanded
from reslight.cli.net import check_net_setting
from reslight.data import ImageDataModule
from reslight.messages import UsageError, nearest, shortened, suggestion
from reslight.runs import config_files, yaml_file
from reslight.runs.folder import Run
from reslight.training.optimizer_class import full_name

CHOICES: Mapping[str, tuple[type, ModuleType, str]] = {
    "data": (ImageDataModule, data, "dataset"),
    "trainer.callbacks": (Callback, callbacks, "callback"),
    "trainer.logger": (Logger, loggers, "logger"),
    "trainer.profiler": (Profiler, profilers, "profiler"),
    "trainer.strategy": (Strategy, strategies, "strategy"),
}
"""Settings whose value is a class: its base class, the module that has the classes with a bare name, and the word for it in messages."""
FROM_DATA = ("model.num_classes", "model.in_channels", "model.multi_label")
OTHER_WORDS: Mapping[str, str] = {
    "num_workers": "data.threads is the number of decoding threads of Folder and ImageNet; other datasets are in memory and need none.",
    "workers": "data.threads is the number of decoding threads of Folder and ImageNet; other datasets are in memory and need none.",
    "gpus": "Use --trainer.accelerator gpu --trainer.devices N.",
    "epochs": "Use --trainer.max_epochs N.",
    "max_epoch": "Use --trainer.max_epochs N.",
    "steps": "Use --trainer.max_steps N.",
    **dict.fromkeys(("optimizer", "optim"), "Use --model.optim.name NAME: sgd, adamw, lamb, muon, torch.optim.NAME or timm:NAME."),
    **dict.fromkeys(("lr_scheduler", "scheduler", "schedule"), "Use --model.schedule.name NAME: cosine, multistep, constant or plateau."),
    "learning_rate": "Use --model.optim.lr X.",
    "resume_from_checkpoint": "Use --ckpt_path last.",
    "resume": "Use --ckpt_path last.",
    "pretrained": "Use --model.init_from NAME.",
}
"""Advice about the names of settings in other programs, by the last part of the key."""


def check_settings(settings: Sequence[Setting], known: Sequence[str], *, complete: bool = True) -> None:
    """Check that each key is a setting of the class that was chosen for it, and that each chosen class has what it needs.

    Args:
        settings: In the order in which they apply.
        known: The keys that do not depend on a chosen class, with dots.
        complete: Check, too, that nothing is missing; not needed where the configuration is only printed.

    Raises:
        UsageError: an unknown key, a class that cannot be found, a required setting that is missing, or null for a setting of the data
            that needs a value, which jsonargparse does not check.
    """
    chosen: dict[str, type | None] = {}
    given: dict[str, set[str]] = {}
    flat = list(_with_inner(settings, known))
    for setting in flat:
        key = setting.key
        if key in FROM_DATA and setting.value is not None:
            raise UsageError(f"{key} is {setting.value}{setting.where}: it is taken from the data. Remove it.")
        choice = next((one for one in CHOICES if key.startswith(f"{one}.")), None)
        if key in CHOICES:
            chosen[key], given[key] = find_class(setting), set()
        elif choice:
            name = key.removeprefix(f"{choice}.")
            given.setdefault(choice, set()).add(name.split(".")[0])
            _check_chosen(setting, choice, name, chosen.get(choice))
        elif key == "model.net" or key.startswith("model.net."):
            check_net_setting(key, setting.value, setting.where)
        elif key not in known and not any(key.startswith(f"{one}.") for one in known):  # a mapping is a value of some, such as max_time
            if group := [one for one in known if one.startswith(f"{key}.")]:
                _check_group(setting, group)
            else:
                raise UsageError(f"{key} is no setting{setting.where}. {_hint(setting, known, chosen.get('data'))}")
        if setting.value is None and setting.file is None:
            raise UsageError(f"--{key} has no value. Write --{key} VALUE.")
    owner = chosen.get("data")
    for setting in {one.key: one for one in flat if one.key.startswith("data.")}.values():  # the last value of each
        if owner and _is_null(setting) and not _takes_null(owner, setting.key.removeprefix("data.")):
            raise UsageError(f"{setting.key} is null{setting.where}: it needs a value.")
    if not complete:
        return
    if chosen.get("data") is None:
        example = _run_of_checkpoint(settings) or "digits"
        raise UsageError(
            f"data is missing: a run needs a dataset. Add --data NAME, or a configuration with one, such as --config {example}."
        )
    for choice, found in chosen.items():
        if found and (missing := [name for name in _required(found) if name not in given[choice]]):
            options = " ".join(f"--{choice}.{name} VALUE" for name in missing)
            raise UsageError(f"{choice} is {found.__name__}: it needs {' and '.join(missing)}. Add {options}.")


def _with_inner(settings: Sequence[Setting], known: Sequence[str]) -> Iterator[Setting]:
    """Yield settings with typed mappings taken apart; braces in the text of a single setting, such as a file name, stay."""
    for setting in settings:
        is_group = setting.key in (*CHOICES, "model.net") or any(one.startswith(f"{setting.key}.") for one in known)
        yield from expanded(setting) if is_group else [setting]


def check_classes_to_help_with(words: Sequence[str]) -> None:
    """Check the class in `--data.help NAME` and the like.

    Raises:
        UsageError: a class that cannot be found.
    """
    for word, following in zip(words, [*words[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        key, name = option.removeprefix("--").removesuffix(".help"), value if equals else following
        if option.endswith(".help") and key in CHOICES and name:
            find_class(Setting(key, name))


def _run_of_checkpoint(settings: Sequence[Setting]) -> Path | None:
    """Return the folder of the run that ckpt_path names; None if it names none."""
    path = next((Path(str(one.value)) for one in reversed(settings) if one.key == "ckpt_path"), Path())
    run = Run(path) if path.is_dir() else Run.of_checkpoint(path)
    return run.folder if run and run.config.is_file() else None


def find_class(setting: Setting) -> type | None:
    """Find the class that a setting names.

    Returns:
        The class; None where the value is no name of a class, such as `true` for loggers or `ddp` for a strategy.

    Raises:
        UsageError: a name of no class of this kind, or a module that cannot be imported.
    """
    base, module, kind = CHOICES[setting.key]
    name, start = setting.value, f"{setting.key} is {setting.value}{setting.where}: "
    if not isinstance(name, str) or name.startswith(("[", "{")) or (setting.key != "data" and not ("." in name or name[:1].isupper())):
        return None
    if name in ("None", "True", "False"):
        return None
    if "." in name:
        found = _imported(name, start)
        if not (inspect.isclass(found) and issubclass(found, base)):
            raise UsageError(f"{start}it must be a {kind}, a class derived from {base.__module__}.{base.__name__}. Give the path of one.")
        return found
    known = [one for one in dir(module) if inspect.isclass(item := getattr(module, one)) and issubclass(item, base) and item is not base]
    if name not in known:
        path = f"give the import path of your own, such as {'my_module.MyData' if kind == 'dataset' else 'my_module.MyClass'}"
        fix = suggestion(name, known, f"Choose one of {shortened(known, 6)}, or {path}.")
        raise UsageError(f"{start}there is no {kind} of that name. {fix}")
    found = getattr(module, name)
    return found if inspect.isclass(found) else None


def _imported(path: str, start: str) -> Any:
    """Import what a path with dots names."""
    place, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(place)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name and (f"{place}.").startswith(f"{error.name}."):
            raise UsageError(f"{start}there is no module {error.name}. Check the path, or add its folder to PYTHONPATH.") from error
        raise UsageError(f"{start}the import of {place} failed ({type(error).__name__}: {error}). Correct it there.") from error
    except Exception as error:  # the module is the user's, and may raise anything
        raise UsageError(f"{start}the import of {place} failed ({type(error).__name__}: {error}). Correct it there.") from error
    if not hasattr(module, name):
        classes = [one for one in dir(module) if inspect.isclass(getattr(module, one))]
        fix = suggestion(name, classes, f"It has {shortened(classes, 6) or 'no class'}.")
        raise UsageError(f"{start}the module {place} has no {name}. {fix}")
    return getattr(module, name)


def _check_chosen(setting: Setting, choice: str, name: str, owner: type | None) -> None:
    """Check a setting of a chosen class."""
    if name in ("help", "dict_kwargs") or name.startswith("dict_kwargs."):
        return
    _, _, kind = CHOICES[choice]
    if owner is None:
        if choice == "data":
            raise UsageError(f"{setting.key} is set, and data is missing: it names the dataset. Add --data NAME.")
        raise UsageError(f"{setting.key} is set{setting.where}, and {choice} names no {kind}. Add --{choice} NAME before it.")
    known = keys_of(owner)
    if name in known or any(name.startswith(f"{one}.") for one in known):  # a mapping is the value of some
        return
    if group := [f"{choice}.{one}" for one in known if one.startswith(f"{name}.")]:
        for inner in expanded(setting):
            if inner.key == setting.key:
                _check_group(inner, group)
            else:
                _check_chosen(inner, choice, inner.key.removeprefix(f"{choice}."), owner)
        return
    hint = _hint(setting, [f"{choice}.{one}" for one in known], owner if choice == "data" else None)
    raise UsageError(f"{setting.key} is no setting of {owner.__name__}{setting.where}. {hint}")


def _check_group(setting: Setting, group: Sequence[str]) -> None:
    value = "empty" if setting.value is None else setting.value
    start = f"{setting.key} is {value}{setting.where}: "
    if setting.key == "model" and isinstance(value, str) and ("." in value or value[:1].isupper()):
        raise UsageError(f"{start}commands train an ImageClassifier. Train a class of your own in Python, see docs/guides/extending.md.")
    if isinstance(value, str) and (key := value.partition(":")[0]) != value and f"{setting.key}.{key}" in group:
        raise UsageError(f"{start}YAML needs a space behind a colon. Write {yaml_file.spaced(value)}.")
    if setting.key == "model.optim" and isinstance(value, str):
        value = full_name(value)
    example = group[0] if setting.value is None else f"--{group[0]} {'VALUE' if value in NULLS else value}"
    raise UsageError(f"{start}it is a group of settings. Give one of them, such as {example}.")


def _hint(setting: Setting, known: Sequence[str], dataset: type | None) -> str:
    """What to do about an unknown key, as a sentence."""
    key = setting.key
    top, _, rest = key.partition(".")
    leaf = key.rpartition(".")[2]
    if dataset and top == "data" and (others := [one.__name__ for one in datasets() if rest in keys_of(one)]):
        return f"It is a setting of {' and '.join(others)}: remove it, or choose such a dataset with --data."
    if leaf in OTHER_WORDS:
        return OTHER_WORDS[leaf]
    if key in config_files.names():
        return f"Did you mean --config {key}?"
    leaves = {one.rpartition(".")[2]: one for one in reversed(known)}
    tops = {one.partition(".")[0] for one in known}
    if rest and top not in tops and (near := nearest(top, tops, count=1)):
        return f"Did you mean {near[0]}.{rest}?"
    if rest and (near := nearest(key, known, count=1)):
        return f"Did you mean {near[0]}?"
    if near := nearest(leaf, leaves, count=1):
        return f"Did you mean {leaves[near[0]]}?"
    return f"`reslight fit --data.help {dataset.__name__}` lists its settings." if dataset else "`reslight fit --help` lists all settings."


def datasets() -> list[type]:
    """Return the datasets that `data` can be by a bare name."""
    found = [getattr(data, name) for name in sorted(data.__all__)]
    return [one for one in found if inspect.isclass(one) and issubclass(one, ImageDataModule) and not inspect.isabstract(one)]


@cache
def keys_of(owner: type) -> tuple[str, ...]:
    """Return the settings of a class as jsonargparse sees them, those of settings that are dataclasses with dots."""
    return tuple(key.removeprefix("x.") for key in _parser_of(owner).get_defaults().keys())  # noqa: SIM118  # iterating gives outer keys


@cache
def _parser_of(owner: type) -> ArgumentParser:
    parser = ArgumentParser()
    parser.add_class_arguments(owner, "x", fail_untyped=False)
    return parser


def _is_null(setting: Setting) -> bool:
    return setting.value is None if setting.file else setting.value in NULLS


@cache
def _takes_null(owner: type, name: str) -> bool:
    """Return whether a setting of a class, or a field of one, may be null."""
    if name not in keys_of(owner):
        return True  # a value in a mapping, or of another class
    content = Namespace()  # type: ignore[no-untyped-call]  # jsonargparse declares no types here
    content[f"x.{name}"] = None
    try:
        _parser_of(owner).validate(content, skip_unset=False, skip_required=True)
    except TypeError:
        return False
    return True


def _required(owner: type) -> list[str]:
    parameters = inspect.signature(owner).parameters.values()
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [one.name for one in parameters if one.default is inspect.Parameter.empty and one.kind not in kinds]
