"""Which `ResNetConfig` a state dict belongs to, from the names and shapes of its tensors alone."""

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
    """The network whose state dict has these shapes.

    What shapes cannot tell is left at the defaults of `ResNetConfig`, shortcut A apart: it is assumed where blocks change
    the shape and have no projection, as in a plain net. Not every tensor is looked at; whoever calls must compare all.

    Args:
        shapes: of the tensors, under the names of `ResNet.state_dict`.
        known: fields whose values are not to be inferred.

    Raises:
        ValueError: reslight has no such network, or `known` has an unknown field or a value that is not allowed.
        KeyError: (name, number of dimensions) of a tensor without which nothing can be said.
    """
    check_field_names(known)
    stem_width, in_channels, stem = _stem(shapes)
    preact = "bn1.weight" not in shapes
    if preact and "bn.weight" not in shapes:
        raise UsageError(
            "these weights lack a batch norm after the stem (bn1) or before the classifier; reslight has no network without both, "
            "such as the PreActResNet of pytorch-cifar"
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
    """Channels that leave and that enter the stem, and which one it is."""
    if "conv1.0.weight" in shapes:
        return _shape(shapes, "conv1.6.weight", 4)[0], _shape(shapes, "conv1.0.weight", 4)[1], "deep"
    width, channels, size, _ = _shape(shapes, "conv1.weight", 4)
    if size not in _STEMS:
        raise UsageError(f"the first convolution is {size}x{size}; reslight's stems begin with a 3x3 or a 7x7")
    return width, channels, _STEMS[size]


def _depths(shapes: Shapes) -> tuple[int, ...]:
    """Blocks of each stage, counted up to the highest number, so that a gap is found as missing tensors."""
    highest: dict[int, int] = {}
    for name in shapes:
        if match := _BLOCK.match(name):
            stage, block = map(int, match.groups())
            highest[stage] = max(block, highest.get(stage, 0))
    return tuple(highest.get(stage, -1) + 1 for stage in range(1, max(highest, default=0) + 1))


def _shortcut(shapes: Shapes, stem_width: int, outs: list[int]) -> str:
    """Projections where the shape changes (B), also elsewhere (C), or nowhere although it changes (A)."""
    projected = {match[0] for name in shapes if ".downsample." in name and (match := _BLOCK.match(name))}
    changed = {f"layer{number}.0." for number in range(1, len(outs) + 1) if number > 1 or stem_width != outs[0]}
    if projected - changed:
        return "C"
    return "A" if changed and not projected else "B"


def _cardinality(convs: list[Shape], widths: tuple[int, ...]) -> dict[str, int]:
    """`groups` and `width_per_group`, from the 3x3 convolution (inner, inner / groups, 3, 3) of each stage's first block.

    A stage has width * width_per_group // 64 channels per group: every stage bounds width_per_group from below, and the
    highest bound fits all stages if any number does.
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
