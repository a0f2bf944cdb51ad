"""Settings that changed their name: configurations and checkpoints with the old names are still read."""

from collections.abc import Mapping
from typing import Any

KEYS: Mapping[str, str] = {
    "model.optim.body_lr": "backbone_lr",
    "data.augment.erase": "random_erasing",
    "data.mix.share": "prob",
    "data.repeats": "repeated_augmentation",
    "data.crop.shorter": "short_side",
}
"""Old key, with dots, and the last part of the new one."""
VALUES: Mapping[str, Mapping[str, str]] = {
    "model.freeze": {"body": "backbone"},
    "data.crop.kind": {"centre": "center"},
    "data.test_views": {"centre": "center"},
    "data.on_bad_image": {"stop": "raise"},
}
"""Old values of a setting, and the new ones."""


def new_key(key: str) -> str:
    """Return today's name of a setting, with dots; the name itself where it did not change."""
    return f"{key.rpartition('.')[0]}.{KEYS[key]}" if key in KEYS else key


def new_value(key: str, value: Any) -> Any:
    """Return today's name of a setting's value; `key` is the setting's old or new name, with dots."""
    return VALUES.get(key, {}).get(value, value) if isinstance(value, str) else value


def with_new_names(settings: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return nested settings under today's names.

    Args:
        settings: Plain settings, such as the hyper-parameters of a checkpoint.
        prefix: Where they belong in a configuration: `model` or `data`.
    """
    result: dict[str, Any] = {}
    for name, value in settings.items():
        key = f"{prefix}.{name}"
        inside = with_new_names(value, key) if isinstance(value, Mapping) else new_value(key, value)
        result[new_key(key).rpartition(".")[2]] = inside
    return result
