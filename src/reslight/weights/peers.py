"""The networks of timm, torchvision and transformers that are reslight's: their names, their configurations, and the proof.

The other libraries are imported by the functions that build their networks, and by nothing else.
"""

import importlib
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from reslight.messages import UsageError, nearest
from reslight.models import ResNet, ResNetConfig
from reslight.models.config import with_fields
from reslight.weights.convert import from_reslight
from reslight.weights.formats import family_of, format_of

_IMAGES = 16

_DEPTHS = {26: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}
_DEEP = {"stem": "deep", "avg_down": True}


def _basic(depth: int, **fields: Any) -> ResNetConfig:
    return ResNetConfig(depths={18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}[depth], widths=(64, 128, 256, 512), **fields)


def _bottleneck(depth: int, **fields: Any) -> ResNetConfig:
    return ResNetConfig(depths=_DEPTHS[depth], widths=(64, 128, 256, 512), block="bottleneck", **fields)


TIMM: Mapping[str, ResNetConfig] = MappingProxyType(
    {
        **{f"resnet{depth}": _basic(depth) for depth in (18, 34)},
        **{f"resnet{depth}": _bottleneck(depth) for depth in (26, 50, 101, 152, 200)},
        **{f"resnet{depth}c": _bottleneck(depth, stem="deep") for depth in (50, 101, 152)},
        **{f"resnet{depth}s": _bottleneck(depth, stem="deep", stem_width=128) for depth in (50, 101, 152)},
        **{f"resnet{depth}d": _basic(depth, **_DEEP) for depth in (18, 34)},
        **{f"resnet{depth}d": _bottleneck(depth, **_DEEP) for depth in (26, 50, 101, 152, 200)},
        **{f"wide_resnet{depth}_2": _bottleneck(depth, width_per_group=128) for depth in (50, 101)},
        **{f"resnext{depth}_32x4d": _bottleneck(depth, groups=32, width_per_group=4) for depth in (50, 101)},
        "resnext50d_32x4d": _bottleneck(50, groups=32, width_per_group=4, **_DEEP),
        **{f"resnext101_32x{width}d": _bottleneck(101, groups=32, width_per_group=width) for width in (8, 16, 32)},
        "resnext101_64x4d": _bottleneck(101, groups=64, width_per_group=4),
        **{f"resnetv2_{depth}": _bottleneck(depth, preact=True) for depth in (50, 101, 152)},
        **{f"resnetv2_{depth}d": _bottleneck(depth, preact=True, **_DEEP) for depth in (50, 101, 152)},
    }
)
"""Every architecture of timm that `ResNetConfig` can express, by timm's name.

Its other ResNets have squeeze-and-excitation, anti-aliasing, tiered stems, other norms or other activations, or begin with
a pre-activated basic block (resnetv2_18), whose identity starts before the activation there.
"""

# timm's arguments that mean a field of ours, and those that change nothing in evaluation.
_ARGUMENTS = {
    "num_classes": "num_classes",
    "in_chans": "in_channels",
    "layers": "depths",
    "cardinality": "groups",
    "base_width": "width_per_group",
}
_IN_TRAINING = {"drop_rate", "drop_path_rate", "drop_block_rate", "zero_init_last"}
_ALWAYS = {"global_pool": "avg"}  # which our networks have, and timm writes out


@dataclass(frozen=True)
class Agreement:
    """How far the logits of a network are from those of another library's with the same weights."""

    max_difference: float
    """The largest difference of two logits; NaN where there are NaNs."""
    top1: float
    """Share of the images that get the same class from both."""
    images: int
    """How many were compared."""


def timm_architecture(config: ResNetConfig) -> str | None:
    """Timm's name of a network, whatever its classes, image channels and way of training; None where it has none."""
    essence = _essence(config)
    return next((name for name, known in TIMM.items() if known == essence), None)


def timm_config(architecture: str, model_args: Mapping[str, Any] | None = None) -> ResNetConfig:
    """The network that timm builds.

    Args:
        architecture: timm's name, with or without the tag of weights: resnet50, resnet50.a1_in1k.
        model_args: what timm's `create_model` gets besides, as in a config.json.

    Raises:
        ValueError: reslight cannot build this network, or an argument is not known to leave it one that it can.
    """
    name = architecture.partition(".")[0] if isinstance(architecture, str) else None
    if name not in TIMM:
        similar = nearest(str(architecture), TIMM)
        hint = f"similar ones that it has: {', '.join(similar)}" if similar else "only plain ResNets, ResNeXts and pre-activation ResNets"
        raise UsageError(f"reslight cannot build timm's {reprlib.repr(architecture)}; {hint}")
    given = (model_args or {}).items()
    arguments = {key: value for key, value in given if key not in _IN_TRAINING and (key not in _ALWAYS or value != _ALWAYS[key])}
    if unknown := [key for key in arguments if key not in _ARGUMENTS]:
        raise UsageError(f"timm's argument {reprlib.repr(unknown[0])} is not understood; those that are: {', '.join(_ARGUMENTS)}")
    config = with_fields(TIMM[name], {_ARGUMENTS[key]: value for key, value in arguments.items()})
    family_of(config, "timm")  # complains of what timm's network could not take either
    return config


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


def build(config: ResNetConfig, target: str) -> nn.Module:
    """Another library's network, with random weights, in training mode.

    Raises:
        ValueError: the library cannot build this network, is no package, or is not installed.
    """
    family_of(config, target)
    library = require(target)
    return _BUILDERS[target](library, config)


def require(target: str) -> Any:
    """Another library, to build its networks with.

    Raises:
        ValueError: it is no package, or is not installed.
    """
    if target not in _BUILDERS:
        raise UsageError(
            f"{target} is no package ({format_of(target).source}), so that nothing can be built; choose of {', '.join(_BUILDERS)}"
        )
    try:
        return importlib.import_module(target)
    except ImportError:
        raise UsageError(f"{target} is not installed; pip install {target}") from None


def check(net: ResNet, target: str) -> Agreement:
    """Compares a network's logits with those of another library's network that got its weights.

    Both run in evaluation mode and float32 on the CPU, on 16 random images of the network's usual size. The given
    network and torch's global generator stay as they are.

    Raises:
        ValueError: the library cannot build this network, is no package, or is not installed.
    """
    state = {name: tensor.detach().cpu() for name, tensor in net.state_dict().items()}
    with torch.random.fork_rng(devices=[]):
        ours, theirs = ResNet(net.config), build(net.config, target)
    ours.load_state_dict(state)
    theirs.load_state_dict(from_reslight(net.config, ours.state_dict(), target))
    size = net.config.input_size
    images = torch.randn(_IMAGES, net.config.in_channels, size, size, generator=torch.Generator().manual_seed(0))
    mine, other = _logits(ours.eval(), images), _logits(theirs.eval(), images)
    same = (mine.argmax(1) == other.argmax(1)).sum().item()
    return Agreement(max_difference=(mine - other).abs().max().item(), top1=same / _IMAGES, images=_IMAGES)


@torch.inference_mode()
def _logits(net: nn.Module, images: Tensor) -> Tensor:
    """Logits (N, num_classes) of images (N, in_channels, H, W); transformers' networks wrap them."""
    output = net(images)
    logits: Tensor = getattr(output, "logits", output)
    return logits


def _essence(config: ResNetConfig) -> ResNetConfig:
    """Without what the tables leave open or evaluation does not see."""
    return replace(config, num_classes=1000, in_channels=3, drop_path=0.0, zero_init=False, checkpoint=False)


def _torchvision(library: Any, config: ResNetConfig) -> nn.Module:
    blocks = library.models.resnet
    block = blocks.Bottleneck if config.block == "bottleneck" else blocks.BasicBlock
    net: nn.Module = blocks.ResNet(
        block, list(config.depths), num_classes=config.num_classes, groups=config.groups, width_per_group=config.width_per_group
    )
    if config.in_channels != 3:  # torchvision has no argument for it: its users replace the layer
        net.conv1 = nn.Conv2d(config.in_channels, 64, 7, stride=2, padding=3, bias=False)
    return net


def _timm(library: Any, config: ResNetConfig) -> nn.Module:
    common = {"layers": list(config.depths), "num_classes": config.num_classes, "in_chans": config.in_channels}
    if config.preact:
        v2: nn.Module = library.create_model("resnetv2_50d" if config.avg_down else "resnetv2_50", **common)
        return v2
    net: nn.Module = library.create_model(
        "resnet50" if config.block == "bottleneck" else "resnet18",
        stem_type="deep" if config.stem == "deep" else "",
        stem_width=config.stem_width // 2,
        avg_down=config.avg_down,
        cardinality=config.groups,
        base_width=config.width_per_group,
        **common,
    )
    return net


def _transformers(library: Any, config: ResNetConfig) -> nn.Module:
    net: nn.Module = library.ResNetForImageClassification(library.ResNetConfig(**transformers_config(config)))
    return net


_BUILDERS: Mapping[str, Callable[[Any, ResNetConfig], nn.Module]] = MappingProxyType(
    {"torchvision": _torchvision, "timm": _timm, "transformers": _transformers}
)
