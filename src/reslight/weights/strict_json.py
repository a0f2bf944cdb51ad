"""JSON from strangers: bounded, without what JSON only half allows, and never a surprise for whoever reads it.

Python's json takes NaN, lets the last of two equal keys win, and answers deep nesting with a RecursionError.
"""

import json
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from reslight.messages import UsageError

MAX_BYTES = 8 * 2**20
"""Of a config.json: a mean image of 224 x 224 pixels fits."""
_MAX_DIGITS = 19


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is too large, or no object of plain JSON.
    """
    if (size := path.stat().st_size) > MAX_BYTES:
        raise UsageError(f"{path} has {size:,} bytes, more than the {MAX_BYTES:,} that are read; it is no description of weights")
    return parse_json(path.read_bytes(), str(path))


def parse_json(text: bytes, name: str) -> dict[str, Any]:
    """The object in UTF-8 text, which messages call `name`.

    Raises:
        ValueError: It is no object of plain JSON: a key twice, NaN, a number beyond 64 bits, or nested too deeply.
    """
    try:
        value = json.loads(text.decode(), object_pairs_hook=_object, parse_constant=_refuse_constant, parse_int=_integer)
    except RecursionError:
        raise UsageError(f"{name} is nested too deeply") from None
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError, too
        raise UsageError(f"{name} is not plain JSON: {error}") from None
    if not isinstance(value, dict):
        raise UsageError(f"{name} is not a JSON object")
    return value


def check_keys(there: Mapping[str, Any], known: tuple[str, ...], name: str) -> None:
    """Complain of keys that are not known and of known ones that are not there.

    Raises:
        ValueError: There are some.
    """
    unknown, missing = sorted(there.keys() - set(known)), [key for key in known if key not in there]
    said = [f"{what} {', '.join(map(reprlib.repr, keys[:5]))}" for what, keys in (("has unknown", unknown), ("lacks", missing)) if keys]
    if said:
        raise UsageError(f"{name} {' and '.join(said)}; its keys are {', '.join(known)}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise UsageError(f"the key {reprlib.repr(twice)} stands there twice")
    return made


def _refuse_constant(name: str) -> NoReturn:
    raise UsageError(f"{name} is no number of JSON")


def _integer(digits: str) -> int:
    if len(digits.removeprefix("-")) > _MAX_DIGITS:
        raise UsageError(f"a number of {len(digits)} digits is too large")
    return int(digits)
