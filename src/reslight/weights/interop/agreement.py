"""The networks of timm, torchvision and transformers that are reslight's: their names, their configurations, and the proof.

The other libraries are imported by the functions that build their networks, and by nothing else.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from reslight.messages import UsageError
from reslight.models import ResNet, ResNetConfig
from reslight.weights.interop.convert import from_reslight
from reslight.weights.interop.names import family_of, format_of
from reslight.weights.interop.transformers_config import transformers_config

_IMAGES = 16


@dataclass(frozen=True)
class Agreement:
    """How far the logits of a network are from those of another library's with the same weights."""

    max_difference: float
    """The largest difference of two logits; NaN where there are NaNs."""
    top1: float
    """Share of the images that get the same class from both."""
    images: int
    """How many were compared."""


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
