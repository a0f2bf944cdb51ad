"""Read JSON that others wrote: its size is bounded, and only what JSON's standard defines is accepted.

Python's json accepts NaN, lets the last of two equal keys win, and answers deep nesting with a RecursionError.
"""

import json
import reprlib
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from reslight.messages import UsageError

MAX_BYTES = 8 * 2**20
"""Largest config.json that is read: a mean image of 224 x 224 pixels fits."""
_MAX_DIGITS = 19
_FIX = "Correct it, or get it again."


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        FileNotFoundError: a missing file.
        UsageError: a file that is too large, or not an object of standard JSON.
    """
    if (size := path.stat().st_size) > MAX_BYTES:
        raise UsageError(f"{path} has {size:,} bytes: at most {MAX_BYTES:,} are read. It does not describe weights.")
    return parse_json(path.read_bytes(), str(path))


def parse_json(text: bytes, name: str) -> dict[str, Any]:
    """Return the JSON object in UTF-8 text, which messages call `name`.

    Raises:
        UsageError: text that is not an object of standard JSON: a repeated key, NaN, a number beyond 64 bits, or deep nesting.
    """
    try:
        value = json.loads(text.decode(), object_pairs_hook=_object, parse_constant=_refuse_constant, parse_int=_integer)
    except RecursionError:
        raise UsageError(f"{name} is nested too deeply. {_FIX}") from None
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError, too
        raise UsageError(f"{name} is not standard JSON: {error}. {_FIX}") from None
    if not isinstance(value, dict):
        raise UsageError(f"{name} is not a JSON object. {_FIX}")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        repeated = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise UsageError(f"the key {reprlib.repr(repeated)} is repeated")
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise UsageError(f"{name} is not a number in JSON")


def _integer(digits: str) -> int:
    if len(digits.removeprefix("-")) > _MAX_DIGITS:
        raise UsageError(f"a number has {len(digits)} digits: at most {_MAX_DIGITS} are read")
    return int(digits)
