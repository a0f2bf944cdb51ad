"""Training that begins with published weights: their network under a new classifier, and parts of it left as they are."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from reslight.messages import UsageError
from reslight.models import ResNet, ResNetConfig
from reslight.training.network import net_config
from reslight.training.resume import FREE_IN_NET
from reslight.weights import load

BODY = "body"


Stated = str | Mapping[str, Any] | ResNetConfig | None
"""What a configuration says of a network."""


def initial_net(source: str, net: Stated, num_classes: int | None, in_channels: int | None) -> ResNet:
    """The network of some weights, with a new classifier.

    Args:
        source: What `reslight.load` takes: a published weight, a folder, `OWNER/NAME[@REVISION]`, `timm/NAME`.
        net: What a configuration says of the network: nothing, the same, or `drop_path` and the like on top of it.
        num_classes: Classes of the new classifier; as many as before if None.
        in_channels: Channels of the images; as before if None.

    Raises:
        OSError: There are no such weights.
        ValueError: They are damaged, or do not fit.
    """
    there = load(source)
    if in_channels not in (None, there.config.in_channels):
        raise UsageError(f"model.init_from {source} takes images of {there.config.in_channels} channels, and the data have {in_channels}")
    made = ResNet(replace(there.config, **_changed(source, there.config, net)))
    made.load_state_dict(there.float().state_dict())
    made.preprocess = there.preprocess
    made.reset_head(num_classes or there.config.num_classes)
    return made


def _changed(source: str, there: ResNetConfig, net: Stated) -> dict[str, Any]:
    """The fields of a network in which a configuration may differ from the weights'."""
    if net is None:
        return {}
    alone = isinstance(net, Mapping) and not {"name", "depths"} & net.keys()
    stated = there.to_dict() | dict(net) if alone and isinstance(net, Mapping) else net_config(net).to_dict()
    known = there.to_dict()
    changed = {key: value for key, value in stated.items() if known.get(key) != value and key not in ("num_classes", "in_channels")}
    if other := sorted(changed.keys() - FREE_IN_NET):
        said = ", ".join(f"{key} {stated[key]} and not {known.get(key)}" for key in other)
        raise UsageError(f"model.net has {said}, as model.init_from {source} has; leave model.net out")
    return changed


def frozen_parts(net: ResNet, through: str | None) -> list[nn.Module]:
    """The modules that training leaves as they are, batch norms' running statistics included.

    Args:
        net: The network.
        through: The last part that is frozen, with all before it: `stem`, `layer1` and so on; `body`, all but the classifier;
            None for nothing.

    Raises:
        ValueError: The network has no such part.
    """
    parts = dict(_parts(net))
    names = [*parts, BODY]
    if through is None:
        return []
    if through not in names:
        raise UsageError(f"model.freeze is {through!r}; it must be one of {', '.join(names)}, or null for nothing")
    last = len(parts) if through == BODY else list(parts).index(through) + 1
    return [module for modules in list(parts.values())[:last] for module in modules]


def _parts(net: ResNet) -> Iterator[tuple[str, list[nn.Module]]]:
    """What comes before the classifier, in order; the norm after the last stage of a pre-activation network belongs to that stage."""
    yield "stem", [net.conv1, *([] if net.config.preact else [net.bn1])]
    *stages, last = net.config.stage_names
    for name in stages:
        yield name, [net.get_submodule(name)]
    yield last, [net.get_submodule(last), *([net.bn] if net.config.preact else [])]
