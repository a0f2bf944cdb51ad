"""jsonargparse's errors about values in one line: the setting, its value, what is allowed."""

import re
from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar

from lightning.pytorch.cli import LightningArgumentParser

from reslight.cli.command_line import Setting
from reslight.messages import UsageError

Found = TypeVar("Found", bound=BaseException)
_WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "dict": "a mapping", "NoneType": "null"}
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
        error: The error; what one of our own classes raised inside it is taken as it is.
        settings: What was configured, to name the file that has a value.
        defaults: The parser's defaults by key, for an example of a value.
    """
    if own := raised_inside(error, UsageError):
        return str(own)
    message = str(error)
    key = ".".join(re.findall(r'[Kk]ey "([\w.]+)"', message))
    detail = message[message.rfind('ey "') :]  # of the innermost setting
    given = re.search(r"(?:Got|Given) value: ([^\n]*)", detail)
    expected = re.findall(r"Expected an? ([^\n]+?)(?:\. Got value|\n|$)", detail)
    if not (key and given and expected):
        text = "; ".join(line.strip(" -:") for line in message.splitlines() if line.strip())
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
    where = next((one.where for one in reversed(settings) if (one.key, str(one.value)) == (key, given[1])), "")
    return f"{key} is {given[1]}{where}: it must be {_readable(expected, defaults.get(key))}"


def _readable(kinds: Sequence[str], default: Any) -> str:
    """Types in words, the values of a choice one by one."""
    words: list[str] = []
    for kind in kinds:
        if choices := re.search(r"Literal\[(.+)\]", kind):
            words += [choice.strip(" '") for choice in choices[1].split(",")]
        elif found := re.fullmatch(r"<class '(?:\w+\.)*(\w+)'>", kind):
            words.append(_example(default) if found[1] in ("tuple", "list") else _WORDS.get(found[1], found[1]))
        else:
            words.append(kind)
    *first, last = [word for word in dict.fromkeys(words) if word != "null"] or words
    return f"{', '.join(first)} or {last}" if first else last


def _example(default: Any) -> str:
    """A list in words, with the default of the setting as its example."""
    return f"a list, such as {list(default) if isinstance(default, list | tuple) and default else [1, 2]}"


def raised_inside(error: BaseException | None, kind: type[Found]) -> Found | None:
    """Return the error of a kind that an error is or wraps, if any: jsonargparse wraps what a class raises when it is made."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error
