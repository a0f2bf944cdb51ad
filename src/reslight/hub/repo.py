"""`Repository`: OWNER/NAME of a model, dataset or Space on the Hub, and which state of it."""

import re
from dataclasses import dataclass
from typing import Literal, Self

from reslight.messages import UsageError

_REVISION = r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,250}"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
Kind = Literal["model", "dataset", "space"]


@dataclass(frozen=True)
class Repository:
    """A repository of the Hub.

    Attributes:
        name: `OWNER/NAME`.
        revision: A branch, a tag or a commit; None for main.
        kind: What the repository holds.
    """

    name: str
    revision: str | None = None
    kind: Kind = "model"

    @classmethod
    def parse(cls, text: str, kind: Kind = "model") -> Self:
        """Read `OWNER/NAME` or `OWNER/NAME@REVISION`.

        Raises:
            UsageError: a text of another form.
        """
        found = re.fullmatch(rf"({_NAME}/{_NAME})(?:@({_REVISION}))?", text)
        if not found or ".." in text or "--" in found[1]:
            raise UsageError(f"{text[:200]!r} is not the name of a {kind} on the Hub. Write OWNER/NAME or OWNER/NAME@REVISION.")
        return cls(found[1], found[2], kind)

    @property
    def path(self) -> str:
        """The path of the repository's page on the Hub's site."""
        return self.name if self.kind == "model" else f"{self.kind}s/{self.name}"

    def __str__(self) -> str:
        """Return the name as it is typed."""
        return self.name + (f"@{self.revision}" if self.revision else "")
