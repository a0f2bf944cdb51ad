"""From what a configuration says of a network, and what the data ask of it, to a ResNetConfig."""

from collections.abc import Mapping
from typing import Any

from reslight.messages import UsageError
from reslight.models import ResNetConfig, resolve_config
from reslight.preprocess import Preprocess


def net_config(net: str | Mapping[str, Any] | ResNetConfig, **data: int | None) -> ResNetConfig:
    """Resolve `net`, with the data's classes and channels where `net` does not say.

    Args:
        net: A name; a mapping of ResNetConfig's fields, alone or on top of a `name`; or a ResNetConfig.
        **data: `num_classes` and `in_channels` of the data; None where they are not known.

    Raises:
        ValueError: The network does not exist, or contradicts the data.
    """
    known = {name: value for name, value in data.items() if value is not None}
    if isinstance(net, str):
        return resolve_config(net, **known)
    stated = net.to_dict() if isinstance(net, ResNetConfig) else net
    for name, value in known.items():
        if name in stated and stated[name] != value:
            raise UsageError(f"model.net says {name} {stated[name]} and the data have {value}; leave {name} out of model.net")
    fields = {**stated, **known}
    if "name" in fields:
        return resolve_config(fields.pop("name"), **fields)
    if not {"depths", "widths"} <= fields.keys():
        raise UsageError(f"model.net is {dict(stated)}; it must have a name, such as resnet20, or depths and widths")
    return resolve_config(ResNetConfig(depths=fields.pop("depths"), widths=fields.pop("widths")), **fields)


def check_data(config: ResNetConfig, data: Mapping[str, Any], feed: Preprocess | None = None) -> list[str]:
    """Compare what the data are with what a network takes.

    Args:
        config: The network.
        data: What the data module's `describe()` says.
        feed: How its first weights were fed, if they are not new.

    Returns:
        Warnings, if the network takes them but should not be given them.

    Raises:
        ValueError: It cannot take them.
    """
    name, warnings = data["name"], []
    for field, there in (("num_classes", "classes"), ("in_channels", "channels")):
        wanted = getattr(config, field)
        if data[field] != wanted:
            raise UsageError(f"{name} has {data[field]} {there} and the network has {wanted}; set model.{field} to the data's")
    if config.stem != "small" and data["image_size"] <= 64:
        warnings.append(
            f"the {config.stem} stem halves the image twice before the first block: too much for images of {data['image_size']} pixels; "
            "take a network with the small stem, such as resnet18_cifar"
        )
    here = data.get("preprocess", {})
    if feed and (other := [key for key in ("mean", "std") if here.get(key, list(getattr(feed, key))) != list(getattr(feed, key))]):
        said = " and ".join(f"{key} {here[key] if len(here[key]) < 10 else 'of each pixel'}" for key in other)
        warnings.append(f"{name} is normalised with {said}, and the images that model.init_from was trained on were not")
    return warnings
