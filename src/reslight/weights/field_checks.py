"""Checks of single fields of config.json, which a stranger may have written."""

import re
import reprlib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from reslight.messages import UsageError, check_keys, has_control


def check_object(name: str, value: Any, kind: type) -> Mapping[str, Any]:
    """Check that a value is an object with the fields of a dataclass as its keys, where those with a default may be missing; return it.

    Raises:
        UsageError: no object, or an unknown or missing key.
    """
    if not isinstance(value, Mapping):
        raise UsageError(f"{name} is {reprlib.repr(value)}: it must be an object.")
    names = {one.name: one.default is MISSING for one in fields(kind)}
    check_keys(value, list(names), [one for one, is_needed in names.items() if is_needed], name)
    return value


def check_sum(name: str, value: object) -> None:
    """Check a sha256.

    Raises:
        UsageError: another value.
    """
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
        raise UsageError(f"{name} is {reprlib.repr(value)}: it must be 64 hexadecimal digits.")


def check_count(name: str, value: object, where: str = "metrics") -> None:
    """Check a number of images, labels or bytes.

    Raises:
        UsageError: another value than a whole number from 0.
    """
    if type(value) is not int or not 0 <= value < 2**53:
        raise UsageError(f"{where}.{name} is {reprlib.repr(value)}: it must be a whole number, at least 0.")


def check_text(name: str, value: object, longest: int) -> None:
    """Check a line of text.

    Raises:
        UsageError: no text, an empty or longer one, or control characters.
    """
    if not isinstance(value, str) or not 1 <= len(value) <= longest or has_control(value):
        raise UsageError(f"{name} has {reprlib.repr(value)}: it must be one line of text, at most {longest:,} characters long.")
