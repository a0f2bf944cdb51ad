"""What error messages are made of: the error of a user's mistake, near names, lists that are cut short, names by strangers."""

import difflib
import re
import reprlib
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any


class UsageError(ValueError):
    """A user's mistake, in one line: `<setting or file> is <value>: <what is allowed>. <what to do>`.

    The command line prints the line and exits with code 2. Any other exception is reported as a bug of reslight.
    """


class MissingPackageError(UsageError, ImportError):
    """An optional package that this step needs is not installed."""


def nearest(word: str, options: Iterable[str], count: int = 3) -> list[str]:
    """Return the options that look most like `word`, upper and lower case alike, best first; an empty list if none is similar."""
    by_lower = {option.lower(): option for option in options}
    word = word[:100].lower()  # a hostile word can be megabytes long, and difflib takes quadratic time
    found = difflib.get_close_matches(word, list(by_lower), n=max(1, len(by_lower)))

    def distance(option: str) -> tuple[float, int]:
        return -difflib.SequenceMatcher(None, option, word).ratio(), abs(_number_in(option) - _number_in(word))

    return [by_lower[one] for one in sorted(found, key=distance)[:count]]


def _number_in(text: str) -> int:
    """Return the number that the digits of a text make; 0 without digits. Of resnet32 and resnet20, resnet20 is nearer to resnet21."""
    return int("".join(digit for digit in text if digit in "0123456789") or 0)


def did_you_mean(word: str, options: Iterable[str], otherwise: str = "", *, count: int = 3) -> str:
    """Return `did you mean X or Y?` with the options nearest to `word`, or `otherwise` if none is near."""
    similar = nearest(word, options, count)
    return f"did you mean {' or '.join(similar)}?" if similar else otherwise


def suggestion(word: str, options: Iterable[str], otherwise: str, *, count: int = 1) -> str:
    """Return the sentence `Did you mean X?` with the options nearest to a word, or another sentence if none is near."""
    text = did_you_mean(word, options, otherwise, count=count)
    return f"{text[0].upper()}{text[1:]}"


_DIRECTIONS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that change the direction of the text around them."""


def is_control(character: str) -> bool:
    """Return whether a character can break a line, command a terminal or turn the direction of text; all others belong to a language."""
    return character in _DIRECTIONS or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def has_control(text: str) -> bool:
    """Return whether a text has a control character."""
    return not text.isprintable() and any(map(is_control, text))  # the first test is 50 times as fast, and refuses harmless characters, too


LONGEST_LABEL = 1000


def is_label(text: str) -> bool:
    """Return whether a text can be the name of a class: one line without control characters, of at most 1,000 characters."""
    return 1 <= len(text) <= LONGEST_LABEL and not has_control(text)


def visible(value: object, longest: int = 100) -> str:
    r"""Return what a stranger wrote, fit to be printed: control characters as escapes, such as `\x1b`, and a long text cut in its middle.

    Args:
        value: A name, label, path or message out of a file or from a server.
        longest: Characters that are kept.
    """
    text = str(value)
    if len(text) > longest:
        text = f"{text[: longest - longest // 3 - 3]}...{text[len(text) - longest // 3 :]}"
    if not has_control(text):
        return text
    return "".join(one.encode("unicode_escape").decode() if is_control(one) else one for one in text)


def unprintable(names: Iterable[str]) -> list[str]:
    """Return the class names that no report, model card or figure can hold, fit to be printed."""
    return [visible(name) for name in names if not is_label(name)]


def shortened(items: Collection[object], most: int = 3) -> str:
    """Return `a, b, c and 4 more`: the first `most` items, and how many follow."""
    listed = [str(item) for item in items]
    rest = f" and {len(listed) - most:,} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + rest


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: `1 check`, `1,200 checks`."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def as_sentence(text: object) -> str:
    """Return a text with a period at its end, unless it ends a sentence already."""
    return f"{text}" if str(text).endswith((".", "?", "!")) else f"{text}."


@contextmanager
def data_root_called(name: str, labels: str = "--labels") -> Iterator[None]:
    """Call the folder of the images and the label file in errors as a command does that is not configured.

    Args:
        name: What is data.root in a configuration.
        labels: What is data.labels there.

    Raises:
        OSError: what was raised inside.
        UsageError: what was raised inside.
    """
    try:
        yield
    except (OSError, UsageError) as error:
        text = re.sub(r"data\.labels\b", labels, str(error).replace("data.root", name))
        if text == str(error):
            raise
        raise type(error)(text) from error


def check_number(name: str, value: object, *, whole: bool = False) -> None:
    """Check that a setting is a number, in Python, where no parser has converted it.

    Args:
        name: The setting.
        value: Its value.
        whole: Allow whole numbers only.

    Raises:
        UsageError: a value of another type.
    """
    # Numbers of numpy and torch have these, too. So do True and False, which nobody means as 1 and 0.
    if isinstance(value, bool) or not hasattr(value, "__index__" if whole else "__float__"):
        kind = "whole number" if whole else "number"
        raise UsageError(f"{name} is {reprlib.repr(value)}: it must be a {kind}.")


def check_numbers(prefix: str, settings: Any) -> None:
    """Check that each field of a dataclass of settings whose type is a number has one.

    Raises:
        UsageError: a value of another type.
    """
    for one in fields(settings):
        if one.type in (int, float):
            check_number(f"{prefix}.{one.name}", getattr(settings, one.name))


def check_keys(given: Iterable[object], allowed: Collection[str], required: Collection[str], what: str) -> None:
    """Check the keys of a mapping that somebody wrote.

    Args:
        given: The keys.
        allowed: Keys that there may be.
        required: Keys that there must be.
        what: The mapping's name in the message, such as `preprocess`.

    Raises:
        UsageError: an unknown or a missing key.
    """
    given = list(given)
    unknown, missing = [key for key in given if key not in allowed], [key for key in required if key not in given]
    problems = [
        f"{verb} {'keys' if len(keys) > 1 else 'key'} {shortened([reprlib.repr(key) for key in keys], 5)}"
        for verb, keys in (("has the unknown", unknown), ("is missing the", missing))
        if keys
    ]
    if problems:
        listed = f"its keys are {', '.join(allowed)}."
        hint = did_you_mean(str(unknown[0]), allowed, listed) if len(unknown) == 1 else listed
        raise UsageError(f"{what} {' and '.join(problems)}: {hint}")
