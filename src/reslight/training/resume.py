"""Resume from a checkpoint: report where it differs from the configuration, which always wins."""

import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from reslight.messages import UsageError, shortened
from reslight.renamed import with_new_names

FREE_IN_NET = {"drop_path", "checkpoint", "zero_init"}
"""Fields of a network that change how it is trained, not which weights it has."""
FIXED_ON_RESUME = {
    "optim.name": "another optimizer",
    "optim.decay_norms": "other groups of parameters",
    "optim.backbone_lr": "other groups of parameters",
    "freeze": "other groups of parameters",
    "ema": "another average",
}
"""Settings that must not change, because the optimizer's or the average's state in a checkpoint depends on them."""
ADDED = {
    "optim.backbone_lr": 1.0,
    "optim.sgd_lr": 0.1,
    "optim.sgd_weight_decay": 5e-4,
    "schedule.monitor": "val/loss",
    "schedule.patience": 10,
    "schedule.threshold": 1e-4,
    "loss": "cross_entropy",
    "freeze": None,
    "teacher": None,
    "teacher_weight": 0.9,
    "teacher_temperature": 4.0,
}
"""Settings that the first checkpoints do not have, and the values that they were trained with."""
ADDED_TO_DATA = {"class_weights": "none", "sampling": "uniform", "scaled_decode": False}
"""The same of the information about the data."""
SETTINGS = (
    *("net", "optim", "schedule", "ema", "label_smoothing", "loss", "freeze", "channels_last", "compile"),
    *("teacher", "teacher_weight", "teacher_temperature"),
)
"""Hyper-parameters of an ImageClassifier; `init_from` is left out because it matters for a new run only."""
AFFECTS_PREDICTIONS = ("data.preprocess.", "data.normalize", "data.labels")
"""Information about the data that the predictions of a trained network depend on."""
_LONG = 10
_CONTENT = ".content"
"""End of the keys that identify the images' contents; older checkpoints do not have them."""


def check_classes(contents: Mapping[str, Any], data_info: Mapping[str, Any], root: str | None, trained_root: str | None) -> None:
    """Check that the data have as many classes as the network of a checkpoint.

    Args:
        contents: What `read_checkpoint` returned.
        data_info: The data module's information about the data.
        root: The folder of the data; None for a dataset without one.
        trained_root: The folder of the data in training, if it is known.

    Raises:
        UsageError: another number of classes.
    """
    classes, labels = contents["hyper_parameters"]["net"]["num_classes"], data_info["labels"]
    if len(labels) == classes:
        return
    trained = contents.get("reslight", {}).get("data", {}).get("labels") or labels
    missing, unknown = [name for name in trained if name not in labels], [name for name in labels if name not in trained]
    listed = [f"{shortened(names, 5)} {what}" for names, what in ((missing, "missing"), (unknown, "unknown to the network")) if names]
    names = f" ({'; '.join(listed)})" if listed else ""
    data = f"data.root is {root}" if root else f"data is {data_info['name']}"
    knows_root = root and trained_root not in (None, root)
    fix = f"Set it to {trained_root}, which was used in training." if knows_root else "Use the dataset of the training."
    raise UsageError(f"{data}: it has {len(labels)} classes{names}, and the network has {classes}. {fix}")


def check_resumable(path: str | Path | None, contents: Mapping[str, Any], settings: Mapping[str, Any], *, resume: bool) -> None:
    """Check that a checkpoint can be loaded with the settings of a classifier.

    Args:
        path: The checkpoint, for the messages.
        contents: What is in it.
        settings: The hyper-parameters of the classifier that loads it.
        resume: Whether training resumes; if not, only the network is compared.

    Raises:
        UsageError: another network; or, on a resume, no state of the optimizer or a setting that cannot change.
    """
    if "net" not in contents.get("hyper_parameters", {}):
        raise UsageError(f"{path} is not a checkpoint of reslight: it has no settings of a network. Choose another ckpt_path.")
    differing = _differing(contents, settings)
    net = {key: values for key, values in differing.items() if key.startswith("net.") and key.removeprefix("net.") not in FREE_IN_NET}
    if net:
        fields = "; ".join(f"{key.removeprefix('net.')} is {saved} there and {now} here" for key, (saved, now) in net.items())
        raise UsageError(f"{path} holds another network: {fields}. Set model.net as it was, or choose another ckpt_path.")
    if bool(contents["hyper_parameters"].get("multi_label")) != bool(settings.get("multi_label")):
        kinds = ("several labels", "one label") if settings.get("multi_label") else ("one label", "several labels")
        raise UsageError(f"{path} holds a network for {kinds[1]} of each image: the data have {kinds[0]}. Choose another ckpt_path.")
    if not resume:
        return
    if "optimizer_states" not in contents:
        raise UsageError(f"{path} has weights only: a run cannot resume without the optimizer's state. Choose another ckpt_path.")
    for key, (saved, now) in differing.items():
        fixed = "another optimizer" if key.startswith("optim.options.") else FIXED_ON_RESUME.get(key)
        if fixed:
            raise UsageError(
                f"model.{key} is {now}: {path} was trained with {saved}, and a run cannot resume with "
                f"{fixed}. Set model.{key} as it was, or start a new run."
            )


def changed_settings(path: str | Path | None, contents: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """Return a line for each setting with which a run resumes and that is not as in its checkpoint; arguments as of `check_resumable`."""
    return [f"model.{key} is {now}: it was {saved} in {path}." for key, (saved, now) in _differing(contents, settings).items()]


def _differing(contents: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the settings of a classifier that differ from a checkpoint's, with their values there and now.

    Hyper-parameters that a subclass adds are not compared.
    """
    before = with_new_names(contents["hyper_parameters"], "model")
    saved, now = (ADDED | dict(_flat({key: values[key] for key in SETTINGS if key in values})) for values in (before, settings))
    return {key: (saved.get(key), now.get(key)) for key in sorted(now.keys() | saved.keys()) if now.get(key) != saved.get(key)}


def compare_data_info(state: Mapping[str, Any], data_info: Mapping[str, Any], precision: str, *, resume: bool) -> list[str]:
    """Compare the data and the precision with those of a checkpoint; what one of them does not say is not compared.

    Args:
        state: What the classifier kept in the checkpoint.
        data_info: The data module's information about the data.
        precision: The trainer's precision.
        resume: Whether training resumes; if not, only what affects predictions is compared.

    Returns:
        A line for each difference.
    """
    saved_info = with_new_names(state.get("data", {}), "data")
    if saved_info:
        saved_info = ADDED_TO_DATA | saved_info
    saved = dict(_flat({"data": saved_info, "trainer": {"precision": state.get("precision")}}))
    now = dict(_flat({"data": data_info, "trainer": {"precision": precision}}))
    differing = [
        key
        for key, value in now.items()
        if saved.get(key, value) != value and saved[key] is not None and (resume or key.startswith(AFFECTS_PREDICTIONS))
    ]
    return [
        f"data has other images in {key.split('.')[2]} than when the checkpoint was written, of the same names and sizes."
        if key.endswith(_CONTENT)
        else f"{key} is {_short(now[key])}: it was {_short(saved[key])} when the checkpoint was written."
        for key in differing
        # Images of other names or sizes have other contents, too.
        if not (key.endswith(_CONTENT) and f"{key.removesuffix(_CONTENT)}.fingerprint" in differing)
    ]


def environment(trainer: Trainer) -> dict[str, str | int]:
    """Return what a bit-exact resume depends on: versions, the device, and the order in which numbers are summed."""
    device = trainer.strategy.root_device
    return {
        **{name: version(name) for name in ("reslight", "torch", "lightning")},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})",
        "devices": trainer.world_size,
        "accumulation": trainer.accumulate_grad_batches,
        "threads": torch.get_num_threads(),
    }


def compare_environments(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return one line if a run resumes in another environment than its checkpoint was written in."""
    differing = [f"{name} was {saved[name]}, is {value}" for name, value in now.items() if saved.get(name, value) != value]
    return [f"the run resumes, but its numbers can differ in the last bits: {'; '.join(differing)}."] if differing else []


def _short(value: Any) -> str:
    """Return a value as text; a long list, such as a mean image, as its length."""
    return f"a list of {len(value)} values" if isinstance(value, list) and len(value) > _LONG else str(value)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
