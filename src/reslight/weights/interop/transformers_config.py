"""Read and write the config.json of transformers' ResNets."""

import reprlib
from collections.abc import Mapping
from typing import Any

from reslight.messages import UsageError
from reslight.models import ResNetConfig
from reslight.weights.interop.names import family_of


def transformers_config(config: ResNetConfig) -> dict[str, Any]:
    """Return the arguments of `transformers.ResNetConfig` for a network.

    Raises:
        UsageError: a network that transformers cannot build; the message lists the fields that differ.
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
    """Return the network that a config.json of transformers describes; missing keys get transformers' defaults.

    Raises:
        UsageError: another kind of network, or a ResNet that reslight cannot build.
    """
    required = {"model_type": "resnet", "hidden_act": "relu", "downsample_in_first_stage": False}
    for key, value in required.items():
        if data.get(key, value) != value:
            raise UsageError(f"{key} is {reprlib.repr(data[key])}: reslight builds transformers' ResNets with {value}.")
    bottleneck = data.get("layer_type", "bottleneck") == "bottleneck"
    sizes = data.get("hidden_sizes", [256, 512, 1024, 2048])
    are_integers = isinstance(sizes, list | tuple) and all(type(size) is int for size in sizes)
    if not are_integers or (bottleneck and any(size % 4 for size in sizes)):
        raise UsageError(f"hidden_sizes is {reprlib.repr(sizes)}: it must hold integers, multiples of 4 for bottlenecks.")
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
