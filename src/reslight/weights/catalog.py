"""The table of published weights: one row each."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

from reslight.messages import UsageError


@dataclass(frozen=True, kw_only=True)
class Published:
    """Where published weights are, and how accurate they are.

    Attributes:
        accuracy: Top-1 accuracy on the test split, in percent, from the counts in config.json.
        sha256: sha256 of model.safetensors.
        repository: `OWNER/NAME` on the Hub; None for weights that come with the package.
        revision: The commit there, 40 hexadecimal digits.
    """

    accuracy: float
    sha256: str
    repository: str | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        """Check the row.

        Raises:
            UsageError: a repository without its commit, whose weights could change.
        """
        if (self.repository is None) != (self.revision is None) or not re.fullmatch(r"[0-9a-f]{40}|", self.revision or ""):
            raise UsageError(
                f"the revision of {self.repository} is {self.revision}: it must be a commit. Give the commit, 40 hexadecimal digits."
            )


CATALOG: Mapping[str, Published] = MappingProxyType(
    {
        "resnet20.cifar10": Published(accuracy=92.06, sha256="f119919f7315353ec7d6cd14c8248d5b4f17ab3dcb6dad5f14ae8857f3709211"),
        "resnet20.cifar100": Published(accuracy=69.10, sha256="ab0f95334726ed03290bde9fc813065dda36dddebc094d70a5fa9dd2d5a82314"),
        "resnet8.digits": Published(accuracy=99.17, sha256="62d441152d235daa4d3748dee93cbf13c6e0a8057e630e1e61d664d549efe6cc"),
    }
)
"""By name: architecture, dataset, and a recipe if there are several."""


def list_weights(pattern: str = "*") -> list[str]:
    """Return the names of the published weights that match a shell-style pattern, in the table's order."""
    return [name for name in CATALOG if fnmatchcase(name, pattern)]


def bundled(name: str) -> Path:
    """Return the folder of weights that come with the package."""
    config = Path(str(files("reslight") / "weights" / "bundled" / name / "config.json"))
    return config.resolve().parent  # some installers link the files of a package, and a folder of weights holds no links
