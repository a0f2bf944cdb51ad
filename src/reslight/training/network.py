"""Resolve the setting `model.net` to a ResNetConfig, and check that the data fit the network."""

from collections.abc import Mapping
from typing import Any

from reslight.messages import UsageError
from reslight.models import ResNetConfig, resolve_config
from reslight.preprocess import Preprocess

NetSetting = str | Mapping[str, Any] | ResNetConfig
"""A network's name; a mapping of ResNetConfig's fields, alone or on top of a `name`; or a ResNetConfig."""
_SMALL_IMAGE = 64
_MOST_SHOWN = 10


def net_config(net: NetSetting, **data: int | None) -> ResNetConfig:
    """Return the network's configuration, with the data's classes and channels where `net` does not give them.

    Args:
        net: The network.
        **data: `num_classes` and `in_channels` of the data; None if unknown.

    Raises:
        UsageError: an unknown network, or one that contradicts the data.
    """
    known = {name: value for name, value in data.items() if value is not None}
    if isinstance(net, str):
        return resolve_config(net, **known)
    given = net.to_dict() if isinstance(net, ResNetConfig) else net
    for name, value in known.items():
        if name in given and given[name] != value:
            raise UsageError(f"model.net.{name} is {given[name]}: {name} of the data, or as given, is {value}. Leave out one of them.")
    fields = {**given, **known}
    if "name" in fields:
        return resolve_config(fields.pop("name"), **fields)
    if not {"depths", "widths"} <= fields.keys():
        raise UsageError(f"model.net is {dict(given)}: it must have a name, such as resnet20, or depths and widths.")
    return resolve_config(ResNetConfig(depths=fields.pop("depths"), widths=fields.pop("widths")), **fields)


def check_kind_of_labels(multi_label: bool, data_info: Mapping[str, Any]) -> None:
    """Check that a classifier is for the kind of labels that the data have.

    Raises:
        UsageError: several labels of each image, and a classifier for one; or one label, and a classifier for several.
    """
    has = bool(data_info.get("multi_label"))
    if has != multi_label:
        kind = "several labels for each image" if has else "one label for each image"
        raise UsageError(f"model.multi_label is {multi_label}: {data_info['name']} has {kind}. Set model.multi_label to {has}.")


def check_data_info(config: ResNetConfig, data_info: Mapping[str, Any], preprocess: Preprocess | None = None) -> list[str]:
    """Check that a network can be trained or evaluated on some data.

    Args:
        config: The network.
        data_info: The data module's information about the data.
        preprocess: What the initial weights were trained with; None for random weights.

    Returns:
        Warnings about data that the network takes but does not suit.

    Raises:
        UsageError: another number of classes or channels than the network's.
    """
    name, warnings = data_info["name"], []
    for field, plural in (("num_classes", "classes"), ("in_channels", "channels")):
        has, wants = data_info[field], getattr(config, field)
        if has != wants:
            raise UsageError(f"model.{field} is {wants}: {name} has {has} {plural}. Set model.{field} to {has}.")
    size = data_info["image_size"]
    size = size if isinstance(size, int) else min(size)
    if config.stem != "small" and size <= _SMALL_IMAGE:
        warnings.append(
            f"the {config.stem} stem halves images twice before the first block, which is too much for {size} pixels. "
            "Use a network with the small stem, such as resnet18_cifar."
        )
    used = data_info.get("preprocess", {})
    if preprocess is None:
        return warnings
    trained = {key: list(getattr(preprocess, key)) for key in ("mean", "std")}
    if other := [key for key in trained if used.get(key, trained[key]) != trained[key]]:
        values = " and ".join(f"{key} {used[key] if len(used[key]) < _MOST_SHOWN else 'of each pixel'}" for key in other)
        warnings.append(f"{name} is normalized with {values}, unlike the images that model.init_from was trained on.")
    return warnings
