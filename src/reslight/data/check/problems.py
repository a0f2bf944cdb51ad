"""What may be wrong with a set of images."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from reslight.messages import UsageError

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "layout": "no images in folders of classes",
        "folder": "folder that cannot be opened",
        "empty class": "class without an image",
        "unknown class": "class that training has not",
        "labels": "label file that does not fit",
        "misplaced": "image outside of every class's folder",
        "other": "file that is not called as an image is",
        "link": "link to what is not there",
        "empty": "empty file",
        "truncated": "image that was cut short",
        "unreadable": "image that cannot be read",
        "bomb": "image too large to be decoded",
        "leak": "copy of an image of another part",
        "contradiction": "copy of an image of another class",
    }
)
"""What may be wrong, and what a person reads of it."""


@dataclass(frozen=True)
class Problem:
    """Something wrong."""

    kind: str
    """One of KINDS."""
    path: str
    """The file or folder; an image within a file by what it is called in messages."""
    text: str
    """What is wrong with it, to be read behind the path."""

    def __post_init__(self) -> None:
        """Check the kind.

        Raises:
            ValueError: There is none of that name.
        """
        if self.kind not in KINDS:
            raise UsageError(f"the kind of a problem is {self.kind!r}, must be one of: {', '.join(KINDS)}")

    def __str__(self) -> str:
        """One line that can be printed, whatever is in a file's name."""
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in f"{self.path} {self.text}")
