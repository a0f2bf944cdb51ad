"""Errors that the classes of a configuration raise when they are made, by the name of the setting.

jsonargparse makes a class of each type that a setting may have, and reports all that goes wrong: the one error that matters is kept here.
"""

from functools import partial
from typing import Any, NoReturn

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser

from reslight.cli.errors import one_line, package_to_install
from reslight.cli.settings import CHOICES
from reslight.messages import MissingPackageError, UsageError


class Refusals:
    """The first error of a class that `parser` makes for one of the Trainer's settings in `CHOICES`."""

    def __init__(self, parser: LightningArgumentParser) -> None:
        self.first: tuple[str, Exception] | None = None
        for key, (base, _, _) in CHOICES.items():
            if key != "data":  # Lightning has its own way of making it
                parser.add_instantiator(partial(self._make, key), base)

    def _make(self, key: str, cls: type, *args: Any, **kwargs: Any) -> Any:
        try:
            return cls(*args, **kwargs)
        except Exception as error:
            self.first = self.first or (f"{key} is {cls.__name__}", error)
            raise

    def raise_first(self) -> None:
        """Raise the first error, if there was one, in one line: see `_raise_named`."""
        if self.first:
            _raise_named(*self.first)


def _raise_named(name: str, error: Exception) -> NoReturn:
    """Raise the error of a class again.

    Args:
        name: The setting and the class.
        error: The error.

    Raises:
        UsageError: the class refuses its settings, or a package that it needs is missing.
        OSError: a file or a server that it cannot reach.
        Exception: the error itself, which is a mistake in the class.
    """
    if isinstance(error, UsageError) or (isinstance(error, OSError) and error.errno):
        raise error
    if isinstance(error, OSError):
        kind = ConnectionError if isinstance(error, ConnectionError | TimeoutError) else OSError
        raise kind(f"{name}: {one_line(error)}") from error
    if isinstance(error, ImportError):
        package = package_to_install(error)
        text = f"it needs {package}. Run pip install '{package}'." if package else f"{one_line(error)} Install the package."
        raise MissingPackageError(f"{name}: {text}") from error
    if isinstance(error, ValueError | TypeError | MisconfigurationException):
        raise UsageError(f"{name}: {one_line(error)}") from error
    raise error
