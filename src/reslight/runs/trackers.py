"""Loggers of the user in a run: each gets all settings once, and continues its own tracker run in every command."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning.pytorch.loggers import Logger

from reslight.atomic import write_files
from reslight.messages import UsageError
from reslight.runs.folder import Run
from reslight.runs.json_file import read_json_file

IDS: Mapping[str, tuple[str, str]] = {
    "WandbLogger": ("id", "version"),
    "MLFlowLogger": ("run_id", "run_id"),
    "CometLogger": ("experiment_key", "version"),
}
"""For each class of logger the argument that takes the id of a tracker run, and the attribute that has it."""
_SECRET = re.compile(r"token|secret|password|passwd|credential|api_?key|://[^/@\s]+:[^/@\s]+@", re.IGNORECASE)
_LONGEST = 64
"""Numbers of the longest list that is a setting; a mean image is data."""


def flat_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by keys with dots, with their types, such as `model.optim.lr: 0.1`.

    A chosen class is a value of its own key, and its settings follow without `init_args`. Settings whose name or value can be a secret
    are left out.
    """
    return {key: value for key, value in _flat(settings, prefix) if not (_SECRET.search(key) or _SECRET.search(str(value)))}


def _flat(settings: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            if "class_path" in value:
                yield key, value["class_path"]
                value = value.get("init_args") or {}
            yield from _flat(value, f"{key}.")
        elif isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
            for one in value:  # callbacks; two of one class share their keys
                yield from _flat(one.get("init_args") or {}, f"{key}.{str(one.get('class_path')).rpartition('.')[2]}.")
        elif not (isinstance(value, list) and len(value) > _LONGEST):
            yield key, value


def log_settings(loggers: Sequence[Logger], settings: Mapping[str, Any], run: Run) -> None:
    """Log the settings of a run to each logger, but not to a tracker run that has them from before a resume.

    Args:
        loggers: The loggers, on the first process.
        settings: The nested settings; those of loggers are left out, since they say where values go and may hold secrets.
        run: The run, which remembers the tracker runs.
    """
    known = [identity for found in read_ids(run).values() for identity in found]
    trainer = {name: value for name, value in (settings.get("trainer") or {}).items() if name != "logger"}
    flat = flat_settings({**settings, "trainer": trainer})
    for logger in loggers:
        if _id_of(logger) not in known:
            logger.log_hyperparams(flat)


def remember_ids(loggers: Sequence[Logger], run: Run) -> None:
    """Save the ids of the tracker runs, so that a resume, a validation and a test continue them."""
    ids: dict[str, list[str]] = {}
    for logger in loggers:
        if identity := _id_of(logger):
            ids.setdefault(type(logger).__name__, []).append(identity)
    if ids and ids != (known := read_ids(run)):
        write_files({run.trackers: f"{json.dumps({**known, **ids}, indent=2)}\n".encode()})


def read_ids(run: Run) -> dict[str, list[str]]:
    """Return the ids of the tracker runs of a run by class of logger, in the order of the configuration.

    Raises:
        UsageError: a damaged file.
    """
    if not run.trackers.exists():  # a run without trackers
        return {}
    fix = "Remove it: the loggers then begin tracker runs of their own."
    ids = read_json_file(run.trackers, fix)
    if not all(isinstance(found, list) and all(isinstance(one, str) for one in found) for found in ids.values()):
        raise UsageError(f"{run.trackers} is damaged: it has something else than lists of ids. {fix}")
    return ids


def continue_trackers(loggers: Sequence[Any], run: Run) -> None:
    """Give the loggers of a configuration the ids of the run's tracker runs, unless the user gave one.

    Args:
        loggers: Mappings with `class_path` and `init_args`, which are changed.
        run: The run.
    """
    ids = {name: list(found) for name, found in read_ids(run).items()}
    for logger in loggers:
        name = logger["class_path"].rpartition(".")[2]
        argument = IDS.get(name, ("", ""))[0]
        if ids.get(name) and not logger["init_args"].get(argument):
            logger["init_args"][argument] = ids[name].pop(0)


def _id_of(logger: Logger) -> str | None:
    """Return the id of a logger's tracker run, which starts the tracker run if it has not begun; None for a logger of files."""
    attribute = IDS.get(type(logger).__name__, ("", ""))[1]
    if not attribute:
        return None
    _ = logger.experiment  # type: ignore[attr-defined]  # of each class in the table
    identity = getattr(logger, attribute)
    return str(identity) if identity else None
