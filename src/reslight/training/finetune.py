"""Build the network that a run starts with: random or published weights, optionally with frozen parts."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from reslight.messages import UsageError, counted
from reslight.models import ResNet, ResNetConfig
from reslight.renamed import new_value
from reslight.training.network import NetSetting, net_config
from reslight.training.resume import FREE_IN_NET
from reslight.weights import load
from reslight.weights.interop.timm_config import first_conv

log = logging.getLogger(__name__)

BACKBONE = "backbone"
"""Value of `model.freeze` for everything before the classifier."""


def initial_net(source: str | None, net: NetSetting | None, num_classes: int | None, in_channels: int | None) -> ResNet:
    """Build the network to train: with random weights, or with published weights and a new classifier.

    Args:
        source: Initial weights, as `reslight.load` takes them: a published weight, a folder, `OWNER/NAME[@REVISION]` or `timm/NAME`;
            random weights if None.
        net: The setting `model.net`. With `source`, None, the network of the weights, or a mapping with `drop_path` and the like.
        num_classes: Classes of the classifier; those of `net` or of the weights if None.
        in_channels: Channels of the images; those of `net` or of the weights if None. If the weights have others, see `with_channels`.

    Raises:
        OSError: missing weights.
        UsageError: no network, damaged weights, or another network than that of the weights.
    """
    if source is None:
        if net is None:
            raise UsageError("model.net is missing: a run needs a network. Set --model.net, --model.init_from, or a --config with one.")
        return ResNet(net_config(net, num_classes=num_classes, in_channels=in_channels))
    pretrained = load(source)
    known = pretrained.config.in_channels
    channels = in_channels or known
    result = ResNet(replace(pretrained.config, in_channels=channels, **_training_fields(source, pretrained.config, net)))
    state = pretrained.float().state_dict()
    if channels != known:
        log.info(
            "model.init_from is %s: it takes images of %s, so that the weights of its first convolution are %s for %d",
            *(source, counted(known, "channel"), "added up" if channels == 1 else "repeated", channels),
        )
        name = f"{first_conv(pretrained.config)}.weight"
        state[name] = with_channels(state[name], channels)
    result.load_state_dict(state)
    result.preprocess = pretrained.preprocess if channels == known else None
    result.reset_head(num_classes or pretrained.config.num_classes)
    return result


def with_channels(weight: Tensor, channels: int) -> Tensor:
    """Return the weights of a first convolution for another number of channels, as `adapt_input_conv` of timm does.

    For one channel they are added up. For others, the channels are repeated in their order, scaled so that the sums stay alike.

    Args:
        weight: `(O, C, K, K)`.
        channels: Of the result.
    """
    if channels == 1:
        return weight.sum(1, keepdim=True)
    known = weight.shape[1]
    return weight[:, torch.arange(channels) % known] * (known / channels)


def _training_fields(source: str, pretrained: ResNetConfig, net: NetSetting | None) -> dict[str, Any]:
    """Return the fields of `net` that differ from the pretrained network's; only those that leave the weights alone may differ."""
    if net is None:
        return {}
    known = pretrained.to_dict()
    wanted = known | dict(net) if isinstance(net, Mapping) and not {"name", "depths"} & net.keys() else net_config(net).to_dict()
    differing = {key: value for key, value in wanted.items() if known.get(key) != value and key not in ("num_classes", "in_channels")}
    if other := sorted(differing.keys() - FREE_IN_NET):
        fields = ", ".join(f"{key} {wanted[key]} and not {known.get(key)}" for key in other)
        raise UsageError(f"model.net has {fields}: it must be the network of model.init_from ({source}). Remove model.net.")
    return differing


def frozen_parts(net: ResNet, through: str | None) -> list[nn.Module]:
    """Return the modules that training leaves unchanged, running statistics of batch norms included.

    Args:
        net: The network.
        through: The last frozen part, with all parts before it: `stem`, `layer1` and so on; `backbone` for everything but the
            classifier; None for none.

    Raises:
        UsageError: a part that the network does not have.
    """
    if through is None:
        return []
    parts = dict(_parts(net))
    through = new_value("model.freeze", through)
    if through != BACKBONE and through not in parts:
        raise UsageError(f"model.freeze is {through}: it must be {', '.join(parts)}, {BACKBONE} or null.")
    last = len(parts) if through == BACKBONE else list(parts).index(through) + 1
    return [module for modules in list(parts.values())[:last] for module in modules]


def _parts(net: ResNet) -> Iterator[tuple[str, list[nn.Module]]]:
    """Yield the parts before the classifier, in order; the last norm of a pre-activation network belongs to the last stage."""
    yield "stem", [net.conv1, *([] if net.config.preact else [net.bn1])]
    *stages, last = net.config.stage_names
    for name in stages:
        yield name, [net.get_submodule(name)]
    yield last, [net.get_submodule(last), *([net.bn] if net.config.preact else [])]
