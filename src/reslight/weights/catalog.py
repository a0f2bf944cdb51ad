"""The weights that are published: one literal row each, and no row without its weight."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType


@dataclass(frozen=True, kw_only=True)
class Published:
    """Where a weight is, and what it is worth.

    Attributes:
        accuracy: Top-1 on the test set, in per cent, as its config.json counts it.
        repository: `OWNER/NAME` on the Hub; None for one that comes with the package.
        revision: The commit there, 40 hexadecimal digits.
    """

    accuracy: float
    repository: str | None = None
    revision: str | None = None


CATALOG: Mapping[str, Published] = MappingProxyType(
    {
        "resnet8.digits": Published(accuracy=99.17),
    }
)
"""By name: architecture, data set, and a recipe where there are several."""


def list_weights(pattern: str = "*") -> list[str]:
    """Names of the published weights that match a shell-style pattern, in the table's order."""
    return [name for name in CATALOG if fnmatchcase(name, pattern)]


def bundled(name: str) -> Path:
    """The folder of a weight that comes with the package."""
    return Path(str(files("reslight") / "weights" / "bundled" / name))
