"""`import_package`: the packages of a format, which are an extra."""

from importlib import import_module
from typing import Any

from reslight.messages import MissingPackageError


def import_package(format: str, name: str) -> Any:
    """Import a module that a format needs.

    Args:
        format: The format, as users write it; in small letters the name of the extra.
        name: The module.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise MissingPackageError(
            f"{package} is not installed: the format {format} needs it. Run pip install 'reslight[{format.lower()}]'."
        ) from None
