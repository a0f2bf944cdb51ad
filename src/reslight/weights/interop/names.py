"""How other libraries name the tensors of their ResNets, and which networks they have: tables, read in both directions.

What a net computes is not all in its names and shapes. So a table also says which values the fields of `ResNetConfig`
have there, and equal names never pass for equal logits.
"""

import re
import reprlib
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

from reslight.messages import UsageError
from reslight.models import ResNetConfig

_FIELD = re.compile(r"\{(\w)(?:\+(\d))?\}")


@dataclass(frozen=True)
class Family:
    """The networks of a library that share one table of names."""

    names: Mapping[str, str]
    """Modules here -> there. {s}, {b} and {k} are the numbers of stage, block and layer; {s+1} is one more than {s}."""
    builds: Mapping[str, tuple[Any, ...]]
    """The values that fields of `ResNetConfig` have in the networks there that reslight can build; a field that is not
    named may have any."""
    conv_head: bool = False
    """Whether the classifier is a 1x1 convolution: its weight has two more dimensions of size 1."""

    def ours(self, name: str) -> str | None:
        """A tensor's name here; None for a name that no network there has."""
        return _translate(name, ((there, here) for here, there in self.names.items()))

    def theirs(self, name: str) -> str | None:
        """A tensor's name there; None for a name that has no counterpart."""
        return _translate(name, self.names.items())

    def differences(self, config: ResNetConfig, besides: Container[str] = ()) -> list[str]:
        """The fields that none of these networks has like this one, in words; the fields `besides` are not looked at."""
        return [
            f"{field} is {getattr(config, field)}, not {' or '.join(map(str, values))}"
            for field, values in self.builds.items()
            if field not in besides and getattr(config, field) not in values
        ]


@dataclass(frozen=True)
class Format:
    """How a library names the tensors of its ResNets."""

    source: str
    """Its repository on GitHub, and the file there."""
    families: tuple[Family, ...]
    """Its networks, by their names."""


_SAME = {name: name for name in ("bn1", "layer{s}.{b}.conv{k}", "layer{s}.{b}.bn{k}", "layer{s}.{b}.downsample.{k}", "fc")}
_OWN = {"conv1": "conv1"} | _SAME
_SHORTCUT = {"layer{s}.{b}.downsample.{k}": "layer{s}.{b}.shortcut.{k}", "fc": "linear"}

_POST = {"preact": (False,), "shortcut": ("B",), "stride_on": ("3x3",)}
_FOUR = {"widths": ((64, 128, 256, 512),)}
_PLAIN = {"groups": (1,), "width_per_group": (64,), "avg_down": (False,)}
_IMAGENET = {"stem": ("imagenet",), "stem_width": (64,)}
_CIFAR = {"block": ("basic",), "stem": ("small",), "stem_width": (16,), "widths": ((16, 32, 64),)}

# timm names the layers of a pre-activation net by what they are. Only bottlenecks: the identity of its first basic block
# starts before the activation, and ours after it (He et al. 2016, appendix).
_V2 = {
    "layer{s+1}.{b}.conv{k}": "stages.{s}.blocks.{b}.conv{k}",
    "layer{s+1}.{b}.bn{k}": "stages.{s}.blocks.{b}.norm{k}",
    "bn": "norm",
    "fc": "head.fc",
}
_V2_DEEP = {"conv1.0": "stem.conv1", "conv1.1": "stem.norm1", "conv1.3": "stem.conv2", "conv1.4": "stem.norm2", "conv1.6": "stem.conv3"}
_V2_BUILDS = {"preact": (True,), "block": ("bottleneck",), "shortcut": ("B",), "stride_on": ("3x3",), **_FOUR, "stem_width": (64,)}
_V2_SHORTCUT = "stages.{s}.blocks.{b}.downsample.conv"
_TRANSFORMERS = "resnet.encoder.stages.{s}.layers.{b}."

FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "torchvision": Format(
            "pytorch/vision: torchvision/models/resnet.py", (Family(_OWN, _POST | _IMAGENET | _FOUR | {"avg_down": (False,)}),)
        ),
        "timm": Format(
            "huggingface/pytorch-image-models: timm/models/resnet.py, timm/models/resnetv2.py",
            (
                Family(_OWN, _POST | _IMAGENET | _FOUR),
                Family({"conv1.{k}": "conv1.{k}"} | _SAME, _POST | {"stem": ("deep",)} | _FOUR),
                # Nothing in the names tells avg_down; timm has it where the stem is deep.
                Family(
                    {"conv1": "stem.conv", "layer{s+1}.{b}.downsample.0": _V2_SHORTCUT} | _V2,
                    _V2_BUILDS | _PLAIN | {"stem": ("imagenet",)},
                    conv_head=True,
                ),
                Family(
                    _V2_DEEP | {"layer{s+1}.{b}.downsample.1": _V2_SHORTCUT} | _V2,
                    _V2_BUILDS | _PLAIN | {"stem": ("deep",), "avg_down": (True,)},
                    conv_head=True,
                ),
            ),
        ),
        "transformers": Format(
            "huggingface/transformers: src/transformers/models/resnet/modeling_resnet.py",
            (
                Family(
                    {
                        "conv1": "resnet.embedder.embedder.convolution",
                        "bn1": "resnet.embedder.embedder.normalization",
                        "layer{s+1}.{b}.conv{k+1}": _TRANSFORMERS + "layer.{k}.convolution",
                        "layer{s+1}.{b}.bn{k+1}": _TRANSFORMERS + "layer.{k}.normalization",
                        "layer{s+1}.{b}.downsample.0": _TRANSFORMERS + "shortcut.convolution",
                        "layer{s+1}.{b}.downsample.1": _TRANSFORMERS + "shortcut.normalization",
                        "fc": "classifier.1",
                    },
                    {"preact": (False,), "shortcut": ("B",), "stem": ("imagenet",)} | _PLAIN,
                ),
            ),
        ),
        "akamaster": Format(
            "akamaster/pytorch_resnet_cifar10: resnet.py",
            (Family(_OWN | _SHORTCUT, _POST | _CIFAR | {"shortcut": ("A", "B"), "pad": ("both",)}),),
        ),
        "chenyaofo": Format("chenyaofo/pytorch-cifar-models: pytorch_cifar_models/resnet.py", (Family(_OWN, _POST | _CIFAR | _PLAIN),)),
        # Not its PreActResNet: that has no batch norm and ReLU before the classifier.
        "kuangliu": Format(
            "kuangliu/pytorch-cifar: models/resnet.py",
            (Family(_OWN | _SHORTCUT, _POST | _FOUR | _PLAIN | {"stem": ("small",), "stem_width": (64,)}),),
        ),
    }
)
"""Every library whose weights are read and written, by the name it has on the command line."""


def format_of(name: str) -> Format:
    """A row of `FORMATS`.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in FORMATS:
        raise UsageError(f"no format is called {reprlib.repr(name)}; choose one of {', '.join(FORMATS)}")
    return FORMATS[name]


def family_of(config: ResNetConfig, target: str) -> Family:
    """The family of a library's networks to which a network belongs.

    Raises:
        ValueError: the library cannot build it; says which fields differ.
    """
    nearest = min(format_of(target).families, key=lambda one: (config.preact not in one.builds["preact"], len(one.differences(config))))
    if differences := nearest.differences(config):
        raise UsageError(f"{target} cannot build this network: {'; '.join(differences)}")
    return nearest


def _translate(name: str, table: Iterable[tuple[str, str]]) -> str | None:
    """A tensor's name, its module renamed by the first row that fits."""
    module, _, kind = name.rpartition(".")
    for before, after in table:
        if match := _pattern(before).fullmatch(module):
            numbers = {field: int(match[field]) - int(shift or 0) for field, shift in _FIELD.findall(before)}
            return f"{_fill(after, numbers)}.{kind}"
    return None


def _fill(template: str, numbers: Mapping[str, int]) -> str:
    return _FIELD.sub(lambda field: str(numbers[field[1]] + int(field[2] or 0)), template)


@cache
def _pattern(template: str) -> re.Pattern[str]:
    """What a template of the table fits. Numbers are canonical, so that no two names become one."""
    pieces = _FIELD.split(template)  # text, field, shift, text, field, shift, ..., text
    fields = [f"(?P<{field}>0|[1-9][0-9]{{0,3}})" for field in pieces[1::3]]
    return re.compile("".join(re.escape(text) + field for text, field in zip(pieces[::3], [*fields, ""], strict=True)))
