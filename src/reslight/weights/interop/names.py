"""The names that other libraries give to the tensors of their ResNets, and the networks that they have.

Names and shapes do not determine what a network computes. Each table therefore also lists the values that the fields of
`ResNetConfig` can have in that library, so that weights of a different network are refused although their names fit.

The command line reads `FORMATS` to parse its arguments, so nothing here imports torch.
"""

import re
import reprlib
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from reslight.messages import UsageError, did_you_mean

if TYPE_CHECKING:
    from reslight.models import ResNetConfig

_FIELD = re.compile(r"\{(\w)(?:\+(\d))?\}")


@dataclass(frozen=True)
class Family:
    """The networks of a library that share one table of names.

    Attributes:
        names: Modules of reslight -> modules of the library. {s}, {b} and {k} are the numbers of stage, block and layer;
            {s+1} is one more than {s}.
        builds: The values that the fields of `ResNetConfig` can have in this family; a field that is not listed can have any.
        conv_head: The classifier is a 1x1 convolution, so its weight has two more dimensions of size 1.
    """

    names: Mapping[str, str]
    builds: Mapping[str, tuple[Any, ...]]
    conv_head: bool = False

    def reslight_name(self, name: str) -> str | None:
        """Return reslight's name of a tensor of the library; None for a name that no network of this family has."""
        return _translate(name, ((theirs, ours) for ours, theirs in self.names.items()))

    def library_name(self, name: str) -> str | None:
        """Return the library's name of a tensor of reslight; None for a name without a counterpart."""
        return _translate(name, self.names.items())

    def differences(self, config: "ResNetConfig", ignored: Container[str] = ()) -> list[str]:
        """Return a phrase for each field with a value that no network of this family has; fields in `ignored` are left out."""
        return [
            f"{field} is {getattr(config, field)}, not {' or '.join(map(str, values))}"
            for field, values in self.builds.items()
            if field not in ignored and getattr(config, field) not in values
        ]


@dataclass(frozen=True)
class Format:
    """How a library names the tensors of its ResNets.

    Attributes:
        source: Its repository on GitHub, and the file in it.
        families: Its networks, grouped by their names.
    """

    source: str
    families: tuple[Family, ...]


_SAME = {name: name for name in ("bn1", "layer{s}.{b}.conv{k}", "layer{s}.{b}.bn{k}", "layer{s}.{b}.downsample.{k}", "fc")}
_OWN = {"conv1": "conv1"} | _SAME
_SHORTCUT = {"layer{s}.{b}.downsample.{k}": "layer{s}.{b}.shortcut.{k}", "fc": "linear"}

_POST = {"preact": (False,), "shortcut": ("B",), "stride_on": ("3x3",)}
_FOUR = {"widths": ((64, 128, 256, 512),)}
_PLAIN = {"groups": (1,), "width_per_group": (64,), "avg_down": (False,)}
_IMAGENET = {"stem": ("imagenet",), "stem_width": (64,)}
_CIFAR = {"block": ("basic",), "stem": ("small",), "stem_width": (16,), "widths": ((16, 32, 64),)}

# timm's pre-activation networks. Only those with bottlenecks: the shortcut of timm's first basic block starts before the
# activation, reslight's after it (He et al. 2016, appendix).
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
                # The names do not show avg_down; in timm it goes with the deep stem.
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
        # Without its PreActResNet, which has no batch norm and ReLU before the classifier.
        "kuangliu": Format(
            "kuangliu/pytorch-cifar: models/resnet.py",
            (Family(_OWN | _SHORTCUT, _POST | _FOUR | _PLAIN | {"stem": ("small",), "stem_width": (64,)}),),
        ),
    }
)
"""The libraries whose weights reslight reads and writes, by their names on the command line."""


def format_of(library: str) -> Format:
    """Return the row of `FORMATS` for a library.

    Raises:
        UsageError: an unknown library.
    """
    if library not in FORMATS:
        hint = did_you_mean(library, FORMATS, otherwise=f"use one of {', '.join(FORMATS)}.")
        raise UsageError(f"library is {reprlib.repr(library)}: {hint}")
    return FORMATS[library]


def family_of(config: "ResNetConfig", library: str) -> Family:
    """Return the family of a library's networks to which a network belongs.

    Raises:
        UsageError: a network that the library cannot build; the message lists the fields that differ.
    """
    nearest = min(format_of(library).families, key=lambda one: (config.preact not in one.builds["preact"], len(one.differences(config))))
    if differences := nearest.differences(config):
        raise UsageError(f"{library} cannot build this network: {'; '.join(differences)}.")
    return nearest


def _translate(name: str, table: Iterable[tuple[str, str]]) -> str | None:
    """Rename a tensor's module by the first row whose pattern matches; None if no row does."""
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
    """Compile a template of a table. Leading zeros do not match, so that two names never become one."""
    pieces = _FIELD.split(template)  # text, field, shift, text, field, shift, ..., text
    fields = [f"(?P<{field}>0|[1-9][0-9]{{0,3}})" for field in pieces[1::3]]
    return re.compile("".join(re.escape(text) + field for text, field in zip(pieces[::3], [*fields, ""], strict=True)))
