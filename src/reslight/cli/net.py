"""The setting `model.net`: its keys and values, what is typed of it on top of a file, and the network of `model.init_from`."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from reslight.data.image_folder.folder import IMAGENET
from reslight.messages import UsageError, suggestion
from reslight.models import ResNetConfig
from reslight.models.variants import VARIANTS
from reslight.plain import plain
from reslight.runs import config_files
from reslight.runs.folder import Run
from reslight.training.network import net_config
from reslight.weights import Record
from reslight.weights.interop.timm_folder import read_any_description
from reslight.weights.locate import locate

FIELDS = ("name", *(field.name for field in fields(ResNetConfig)))


def net_with(net: Any, typed: Iterable[tuple[str, Any]]) -> Any:
    """Return a network with what was typed applied in order.

    Args:
        net: The network of the configuration files: a name, a mapping, or None.
        typed: Keys and values: `model.net` replaces the network, `model.net.FIELD` changes it.
    """
    for key, value in typed:
        if key == "model.net":
            net = value
        else:
            named = net if isinstance(net, Mapping) else {} if net is None else {"name": net}
            net = {**named, key.removeprefix("model.net."): value}
    return net


def check_net_setting(key: str, value: Any, where: str) -> None:
    """Check the fields and the name in a setting `model.net` or `model.net.FIELD`.

    Args:
        key: The setting.
        value: Its value.
        where: The file, as part of a message.

    Raises:
        UsageError: an unknown field or network.
    """
    if key != "model.net":
        given: Mapping[str, Any] = {key.removeprefix("model.net."): value}
    else:
        given = value if isinstance(value, Mapping) else {"name": value}
    for name, inner in given.items():
        if name not in FIELDS:
            fix = suggestion(f"model.net.{name}", [f"model.net.{field}" for field in FIELDS], f"Its fields are {', '.join(FIELDS)}.")
            raise UsageError(f"model.net.{name} is no setting{where}. {fix}")
        if name == "name" and isinstance(inner, str) and inner not in ("null", "None", *VARIANTS):
            fix = suggestion(inner, VARIANTS, "Use another name.", count=3)
            raise UsageError(f"{key} is {inner}{where}: there is no such network. {fix} `reslight models` lists all.")


def check_net_values(net: Any) -> None:
    """Check the values of a network's fields, with the names and values as in a configuration.

    Raises:
        UsageError: a value that is not allowed.
    """
    try:
        net_config(net)
    except UsageError as error:
        text = re.sub(r"\((\d[\d, ]*?),?\)", r"[\1]", re.sub(r"^(\S+) is '(.*?)':", r"\1 is \2:", str(error)))
        is_field = re.split(r"\W", text, maxsplit=1)[0] in FIELDS
        raise UsageError(f"model.net.{text}" if is_field else text) from error


def check_net_of_run(net: Any, run: Run) -> None:
    """Check that a network is that of a run, so that its name does not lead to another run.

    Args:
        net: The setting in use.
        run: The run whose configuration was given.

    Raises:
        UsageError: another network.
    """
    name, own = config_files.net_name(net), config_files.net_in(run.config)
    if name not in (None, own):
        raise UsageError(f"model.net is {name}: the run {run.shown} has {own or 'another network'}. Leave it out.")


def begin_with_weights(settings: Any, contents: Mapping[str, Any] | None) -> None:
    """Put the network of `model.init_from` and its preprocessing into a configuration, so that the run does not need the weights later.

    Args:
        settings: The configuration, which is changed.
        contents: Of the checkpoint that training resumes from: it has weights of its own, and those of `model.init_from` may be gone.

    Raises:
        OSError: no such weights.
        UsageError: weights that cannot be read.
    """
    if contents:
        net, weights = contents["hyper_parameters"]["net"], contents["reslight"]["data"]["preprocess"]
        settings.model.init_from = None
    else:
        record = _initial_weights(settings.model.init_from)
        net, weights = record.net.to_dict(), record.preprocess.to_dict()
    if settings.model.net is None:
        settings.model.net = {key: value for key, value in net.items() if key not in ("num_classes", "in_channels")}
    data = settings.data.get("init_args") or {}  # a class without arguments has none
    if "preprocess" in data:
        usual = plain(IMAGENET)
        for name, value in vars(data["preprocess"]).items():
            if plain(value) == usual[name]:  # the user's own settings are kept
                data["preprocess"][name] = weights.get(name, usual[name])  # weights have no fields with the default


def _initial_weights(source: str) -> Record:
    try:
        return read_any_description(locate(source)).record
    except (OSError, UsageError) as error:
        raise type(error)(f"model.init_from is {source}: {error}") from error
