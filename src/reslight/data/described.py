"""What is said of data in checkpoints and cards: JSON types, of settings and of splits."""

from dataclasses import asdict
from typing import Any

from reslight.data.resident import AnySplit
from reslight.data.split import Split


def plain(settings: Any) -> dict[str, Any]:
    """A dataclass of settings."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(settings).items()}


def described_split(split: AnySplit) -> dict[str, Any]:
    """A split: its size, its fingerprint, and of images that stay files how many could not be read, if any."""
    skipped = 0 if isinstance(split, Split) else split.skipped
    return {"size": len(split), "fingerprint": split.fingerprint} | ({"skipped": skipped} if skipped else {})
