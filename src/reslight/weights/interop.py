"""What config.json says to other libraries, in their words: timm, and transformers, which reads timm's.

A network that timm can build, with the same names of tensors, is named as there; any other as `reslight.weights.timm`
registers it. Source: github.com/huggingface/pytorch-image-models, timm/models/_hub.py.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from reslight.models import VARIANTS, ResNetConfig
from reslight.models.config import with_fields
from reslight.preprocess import Preprocess
from reslight.weights import peers
from reslight.weights.record import Record

IN_TIMM = "reslight_"
"""What the names of our networks begin with in timm, once `reslight.weights.timm` is imported."""


def architecture_of(config: ResNetConfig) -> str | None:
    """The architecture's name, whatever its classes, channels and way of training; None for one without a name."""
    return next((name for name, known in VARIANTS.items() if _essence(known) == _essence(config)), None)


def timm_architecture(config: ResNetConfig) -> str | None:
    """The name in timm of a network for RGB images that takes the same file and gives the same logits there; None where it has none."""
    return None if config.preact or config.in_channels != 3 else peers.timm_architecture(config)


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
    own = asdict(_essence(config))
    changes = {
        name: {key: value for key, value in own.items() if value != known[key]}
        for name, known in ((name, asdict(_essence(known))) for name, known in VARIANTS.items())
    }
    nearest = min(changes, key=lambda name: len(changes[name]))
    arguments = changes[nearest] | (
        {"in_chans": config.in_channels} if config.in_channels != 3 else {}
    )  # transformers asks for 3 otherwise
    return {"architecture": IN_TIMM + nearest} | ({"model_args": arguments} if arguments else {})


def _essence(config: ResNetConfig) -> ResNetConfig:
    """Without what changes neither the architecture nor its logits in evaluation."""
    return replace(config, **_ESSENCE)


_ESSENCE: dict[str, Any] = {"num_classes": 1, "in_channels": 3, "drop_path": 0.0, "zero_init": False, "checkpoint": False}
