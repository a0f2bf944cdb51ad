"""Infer the `ResNetConfig` of a state dict from the names and shapes of its tensors."""

import re
from collections.abc import Mapping
from typing import Any

from reslight.messages import UsageError
from reslight.models import ResNetConfig
from reslight.models.config import check_field_names

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

_BLOCK = re.compile(r"layer([0-9]{1,4})\.([0-9]{1,4})\.")
_STEMS = {3: "small", 7: "imagenet"}


def infer_config(shapes: Shapes, known: Mapping[str, Any]) -> ResNetConfig:
    """Return the network whose state dict has these shapes.

    Fields that shapes do not show get the defaults of `ResNetConfig`, except one: shortcut A is assumed if a block changes
    the shape and has no projection (a plain network looks the same). The function reads only the tensors that it needs;
    the caller must compare all of them with the network's.

    Args:
        shapes: Shapes by the names of `ResNet.state_dict`.
        known: Fields of `ResNetConfig` that are known; they are not inferred.

    Raises:
        UsageError: a network that reslight does not have, or a field in `known` that is unknown or not allowed.
        KeyError: a missing tensor that is needed; the arguments are its name and its number of dimensions.
    """
    check_field_names(known)
    stem_width, in_channels, stem = _stem(shapes)
    preact = "bn1.weight" not in shapes
    if preact and "bn.weight" not in shapes:
        raise UsageError(
            "these weights have no batch norm after the stem (bn1) or before the classifier: reslight's networks have one of them, "
            "unlike the PreActResNet of pytorch-cifar. Convert other weights."
        )
    depths = _depths(shapes)
    bottleneck = "layer1.0.conv3.weight" in shapes
    firsts = [f"layer{number}.0." for number in range(1, len(depths) + 1)]
    outs = [_shape(shapes, first + ("conv3.weight" if bottleneck else "conv2.weight"), 4)[0] for first in firsts]
    inferred: dict[str, Any] = {
        "depths": depths,
        "widths": tuple(out // 4 for out in outs) if bottleneck else tuple(outs),
        "block": "bottleneck" if bottleneck else "basic",
        "preact": preact,
        "shortcut": _shortcut(shapes, stem_width, outs),
        "stem": stem,
        "stem_width": stem_width,
        "avg_down": any(len(shapes.get(first + "downsample.1.weight", ())) == 4 for first in firsts),
        "in_channels": in_channels,
        "num_classes": _shape(shapes, "fc.weight", 2)[0],
    }
    if bottleneck:
        inferred |= _cardinality([_shape(shapes, first + "conv2.weight", 4) for first in firsts], inferred["widths"])
    return ResNetConfig(**{**inferred, **known})


def _stem(shapes: Shapes) -> tuple[int, int, str]:
    """Return the output channels, the input channels and the kind of the stem."""
    if "conv1.0.weight" in shapes:
        return _shape(shapes, "conv1.6.weight", 4)[0], _shape(shapes, "conv1.0.weight", 4)[1], "deep"
    width, channels, size, _ = _shape(shapes, "conv1.weight", 4)
    if size not in _STEMS:
        raise UsageError(f"the first convolution is {size}x{size}: reslight's stems begin with 3x3 or 7x7. Convert other weights.")
    return width, channels, _STEMS[size]


def _depths(shapes: Shapes) -> tuple[int, ...]:
    """Return the number of blocks of each stage: up to the highest number found, so that a gap shows as missing tensors."""
    highest: dict[int, int] = {}
    for name in shapes:
        if match := _BLOCK.match(name):
            stage, block = map(int, match.groups())
            highest[stage] = max(block, highest.get(stage, 0))
    return tuple(highest.get(stage, -1) + 1 for stage in range(1, max(highest, default=0) + 1))


def _shortcut(shapes: Shapes, stem_width: int, outs: list[int]) -> str:
    """Return the shortcut: projections where the shape changes (B), elsewhere too (C), or nowhere although it changes (A)."""
    projected = {match[0] for name in shapes if ".downsample." in name and (match := _BLOCK.match(name))}
    changed = {f"layer{number}.0." for number in range(1, len(outs) + 1) if number > 1 or stem_width != outs[0]}
    if projected - changed:
        return "C"
    return "A" if changed and not projected else "B"


def _cardinality(convs: list[Shape], widths: tuple[int, ...]) -> dict[str, int]:
    """Return `groups` and `width_per_group`, from the 3x3 convolution of each stage's first block.

    Its weight is (inner, inner / groups, 3, 3), and a stage has width * width_per_group // 64 channels per group. Each stage
    therefore gives a lower bound of width_per_group. If any number fits all stages, the highest of these bounds does.
    """
    groups = convs[0][0] // max(convs[0][1], 1)
    return {
        "groups": max(groups, 1),
        "width_per_group": max(1, *(-(-64 * conv[1] // max(width, 1)) for conv, width in zip(convs, widths, strict=True))),
    }


def _shape(shapes: Shapes, name: str, dimensions: int) -> Shape:
    shape = shapes.get(name, ())
    if len(shape) != dimensions:
        raise KeyError(name, dimensions)
    return shape
