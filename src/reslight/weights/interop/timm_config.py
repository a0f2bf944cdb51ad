"""What config.json says to other libraries, in their words: timm, and transformers, which reads timm's.

A network that timm can build, with the same names of tensors, is named as there; any other as `reslight.weights.timm`
registers it. Source: github.com/huggingface/pytorch-image-models, timm/models/_hub.py.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from reslight.messages import UsageError
from reslight.models import VARIANTS, ResNet, ResNetConfig
from reslight.models.config import with_fields
from reslight.models.variants import without_training
from reslight.preprocess import Preprocess
from reslight.weights.interop import timm_models
from reslight.weights.interop.convert import from_reslight
from reslight.weights.interop.timm_models import timm_config
from reslight.weights.record import Record

IN_TIMM = "reslight_"
"""What the names of our networks begin with in timm, once `reslight.weights.timm` is imported."""


def timm_architecture(config: ResNetConfig) -> str | None:
    """The name in timm of a network for RGB images that takes the same file and gives the same logits there; None where it has none."""
    return None if config.preact or config.in_channels != 3 else timm_models.timm_architecture(config)


def other_libraries(record: Record) -> dict[str, Any]:
    """The keys of config.json beside `reslight`; without those of timm where timm could not prepare the images."""
    config, feed = record.net, record.preprocess
    labels = {} if record.labels is None else {"label_names": list(record.labels)}
    if len(feed.mean) != feed.channels:  # timm knows no mean image
        return {"architecture": record.name, "num_classes": config.num_classes} | labels
    timm = timm_architecture(config)
    said = {"architecture": timm} if timm else _registered(config)
    pretrained = {
        "tag": "reslight",
        "custom_load": False,
        "input_size": [feed.channels, feed.size, feed.size],
        "fixed_input_size": False,
        "interpolation": feed.interpolation,
        "crop_pct": _crop_share(feed),
        "crop_mode": "center",
        "mean": list(feed.mean),
        "std": list(feed.std),
        "num_classes": config.num_classes,
        "pool_size": [-(-feed.size // 32)] * 2,
        "first_conv": first_conv(config),
        "classifier": "fc",
    }
    shape = {"num_classes": config.num_classes, "num_features": config.widths[-1] * config.expansion, "global_pool": "avg"}
    return said | shape | labels | {"pretrained_cfg": pretrained}


def is_for_timm(record: Record) -> bool:
    """Whether timm loads the folder, be it with `reslight.weights.timm` imported."""
    return "pretrained_cfg" in other_libraries(record)


def from_timm_arguments(base: ResNetConfig, arguments: Mapping[str, Any]) -> ResNetConfig:
    """A registered network with timm's arguments, which are fields of `ResNetConfig` but for `in_chans` and `drop_path_rate`.

    Raises:
        ValueError: One is unknown or not allowed.
    """
    words = {"in_chans": "in_channels", "drop_path_rate": "drop_path"}
    return with_fields(base, {words.get(key, key): tuple(value) if isinstance(value, list) else value for key, value in arguments.items()})


def _crop_share(feed: Preprocess) -> float:
    """The size over the length that the shorter side gets, such that timm, which rounds down, finds the length again."""
    length = feed.resize or feed.size
    share = feed.size / length
    while math.floor(feed.size / share) < length:
        share = math.nextafter(share, 0)
    return share


def first_conv(config: ResNetConfig) -> str:
    """The module that takes the images."""
    return "conv1.0" if config.stem == "deep" else "conv1"


def _registered(config: ResNetConfig) -> dict[str, Any]:
    """The network as `reslight.weights.timm` builds it: the nearest architecture, and what is different in this one."""
    own = asdict(without_training(config))
    changes = {
        name: {key: value for key, value in own.items() if value != known[key]}
        for name, known in ((name, asdict(without_training(known))) for name, known in VARIANTS.items())
    }
    nearest = min(changes, key=lambda name: len(changes[name]))
    arguments = changes[nearest] | (
        {"in_chans": config.in_channels} if config.in_channels != 3 else {}
    )  # transformers asks for 3 otherwise
    return {"architecture": IN_TIMM + nearest} | ({"model_args": arguments} if arguments else {})


def record_of(config: Mapping[str, Any]) -> Record:
    """What timm's config.json says of the weights beside it.

    Raises:
        ValueError: It is no ResNet, one that reslight cannot build, or says something that cannot be.
    """
    fed = config.get("pretrained_cfg")
    if not isinstance(fed, Mapping):
        raise UsageError("there is neither an object `reslight` nor timm's `pretrained_cfg`")
    arguments = config.get("model_args") or {}
    if not isinstance(arguments, Mapping):
        raise UsageError("model_args must be an object")
    name, labels = str(config.get("architecture", "")), config.get("label_names")
    known = {**arguments, "num_classes": config.get("num_classes", fed.get("num_classes", 1000))}
    if not is_ours(config):
        net = timm_config(name, known)
    elif base := VARIANTS.get(name.removeprefix(IN_TIMM)):
        net = from_timm_arguments(base, known)
    else:
        raise UsageError(f"reslight has no architecture {name.removeprefix(IN_TIMM)[:80]!r}; `reslight models` lists all")
    return Record(
        net=net,
        preprocess=_preprocess(fed),
        labels=tuple(labels) if isinstance(labels, list) else None,
        name=name.removeprefix(IN_TIMM)[:100],
    )


def is_ours(config: Mapping[str, Any]) -> bool:
    """Whether timm wrote it of a network that `reslight.weights.timm` registered: its tensors have our names, not timm's."""
    return str(config.get("architecture", "")).startswith(IN_TIMM)


def names_in_file(net: ResNetConfig) -> dict[str, Tensor]:
    """Names and shapes of a network's tensors in timm's file, without memory."""
    with torch.device("meta"):
        return from_reslight(net, ResNet(net).state_dict(), "timm")


def _preprocess(fed: Mapping[str, Any]) -> Preprocess:
    """As timm resizes and crops for evaluation: the shorter side to size / crop_pct, rounded down, then the center."""
    shape, crop = fed.get("input_size", [3, 224, 224]), fed.get("crop_pct", 0.875)
    if not (isinstance(shape, list) and len(shape) == 3 and shape[1] == shape[2] and type(shape[1]) is int and 1 <= shape[1] <= 4096):
        raise UsageError(f"input_size is {str(shape)[:80]}, must be [channels, size, size]")
    if type(crop) not in (int, float) or not 0.01 <= crop <= 1:
        raise UsageError(f"crop_pct is {str(crop)[:40]}, must be a number from 0.01 to 1")
    if (mode := fed.get("crop_mode", "center")) != "center":
        raise UsageError(f"crop_mode is {str(mode)[:40]!r}; reslight crops the center")
    values = {name: fed.get(name) for name in ("mean", "std")}
    for name, value in values.items():
        if not isinstance(value, list):
            raise UsageError(f"{name} is {str(value)[:80]}, must be a list of a number for each channel")
    mean, std = (tuple(value) for value in values.values() if isinstance(value, list))
    return Preprocess(
        size=shape[1], mean=mean, std=std, resize=math.floor(shape[1] / crop), interpolation=fed.get("interpolation", "bilinear")
    )
