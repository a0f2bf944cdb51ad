"""What a person calls a repository of the Hub: OWNER/NAME, and which state of it."""

import re
from dataclasses import dataclass
from typing import Self

from reslight.messages import UsageError

_REVISION = r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,250}"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"


@dataclass(frozen=True)
class Repository:
    """A model repository of the Hub.

    Attributes:
        name: `OWNER/NAME`.
        revision: A branch, a tag or a commit; None for main.
    """

    name: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `OWNER/NAME` or `OWNER/NAME@REVISION`.

        Raises:
            ValueError: It is neither.
        """
        found = re.fullmatch(rf"({_NAME}/{_NAME})(?:@({_REVISION}))?", text)
        if not found or ".." in text or "--" in found[1]:
            raise UsageError(f"{text[:200]!r} is no repository of the Hub; write OWNER/NAME or OWNER/NAME@REVISION")
        return cls(found[1], found[2])

    def __str__(self) -> str:
        """As it is typed."""
        return self.name + (f"@{self.revision}" if self.revision else "")
