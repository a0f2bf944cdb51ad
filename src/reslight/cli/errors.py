"""Errors of jsonargparse and Lightning in one line: the setting, its value, what is allowed."""

import re
from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser

from reslight.cli.command_line import Setting, check_colons
from reslight.messages import MissingPackageError, UsageError, as_sentence

Found = TypeVar("Found", bound=BaseException)
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "dict": "a mapping",
    "Mapping": "a mapping",
    "NoneType": "null",
}
_IN_WORDS = {
    "trainer.precision": "32-true, bf16-mixed, 16-mixed, bf16-true, 16-true or 64-true",
    "data.class_weights": "balanced, a weight for each class, such as '{cat: 2, dog: 0.5}', or null",
}
"""What a setting must be, where the types in jsonargparse's message say too much."""
_LONGEST = 300


class ParsingError(Exception):
    """A command line or a configuration that does not parse, with jsonargparse's message."""


class Parser(LightningArgumentParser):
    """jsonargparse's parser, which raises ParsingError where it would print pages of usage and exit.

    It does not complete the beginning of an option either: `--trainer.max_epoch` is a mistake, on the command line as in a file.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise ParsingError."""
        raise ParsingError(message) from ex


def explain(error: Exception, settings: Sequence[Setting], defaults: Any) -> str:
    """Reduce an error of jsonargparse to one line.

    Args:
        error: The error; a UsageError that one of our classes raised inside it keeps its message.
        settings: What was configured, to name the file that has a value.
        defaults: The parser's defaults by key, for an example of a value.

    Raises:
        UsageError: a typed mapping without spaces behind its colons.
    """
    if own := raised_inside(error, UsageError):
        return str(own)
    message = str(error)
    key = ""
    for name in re.findall(r'[Kk]ey "([\w.]+)"', message):  # from the outermost setting to the innermost, which may be there twice
        key = key if f".{key}".endswith(f".{name}") else f"{key}.{name}".lstrip(".")
    for typed in (one for one in settings if f"{one.key}.".startswith(f"{key}.") and one.file is None and str(one.value).startswith("{")):
        check_colons(typed)
    detail = message[message.rfind('ey "') :]  # of the innermost setting
    given = re.search(r"(?:Got|Given) value: ([^\n]*)", detail)
    expected = re.findall(r"Expected an? ([^\n]+?)(?:\. Got value|\n|$)", detail)
    if not (key and given and expected):
        text = "; ".join(line.strip(" -:") for line in message.splitlines() if line.strip())
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
    where = next((one.where for one in reversed(settings) if (one.key, str(one.value)) == (key, given[1])), "")
    return f"{key} is {given[1]}{where}: it must be {_IN_WORDS.get(key) or _readable(expected, defaults.get(key))}."


def _readable(kinds: Sequence[str], default: Any) -> str:
    """Return types in words, and each value of a choice."""
    words: list[str] = []
    for kind in kinds:
        if choices := re.search(r"Literal\[(.+)\]", kind):
            words += [choice.strip(" '") for choice in choices[1].split(",")]
        elif found := re.fullmatch(r"<class '(?:\w+\.)*(\w+)'>", kind):
            words.append(_example(default) if found[1] in ("tuple", "list") else _WORDS.get(found[1], found[1]))
        elif kind.startswith("dot import path"):
            words.append("the import path of a class")
        elif kind.startswith("path but "):
            continue
        else:
            words.append(kind)
    *first, last = [word for word in dict.fromkeys(words) if word != "null"] or words
    return f"{', '.join(first)} or {last}" if first else last


def _example(default: Any) -> str:
    """Return a list in words, with the default of the setting as its example."""
    return f"a list, such as {list(default) or [1, 2]}" if isinstance(default, list | tuple) else "a list"


_CLASS_REFUSES = re.compile(r"Errors: - (?:Not a valid subclass.*?\(implicit class_path\) - )?(.+?) - (?:Expected a |Not a valid )")


def raise_in_one_line(error: Exception) -> NoReturn:
    """Raise an error of Lightning, of jsonargparse or of a user's class again: in one line where it is a mistake of the user.

    Raises:
        UsageError: one that the error is or wraps, a missing package, or a setting that Lightning refuses.
        OSError: one that the error wraps, such as a missing data.root.
        Exception: the error itself, which is a bug.
    """
    if isinstance(error, UsageError):
        raise error
    if own := raised_inside(error, UsageError):
        raise UsageError(str(own)) from error
    if unreadable := raised_inside(error, OSError):
        raise unreadable from None
    if package := package_to_install(error):  # in a ValueError of jsonargparse
        raise MissingPackageError(f"a class in the configuration needs {package}. Run pip install '{package}'.") from error
    if missing := raised_inside(error, ImportError):
        raise MissingPackageError(f"{one_line(missing)} Install the package, or remove the setting that needs it.") from error
    if reason := _CLASS_REFUSES.search(" ".join(str(error).split())):
        # What a class in the configuration says against its settings, among what jsonargparse says.
        raise UsageError(f"a class in the configuration refuses its settings: {reason[1].rstrip('.')}.") from error
    if isinstance(error, MisconfigurationException) or raised_by(error, "lightning."):
        raise UsageError(one_line(error)) from error
    raise error


def raised_inside(error: BaseException | None, kind: type[Found]) -> Found | None:
    """Return the error of a kind that an error is or wraps, if any: jsonargparse wraps what a class raises when it is made."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error


def raised_by(error: BaseException, package: str) -> bool:
    """Return whether an error was raised in a package, such as by Lightning's check of trainer.val_check_interval.

    Args:
        error: The error.
        package: The beginning of the module's name.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith(package)


def one_line(error: BaseException) -> str:
    """Return an error's message as a sentence without line breaks, cut where it is long."""
    text = " ".join(str(error).split())
    return as_sentence(text) if len(text) <= _LONGEST else text[:_LONGEST].rpartition(" ")[0] + " ..."


def package_to_install(error: BaseException) -> str | None:
    """Return the package that an error of Lightning says is missing, or None."""
    found = re.search(r"Requirement '([^']+)' not met", str(error))
    return found and found[1]
