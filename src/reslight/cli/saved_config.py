"""Write the configuration of a run so that it can be read again."""

import sys
from enum import Enum
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from reslight.atomic import write_files


def save_config(parser: ArgumentParser, config: Namespace, path: Path) -> None:
    """Save a configuration as YAML, whole or not at all, with all defaults that YAML can hold.

    Args:
        parser: The parser that read the configuration.
        config: The configuration, which is changed.
        path: The file.
    """
    _remove_objects(config)
    write_files({path: parser.dump(config, skip_none=False).encode()})


def _remove_objects(value: Any) -> Any:
    """Remove what cannot be written, and make text of enumerations of texts.

    An object in a parsed configuration is the default of a class' argument, since nobody can write one: without the setting the class
    gets it again.
    """
    if isinstance(value, list):
        return [_remove_objects(one) for one in value]
    if isinstance(value, Namespace):
        for key in list(vars(value)):
            if _is_object(vars(value)[key]):
                delattr(value, key)
            else:
                setattr(value, key, _remove_objects(vars(value)[key]))
    return value.value if isinstance(value, str) and isinstance(value, Enum) else value


def _is_object(value: Any) -> bool:
    """Return whether a value is an instance of a class that neither Python nor jsonargparse brings."""
    if isinstance(value, Namespace | Enum | type) or callable(value):
        return False
    return type(value).__module__.partition(".")[0] not in sys.stdlib_module_names
