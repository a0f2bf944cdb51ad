"""Read the description of a folder that timm wrote, or of one that reslight wrote."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reslight.messages import UsageError
from reslight.weights.folder import CONFIG, Description, describe, read_config
from reslight.weights.interop.convert import from_reslight
from reslight.weights.interop.timm_config import is_registered, record_of


def read_any_description(folder: Path) -> Description:
    """Read the config.json of a folder that reslight or timm wrote.

    Raises:
        FileNotFoundError: a missing folder or config.json.
        UsageError: a config.json that is damaged, or that neither wrote.
    """
    config = read_config(folder)
    return describe(config, folder) if "reslight" in config else describe_timm(config, folder)


def describe_timm(config: Mapping[str, Any], folder: Path) -> Description:
    """Return the description in the contents of a config.json that timm wrote.

    Raises:
        UsageError: contents that are damaged, of a network that reslight does not have, or not written by timm.
    """
    try:
        record = record_of(config)
    except UsageError as error:
        raise UsageError(f"{folder / CONFIG}: {error}") from None
    if is_registered(config):
        return Description(record, {}, folder)
    return Description(record, {}, folder, as_in_file=lambda state: from_reslight(record.net, state, "timm"))
