"""Read the JSON files of a run, which a full disk or an editor may have damaged."""

import json
from pathlib import Path
from typing import Any

from reslight.messages import UsageError
from reslight.regular_file import read_regular

_MAX_BYTES = 2**28
"""A confusion matrix of 5,000 classes fits, which reports once had; now the confusion of a million images."""


def read_json_file(path: Path, fix: str) -> dict[str, Any]:
    """Return the JSON object in a file of a run.

    Args:
        path: The file.
        fix: What to do about a damaged file, as a sentence.

    Raises:
        OSError: a file that is missing or cannot be read.
        UsageError: a file that is not a JSON object.
    """
    content = read_regular(path, _MAX_BYTES)
    try:
        value = json.loads(content.decode())
    except (ValueError, RecursionError, MemoryError):
        value = None
    if not isinstance(value, dict):
        raise UsageError(f"{path} is damaged: it is not a JSON object. {fix}")
    return value
