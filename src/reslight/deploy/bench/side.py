"""`Side`: a row of the table, a network or an exported file with what was measured of it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reslight.deploy.classifier import Classifier
from reslight.deploy.formats import format_of
from reslight.models import ResNet
from reslight.weights.saving import model_bytes

BATCHES = (1, 32)
"""Images that are classified at once."""


@dataclass
class Side:
    """One row of the table.

    Attributes:
        name: What it is called.
        source: What a fresh process opens.
        classifier: The network or the file.
        nbytes: Size of the files.
        is_exact: Whether the network computes as it is, the reference of all rows.
        right: Images with the right answer; None without images.
        same: Images with the same answer as the reference; None without images or reference.
        per_second: Images a second by the size of the batch, a value a round.
        starts: Seconds of a fresh process until its first answer, a value a round.
    """

    name: str
    source: str
    classifier: Classifier
    nbytes: int
    is_exact: bool = False
    right: int | None = None
    same: int | None = None
    per_second: dict[int, list[float]] = field(default_factory=lambda: {batch: [] for batch in BATCHES})
    starts: list[float] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain JSON types."""
        return {
            "name": self.name,
            "backend": self.classifier.backend,
            "bytes": self.nbytes,
            "right": self.right,
            "same": self.same,
            "images_per_second": {str(batch): values for batch, values in self.per_second.items()},
            "start_seconds": self.starts,
        }


def network_sides(net: ResNet, source: str, prefix: str, threads: int) -> list[Side]:
    """Return the network as it is, and its quickest form."""
    nbytes = len(model_bytes(net))
    return [
        Side(f"{prefix}network, as it is", source, Classifier(net, threads=threads, exact=True), nbytes, is_exact=True),
        Side(f"{prefix}network, quick", source, Classifier(net, threads=threads), nbytes),
    ]


def file_side(name: str, path: Path, threads: int) -> Side:
    """Return an exported file."""
    return Side(name, str(path), Classifier(path, threads=threads), _size(path))


def _size(path: Path) -> int:
    """Return the size of an exported file and of those that belong to it."""
    found = format_of(path)
    return sum(one.stat().st_size for one in (found.files(path) if found else [path]))
