"""The problems that `reslight data check` finds."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from reslight.messages import visible

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "layout": "wrong layout",
        "folder": "folder that cannot be opened",
        "empty class": "class without images",
        "name": "class with an unprintable name",
        "unknown class": "class that is missing in training",
        "labels": "label file that does not match",
        "unlisted": "image without a row in the label file",
        "group": "group in more than one split",
        "misplaced": "image outside the folders of classes",
        "other": "file without an image extension",
        "link": "broken link",
        "special": "pipe, socket or device",
        "empty": "empty file",
        "truncated": "truncated image",
        "unreadable": "unreadable image",
        "bomb": "image too large to decode",
        "leak": "copy of an image of another split",
        "contradiction": "copy of an image of another class",
    }
)
"""Problem kinds and the message shown for each."""


@dataclass(frozen=True)
class Problem:
    """A problem with one file or folder."""

    kind: str
    """One of KINDS."""
    path: str
    """The file or folder; for an image inside a file, its name in messages."""
    text: str
    """The problem and what to do about it, as the rest of a sentence that begins with the path."""

    def __str__(self) -> str:
        """Return one printable line, whatever characters the path has."""
        return visible(f"{self.path} {self.text}".strip(), 10_000)
