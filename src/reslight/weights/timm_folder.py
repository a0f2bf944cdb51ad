"""Folders in timm's format, such as the repositories of `timm/` on the Hub: the same checks, from what their config.json says."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reslight.messages import UsageError
from reslight.models import VARIANTS, ResNet, ResNetConfig
from reslight.preprocess import Preprocess
from reslight.weights.convert import from_reslight
from reslight.weights.interop import IN_TIMM, from_timm_arguments
from reslight.weights.peers import timm_config
from reslight.weights.record import Record


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
    """As timm resizes and crops for evaluation: the shorter side to size / crop_pct, rounded down, then the centre."""
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
