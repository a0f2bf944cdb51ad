"""Build the networks of torchvision, timm and transformers, and compare their logits with those of reslight's networks.

These libraries are optional, so only the functions that need one import it.
"""

import importlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from reslight.messages import MissingPackageError, UsageError
from reslight.models import ResNet, ResNetConfig
from reslight.weights.interop.convert import from_reslight
from reslight.weights.interop.names import family_of, format_of
from reslight.weights.interop.transformers_config import transformers_config
from reslight.weights.logits import LogitComparison, compare_logits

_IMAGES = 16


def build(config: ResNetConfig, library: str) -> nn.Module:
    """Build another library's network, with random weights, in training mode.

    Raises:
        UsageError: a network that the library cannot build, or a library that `import_library` refuses.
    """
    family_of(config, library)
    package = import_library(library)
    return _BUILDERS[library](package, config)


def import_library(library: str) -> Any:
    """Import the package of another library and return it.

    Raises:
        UsageError: a library that is not a package.
        MissingPackageError: a package that is not installed.
    """
    if library not in _BUILDERS:
        raise UsageError(
            f"library is {library}: it is a repository ({format_of(library).source}), not a package that can build networks. "
            f"Use {', '.join(_BUILDERS)}, or leave the comparison out."
        )
    try:
        return importlib.import_module(library)
    except ImportError:
        raise MissingPackageError(f"{library} is not installed: its network cannot be built. Run pip install {library}.") from None


def compare_with_library(net: ResNet, library: str) -> LogitComparison:
    """Compare a network's logits with those of another library's network that has the same weights.

    Both run in eval mode and float32 on the CPU, on 16 random images of the network's usual size. The network and torch's
    global random generator are not changed.

    Returns:
        The comparison; the other library's logits are the reference.

    Raises:
        UsageError: a network that the library cannot build, or a library that `import_library` refuses.
    """
    state = {name: tensor.detach().cpu() for name, tensor in net.state_dict().items()}
    with torch.random.fork_rng(devices=[]):
        ours, theirs = ResNet(net.config), build(net.config, library)
    ours.load_state_dict(state)
    theirs.load_state_dict(from_reslight(net.config, ours.state_dict(), library))
    size = net.config.input_size
    images = torch.randn(_IMAGES, net.config.in_channels, size, size, generator=torch.Generator().manual_seed(0))
    return compare_logits(_logits(ours.eval(), images), _logits(theirs.eval(), images))


@torch.inference_mode()
def _logits(net: nn.Module, images: Tensor) -> Tensor:
    """Compute logits (N, num_classes) of images (N, in_channels, H, W); transformers' networks return an object that holds them."""
    output = net(images)
    logits: Tensor = getattr(output, "logits", output)
    return logits


def _torchvision(package: Any, config: ResNetConfig) -> nn.Module:
    blocks = package.models.resnet
    block = blocks.Bottleneck if config.block == "bottleneck" else blocks.BasicBlock
    net: nn.Module = blocks.ResNet(
        block, list(config.depths), num_classes=config.num_classes, groups=config.groups, width_per_group=config.width_per_group
    )
    if config.in_channels != 3:  # torchvision has no argument for this; its users replace the layer
        net.conv1 = nn.Conv2d(config.in_channels, 64, 7, stride=2, padding=3, bias=False)
    return net


def _timm(package: Any, config: ResNetConfig) -> nn.Module:
    common = {"layers": list(config.depths), "num_classes": config.num_classes, "in_chans": config.in_channels}
    if config.preact:
        v2: nn.Module = package.create_model("resnetv2_50d" if config.avg_down else "resnetv2_50", **common)
        return v2
    net: nn.Module = package.create_model(
        "resnet50" if config.block == "bottleneck" else "resnet18",
        stem_type="deep" if config.stem == "deep" else "",
        stem_width=config.stem_width // 2,
        avg_down=config.avg_down,
        cardinality=config.groups,
        base_width=config.width_per_group,
        **common,
    )
    return net


def _transformers(package: Any, config: ResNetConfig) -> nn.Module:
    net: nn.Module = package.ResNetForImageClassification(package.ResNetConfig(**transformers_config(config)))
    return net


_BUILDERS: Mapping[str, Callable[[Any, ResNetConfig], nn.Module]] = MappingProxyType(
    {"torchvision": _torchvision, "timm": _timm, "transformers": _transformers}
)
