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
        "resnet20.cifar10": Published(accuracy=92.45, sha256="99b99ac0a671348f6c14ea34815efdb748317d09d385a87f044e84824d5929da"),
        "resnet32.cifar10": Published(accuracy=93.42, sha256="762aa6d0209a08c02b06b9630386186afe45ba9ad346f68b8262ecc64af2653f"),
        "resnet44.cifar10": Published(accuracy=93.64, sha256="c004c95f27078d89ff32405ae98ab386d6bcb692feb64b2aa36bf34a486d6a6a"),
        "resnet56.cifar10": Published(accuracy=93.82, sha256="22d715ec6783e02be6b28fd7d1706c29a2d9bb54c3d93fb808fda6b846c1d5ec"),
        "resnet110.cifar10": Published(accuracy=94.06, sha256="4c1ca1cacf6c8f3c9febc18ee813bda97415f958ac1529585324b71c92777811"),
        "resnet18_cifar.cifar10": Published(accuracy=94.97, sha256="9c33768704c376d1abd97dd91ff202ae33d5188e2c07153f7758279a608823c2"),
        "plain20.cifar10": Published(accuracy=91.35, sha256="ae08bcdb6a243058b5102c14b0d7e7d3511c333475b1ba46f5208c509da09e3c"),
        "plain56.cifar10": Published(accuracy=87.82, sha256="770fe837160df15ad43a7ead4bb9a5d8a2faddb81472bbe11c7f87aa1428bd86"),
        "resnet20.cifar100": Published(accuracy=69.48, sha256="3339f93257a3eba4c7989113d7d17abd5b8832356d5c09aa132c869c473f47e1"),
        "resnet32.cifar100": Published(accuracy=70.94, sha256="4446dfec792d53b69849b9be7813c08f9ecfb7e00333f020763d5083801b1e7d"),
        "resnet44.cifar100": Published(accuracy=72.07, sha256="7fe38b8ce57e0a10e5847da3f68a9c6af614daac8b78b843bb7c99d20a48bf5b"),
        "resnet56.cifar100": Published(accuracy=72.76, sha256="f2c3556bbeb4790fb4a1824be9c4a978892c157c172d9855d7a7389c059ed637"),
        "resnet110.cifar100": Published(accuracy=73.75, sha256="d01548fb6474baa2b5c75485bb27d7bd1f3614a7d19146cdcd3e3329034da85c"),
        "resnet20.cifar10-100": Published(accuracy=74.72, sha256="ded827b20f18dea32bf904c2235afcd2dd4bdca5723a7d245380f0156dab0d05"),
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
