"""config.json of transformers' ResNets, read and written."""

import reprlib
from collections.abc import Mapping
from typing import Any

from reslight.messages import UsageError
from reslight.models import ResNetConfig
from reslight.weights.interop.names import family_of


def transformers_config(config: ResNetConfig) -> dict[str, Any]:
    """What `transformers.ResNetConfig` takes to describe a network.

    Raises:
        ValueError: transformers cannot build it; says which fields differ.
    """
    family_of(config, "transformers")
    return {
        "num_channels": config.in_channels,
        "embedding_size": config.stem_width,
        "hidden_sizes": [width * config.expansion for width in config.widths],
        "depths": list(config.depths),
        "layer_type": config.block,
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": config.stride_on == "1x1",
        "num_labels": config.num_classes,
    }


def from_transformers_config(data: Mapping[str, Any]) -> ResNetConfig:
    """The network that a config.json of transformers describes; keys that are not there have transformers' defaults.

    Raises:
        ValueError: it is no ResNet, or one that reslight cannot build.
    """
    only = {"model_type": "resnet", "hidden_act": "relu", "downsample_in_first_stage": False}
    for key, value in only.items():
        if data.get(key, value) != value:
            raise UsageError(f"{key}={reprlib.repr(data[key])} of transformers cannot be built by reslight; it must be {value}")
    bottleneck = data.get("layer_type", "bottleneck") == "bottleneck"
    sizes = data.get("hidden_sizes", [256, 512, 1024, 2048])
    whole = isinstance(sizes, list | tuple) and all(type(size) is int for size in sizes)
    if not whole or (bottleneck and any(size % 4 for size in sizes)):
        raise UsageError(f"hidden_sizes={reprlib.repr(sizes)} must be whole numbers, and multiples of 4 for bottlenecks")
    labels = data.get("id2label")
    return ResNetConfig(
        depths=data.get("depths", (3, 4, 6, 3)),
        widths=tuple(size // 4 for size in sizes) if bottleneck else tuple(sizes),
        block=data.get("layer_type", "bottleneck"),
        stride_on="1x1" if bottleneck and data.get("downsample_in_bottleneck", False) else "3x3",
        stem_width=data.get("embedding_size", 64),
        in_channels=data.get("num_channels", 3),
        num_classes=data.get("num_labels", len(labels) if isinstance(labels, Mapping) else 2),
    )
