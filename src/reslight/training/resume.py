"""Going on from a checkpoint: what is in it, and where it differs from the configuration, which always wins."""

import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from lightning.pytorch import Trainer

from reslight.messages import UsageError

FREE_IN_NET = {"drop_path", "checkpoint", "zero_init"}
"""Fields of a network that change how it is trained, not which weights it has."""
FIXED_ON_RESUME = {
    "optim.name": "another optimizer",
    "optim.decay_norms": "other groups of parameters",
    "optim.body_lr": "other groups of parameters",
    "freeze": "other groups of parameters",
    "ema": "another average",
}
"""Settings that the optimizer's or the average's state in a checkpoint cannot follow."""
ADDED = {
    "optim.body_lr": 1.0,
    "optim.sgd_lr": 0.1,
    "optim.sgd_weight_decay": 5e-4,
    "loss": "cross_entropy",
    "freeze": None,
    "init_from": None,
}
"""Settings that came after the first checkpoints, and what they were before."""
FORMAT = 1
"""Of what `ImageClassifier` keeps in a checkpoint under `reslight`; counted up when its meaning changes."""
FED = ("data.preprocess.", "data.normalize", "data.labels")
"""What the answers of a trained network depend on."""
_LONG = 10


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The contents of a checkpoint; tensors stay on the disk until they are used. Nothing in the file is executed.

    Raises:
        ValueError: The file is no checkpoint of an ImageClassifier, or is damaged.
    """
    try:
        with ZipFile(path) as archive:
            damaged = archive.testzip()  # torch looks at no checksum
    except BadZipFile:
        raise UsageError(f"{path} is no checkpoint, or one that was cut short; choose another") from None
    if damaged:
        raise UsageError(f"{path} is damaged: the checksum of {damaged} is wrong; choose another")
    try:
        contents = torch.load(path, weights_only=True, mmap=True, map_location="cpu")
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(f"{path} cannot be read as a checkpoint ({reason}); choose another") from error
    if not isinstance(contents, dict) or "hyper_parameters" not in contents or "net" not in contents["hyper_parameters"]:
        raise UsageError(f"{path} is not a checkpoint of reslight; choose one under runs/ with --ckpt_path")
    if (written := contents.get("reslight", {}).get("format", FORMAT)) > FORMAT:
        raise UsageError(f"{path} has format {written}, and this reslight reads up to {FORMAT}; install a newer reslight")
    return contents


def compare(path: Path, contents: Mapping[str, Any], settings: Mapping[str, Any], *, resume: bool) -> list[str]:
    """One line for each setting that differs between a checkpoint and the configuration.

    Args:
        path: The checkpoint, for the messages.
        contents: What is in it.
        settings: The hyper-parameters of the classifier that will load it.
        resume: Training goes on; else the network is only measured, and only the network matters.

    Raises:
        ValueError: The checkpoint holds another network, or cannot be resumed under these settings.
    """
    there, here = ADDED | dict(_flat(contents["hyper_parameters"])), ADDED | dict(_flat(settings))
    # where a run began, it does not begin again
    differing = [key for key in sorted(here.keys() | there.keys()) if here.get(key) != there.get(key) and key != "init_from"]
    net = [key for key in differing if key.startswith("net.") and key.removeprefix("net.") not in FREE_IN_NET]
    if net:
        what = "; ".join(f"{key.removeprefix('net.')} {there.get(key)} there, {here.get(key)} here" for key in net)
        raise UsageError(f"{path} holds another network: {what}; set model.net as it was, or choose another --ckpt_path")
    if not resume:
        return []
    for key in differing:
        if key in FIXED_ON_RESUME:
            raise UsageError(
                f"{path} was trained with {key} {there.get(key)} and the configuration says {here.get(key)}: {FIXED_ON_RESUME[key]} "
                f"cannot go on from it; set model.{key} as it was, or start a new run"
            )
    return [f"model.{key} was {there.get(key)} in {path}, is {here.get(key)} from now on" for key in differing]


def data_changes(state: Mapping[str, Any], data: Mapping[str, Any], precision: str, *, resume: bool) -> list[str]:
    """One line for each way in which the data or the precision differ from those of a checkpoint; what either lacks is not compared.

    Args:
        state: What the classifier kept in the checkpoint.
        data: What the data module's `describe()` says now.
        precision: The trainer's.
        resume: Training goes on; else the network is only measured, and only what it is fed with matters.
    """
    there = dict(_flat({"data": state.get("data", {}), "trainer": {"precision": state.get("precision")}}))
    here = dict(_flat({"data": data, "trainer": {"precision": precision}}))
    return [
        f"{key} was {_short(there[key])} when the checkpoint was written, is {_short(value)} now"
        for key, value in here.items()
        if there.get(key, value) != value and there[key] is not None and (resume or key.startswith(FED))
    ]


def environment(trainer: Trainer) -> dict[str, str | int]:
    """What a run goes on to the bit under: which arithmetic is done, and in which order it is summed."""
    device = trainer.strategy.root_device
    return {
        **{name: version(name) for name in ("reslight", "torch", "lightning")},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})",
        "devices": trainer.world_size,
        "accumulation": trainer.accumulate_grad_batches,
        "threads": torch.get_num_threads(),
    }


def environment_changes(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """One line, if a run goes on under another environment than its checkpoint was written under."""
    differing = [f"{name} {there[name]}, now {value}" for name, value in here.items() if there.get(name, value) != value]
    return [f"the run goes on, but not to the bit as it would have: {'; '.join(differing)}"] if differing else []


def _short(value: Any) -> str:
    """A value as text; of a long list, such as a mean image, its size."""
    return f"a list of {len(value)} values" if isinstance(value, list) and len(value) > _LONG else str(value)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
