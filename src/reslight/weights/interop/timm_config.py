"""Read and write the part of config.json that timm reads, and through timm also transformers.

A network that timm builds with the same tensor names gets timm's name; any other gets the name that `reslight.weights.timm`
registers. Source: github.com/huggingface/pytorch-image-models, timm/models/_hub.py.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from reslight.messages import UsageError, visible
from reslight.models import VARIANTS, ResNetConfig
from reslight.models.config import with_fields
from reslight.models.variants import without_training
from reslight.preprocess import Fitting, Preprocess
from reslight.weights.interop.timm_models import timm_architecture, timm_config
from reslight.weights.record import Record

_CROP_MODES: dict[Fitting, str] = {"center": "center", "squash": "squash", "letterbox": "border"}
"""timm's name for each `Preprocess.crop`."""
MULTI_LABEL = "multi_label_classification"
"""The key `problem_type` of transformers with which its pipeline takes the sigmoid of each logit."""
IN_TIMM = "reslight_"
"""Prefix of reslight's architectures in timm, once `reslight.weights.timm` is imported."""


def native_architecture(config: ResNetConfig) -> str | None:
    """Return timm's own name of a network whose model.safetensors timm loads without reslight; None if there is none.

    Pre-activation networks have other tensor names in timm, and timm builds a pretrained network for RGB images.
    """
    return None if config.preact or config.in_channels != 3 else timm_architecture(config)


def other_libraries(record: Record) -> dict[str, Any]:
    """Return the keys of config.json other than `reslight`; without timm's if timm cannot preprocess the images, see `timm_lacks`."""
    config, preprocess = record.net, record.preprocess
    labels: dict[str, Any] = {} if record.labels is None else {"label_names": list(record.labels)}
    if record.multi_label:
        labels["problem_type"] = MULTI_LABEL
    if timm_lacks(preprocess):
        return {"architecture": record.name, "num_classes": config.num_classes} | labels
    native = native_architecture(config)
    architecture = {"architecture": native} if native else _registered(config)
    pretrained = {
        "tag": "reslight",
        "custom_load": False,
        "input_size": [preprocess.channels, *preprocess.shape],
        "fixed_input_size": False,
        "interpolation": preprocess.interpolation,
        "crop_pct": _crop_pct(preprocess),
        "crop_mode": _CROP_MODES[preprocess.crop],
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        "num_classes": config.num_classes,
        "pool_size": [-(-side // 32) for side in preprocess.shape],
        "first_conv": first_conv(config),
        "classifier": "fc",
    }
    shape = {"num_classes": config.num_classes, "num_features": config.widths[-1] * config.expansion, "global_pool": "avg"}
    return architecture | shape | labels | {"pretrained_cfg": pretrained}


def timm_lacks(preprocess: Preprocess) -> str | None:
    """Return what timm cannot do of a preprocessing, as the end of a sentence; None if it can do all of it."""
    if len(preprocess.mean) != preprocess.channels:
        return "subtract a mean image"
    usual = replace(preprocess, fill=None).fill_values
    if preprocess.crop == "letterbox" and preprocess.fill_values != usual:
        return f"pad with {list(preprocess.fill_values)}, only with the mean, {list(usual)}"
    return "read values of 16 bits" if preprocess.bits == 16 else None


def is_for_timm(record: Record) -> bool:
    """Return whether timm loads the folder, natively or after `import reslight.weights.timm`."""
    return "pretrained_cfg" in other_libraries(record)


def from_timm_arguments(base: ResNetConfig, arguments: Mapping[str, Any]) -> ResNetConfig:
    """Return a registered network with the arguments of timm's `create_model`.

    Args:
        base: The registered network.
        arguments: Fields of `ResNetConfig`, and timm's `in_chans` and `drop_path_rate`.

    Raises:
        UsageError: an argument that is unknown or not allowed.
    """
    fields = {"in_chans": "in_channels", "drop_path_rate": "drop_path"}
    return with_fields(base, {fields.get(key, key): tuple(value) if isinstance(value, list) else value for key, value in arguments.items()})


def _crop_pct(preprocess: Preprocess) -> float:
    """Return size / resize, lowered until timm, which rounds down, computes the same resize from it."""
    short = min(preprocess.shape)
    resize = preprocess.resize or short
    crop_pct = short / resize
    while math.floor(short / crop_pct) < resize:
        crop_pct = math.nextafter(crop_pct, 0)
    return crop_pct


def first_conv(config: ResNetConfig) -> str:
    """Return the name of the first convolution."""
    return "conv1.0" if config.stem == "deep" else "conv1"


def _registered(config: ResNetConfig) -> dict[str, Any]:
    """Return the keys that make `reslight.weights.timm` build a network: the most similar architecture, and the fields that differ."""
    own = asdict(without_training(config))
    changes = {}
    for name, variant in VARIANTS.items():
        fields = asdict(without_training(variant))
        changes[name] = {key: value for key, value in own.items() if value != fields[key]}
    nearest = min(changes, key=lambda name: len(changes[name]))
    in_chans = {"in_chans": config.in_channels} if config.in_channels != 3 else {}  # without it, transformers gives 3
    arguments = changes[nearest] | in_chans
    return {"architecture": IN_TIMM + nearest} | ({"model_args": arguments} if arguments else {})


def record_of(config: Mapping[str, Any]) -> Record:
    """Return the description of weights in a config.json that timm wrote.

    Raises:
        UsageError: a network that reslight does not have, or contents that are missing or not allowed.
    """
    pretrained_cfg = config.get("pretrained_cfg")
    if not isinstance(pretrained_cfg, Mapping):
        raise UsageError("the keys `reslight` and `pretrained_cfg` (timm's) are both missing: one must be an object.")
    arguments = config.get("model_args") or {}
    if not isinstance(arguments, Mapping):
        raise UsageError(f"model_args is {visible(arguments)}: it must be an object.")
    architecture, labels = str(config.get("architecture", "")), config.get("label_names")
    arguments = {**arguments, "num_classes": config.get("num_classes", pretrained_cfg.get("num_classes", 1000))}
    name = architecture.removeprefix(IN_TIMM)
    if not is_registered(config):
        net = timm_config(architecture, arguments)
    elif base := VARIANTS.get(name):
        net = from_timm_arguments(base, arguments)
    else:
        raise UsageError(f"architecture is {architecture[:80]!r}: reslight has no {visible(name)}; `reslight models` lists all.")
    return Record(
        net=net,
        preprocess=_preprocess(pretrained_cfg),
        labels=tuple(labels) if isinstance(labels, list) else None,
        name=name[:100],
        multi_label=config.get("problem_type") == MULTI_LABEL,
    )


def is_registered(config: Mapping[str, Any]) -> bool:
    """Return whether timm wrote a config.json for a network of `reslight.weights.timm`: the tensors then have reslight's names."""
    return str(config.get("architecture", "")).startswith(IN_TIMM)


def _preprocess(pretrained_cfg: Mapping[str, Any]) -> Preprocess:
    """Return timm's preprocessing for evaluation: the image is resized for size / crop_pct, rounded down, then cropped or padded.

    Raises:
        UsageError: a missing value, or one that reslight does not have.
    """
    shape, crop_pct = pretrained_cfg.get("input_size", [3, 224, 224]), pretrained_cfg.get("crop_pct", 0.875)
    if not (isinstance(shape, list) and len(shape) == 3 and all(type(side) is int and 1 <= side <= 4096 for side in shape[1:])):
        raise UsageError(f"input_size is {visible(shape)}: it must be [channels, height, width], each side from 1 to 4096.")
    if type(crop_pct) not in (int, float) or not 0.01 <= crop_pct <= 1:
        raise UsageError(f"crop_pct is {visible(crop_pct)}: it must be a number from 0.01 to 1.")
    short, resize = min(shape[1:]), math.floor(min(shape[1:]) / crop_pct)
    if any(math.floor(side / crop_pct) != side * resize // short for side in shape[1:]):
        raise UsageError(f"crop_pct is {crop_pct}: reslight cannot resize so for input_size {shape}. Use {short / resize:.4g}.")
    modes = {theirs: ours for ours, theirs in _CROP_MODES.items()}
    if (mode := pretrained_cfg.get("crop_mode") or "center") not in modes:
        raise UsageError(f"crop_mode is {str(mode)[:40]!r}: reslight has only {', '.join(modes)}.")
    for name in ("mean", "std"):
        if not isinstance(value := pretrained_cfg.get(name), list):
            raise UsageError(f"{name} is {visible(value)}: it must be a list of one number for each channel.")
    return Preprocess(
        size=(shape[1], shape[2]),
        mean=tuple(pretrained_cfg["mean"]),
        std=tuple(pretrained_cfg["std"]),
        resize=resize,
        interpolation=pretrained_cfg.get("interpolation", "bilinear"),
        crop=modes[mode],
    )
