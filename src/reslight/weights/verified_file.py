"""`VerifiedFile`: an exported file that was evaluated in its own runtime, see deploy/verify.py."""

from dataclasses import asdict, dataclass
from typing import Any, Self

from reslight.messages import UsageError
from reslight.weights.field_checks import check_count, check_object, check_sum, check_text

MOST = 20
"""Files of which config.json may tell."""


@dataclass(frozen=True, kw_only=True)
class VerifiedFile:
    """What an exported file of these weights got right in its own runtime."""

    format: str
    """Name of the format, such as `onnx`."""
    precision: str
    """`float32` or `int8`."""
    nbytes: int
    """Size of the file, and of the files that belong to it, in bytes."""
    sha256: str
    """Of the file."""
    runtime: str
    """What ran it, such as `onnxruntime 1.30.0`."""
    split: str
    """`test` or `val`."""
    total: int
    """Number of images."""
    correct: int
    """Number of images whose most probable class is the label; with several labels, of which the predicted classes are the labels."""
    same: int
    """Number of images for which the network in torch predicts the same, right or wrong."""
    fingerprint: str
    """sha256 of the split's images and labels in canonical order."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            UsageError: a value of the wrong type, or an impossible one.
        """
        for name in ("format", "precision", "runtime", "split"):
            check_text(f"files.{name}", getattr(self, name), 100)
        for name in ("nbytes", "total", "correct", "same"):
            check_count(name, getattr(self, name), "files")
        if not (self.total > 0 and max(self.correct, self.same) <= self.total):
            raise UsageError(f"files count {self.correct} correct and {self.same} same of {self.total} images: at most all can be.")
        for name in ("sha256", "fingerprint"):
            check_sum(f"files.{name}", getattr(self, name))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """Return what `to_dict` gave `data` for.

        Raises:
            UsageError: no object, an unknown or missing key, or a value that is not allowed.
        """
        return cls(**check_object("an entry of files", data, cls))
