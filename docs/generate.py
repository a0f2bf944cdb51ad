"""Write the pages of the reference that come from the program itself: the command line and the configuration.

python docs/generate.py            # writes docs/reference/command-line.md and configuration.md
python docs/generate.py --check    # only tells whether they are current
"""

import argparse
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from jsonargparse import ArgumentParser, set_parsing_settings

from reslight.cli.main import make_parser
from reslight.cli.parser import TRAINER_COMMANDS
from reslight.cli.settings import datasets
from reslight.cli.trainer import CLI
from reslight.models import ResNetConfig

FOLDER = Path(__file__).parent / "reference"
NOTE = "<!-- Written by `python docs/generate.py`: do not edit. -->"
GROUPS = {
    "": "## The run",
    "model": "## `model`: the network and its training",
    "model.net": "## `model.net`: the network",
    "model.optim": "## `model.optim`: the optimizer",
    "model.schedule": "## `model.schedule`: the learning rate",
    "checkpoint": "## `checkpoint`: when a run is saved",
}
COMMANDS = f"""# Command line

{NOTE}

`reslight COMMAND --help` shows the same in the terminal. Every command takes `--debug`, which shows the traceback of an error.
What a command returns: [exit codes](exit-codes.md).

## Train and evaluate"""
SETTINGS = """These four take the settings of a run, which are listed in [Configuration](configuration.md):

<!-- not run: hours -->
```bash
reslight fit --config digits
reslight test --config digits
reslight fit --config cifar10/fast --model.net resnet20
```"""
OPTIONS = (
    ("`--config NAME`, `-c`", "a packaged configuration (`reslight configs`), a file, or a run's folder; later ones override earlier ones"),
    ("`--any.setting VALUE`", "one setting by its key; overrides all files"),
    ("`--ckpt_path last\\|best\\|FILE`", "the checkpoint to resume from, or to evaluate"),
    ("`--print_config`", "print all settings that a run would use, and exit"),
    ("`--help`; `--data.help NAME`", "list the settings; those of a dataset"),
)
CONFIGURATION = f"""# Configuration

{NOTE}

The settings of `reslight fit`, `validate`, `test` and `predict`. Write them in a YAML file for `--config`, or type one as `--KEY VALUE`.
`--print_config` prints all that a run would use.

```yaml
model:
  net: resnet20
  optim: {{lr: 0.1, nesterov: true}}
data:
  class_path: CIFAR
  init_args: {{name: cifar10, batch_size: 128}}
trainer: {{max_epochs: 40}}
```"""
NET = """`--model.net NAME` is the usual way. These fields change a named network: `--model.net.shortcut B`, or in a file
`net: {name: resnet20, shortcut: B}`. `num_classes` and `in_channels` come from the data."""
TRAINER = """## `trainer`: Lightning's Trainer

Every argument of Lightning's `Trainer`. `reslight fit --help` lists them; [Lightning's features](../results/lightning.md) tells which work
and which are refused. Two mean something else here: `trainer.default_root_dir` is where runs are kept (`runs` by default), and
`trainer.logger` names loggers beside the run's own."""
WORDS = {bool: "`true` or `false`", int: "whole number", float: "number", str: "text", NoneType: "`null`"}


class Row(NamedTuple):
    """A setting: its type and default in words, and what it does."""

    kind: str
    default: str
    meaning: str


def main() -> int:
    """Write or check the pages; return 1 if one is out of date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    check, stale = parser.parse_args().check, False
    for name, text in pages().items():
        path = FOLDER / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale = True
        print(f"{path}: {'out of date, run `python docs/generate.py`' if check else 'written'}")
        if not check:
            path.write_text(text, encoding="utf-8")
    return int(check and stale)


def pages() -> Mapping[str, str]:
    """Return the text of each page, by the name of its file."""
    return {"command-line.md": command_line(), "configuration.md": configuration()}


def command_line() -> str:
    """Return the page of the commands, from their parsers."""
    rows = [(f"`reslight {name} --config NAME`", escaped(about)) for name, about in TRAINER_COMMANDS.items()]
    lines = [COMMANDS, table(("command", "what it does"), rows), SETTINGS, table(("option", "meaning"), OPTIONS)]
    for title, parser, about in commands(make_parser()):
        lines += [f"## `{title}`", sentence(about), f"```text\n{usage(parser)}\n```"]
        if rows := [(argument(one), escaped(meaning(parser, one))) for one in arguments(parser)]:
            lines += [table(("argument", "meaning"), rows)]
    return "\n\n".join(lines) + "\n"


def commands(parser: argparse.ArgumentParser, about: str = "") -> Iterator[tuple[str, argparse.ArgumentParser, str]]:
    """Yield the name, parser and help of each command, those of commands within commands too."""
    nested = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    if not nested:
        yield parser.prog, parser, parser.description or about
    for action in nested:
        helps = {one.dest: one.help or "" for one in action._choices_actions}
        for name, inner in action.choices.items():
            if name in helps and (name not in TRAINER_COMMANDS or arguments(inner)):  # predict takes images, too
                yield from commands(inner, helps[name])


def arguments(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the arguments of a command that have a help."""
    return [one for one in parser._actions if one.dest != "help" and one.help != argparse.SUPPRESS]


def meaning(parser: argparse.ArgumentParser, one: argparse.Action) -> str:
    """Return the help of an argument as the terminal shows it, with its default."""
    return parser._get_formatter()._expand_help(one) if one.help else ""


def names(one: argparse.Action) -> str:
    """Return how an argument is typed, such as `-o FILE`."""
    value = one.metavar or ("|".join(map(str, one.choices)) if one.choices else one.dest.upper())
    value = " ".join(value) if isinstance(value, tuple) else value
    value = {"+": f"{value} ...", "*": f"[{value} ...]", "?": f"[{value}]"}.get(str(one.nargs), value)
    if not one.option_strings:
        return value
    return one.option_strings[-1] if one.nargs == 0 else f"{one.option_strings[-1]} {value}"


def argument(one: argparse.Action) -> str:
    """Return the cell of an argument, with its short form."""
    short = f", `{one.option_strings[0]}`" if len(one.option_strings) > 1 else ""
    return f"`{names(one)}`".replace("|", "\\|") + short


def usage(parser: argparse.ArgumentParser) -> str:
    """Return the line that shows how a command is typed; not argparse's, which differs from one Python to the next."""
    found = arguments(parser)
    needed = [names(one) for one in found if one.option_strings and one.required]
    options = "[OPTIONS]" if any(one.option_strings and not one.required for one in found) else ""
    return " ".join(part for part in (parser.prog, options, *needed, *(names(one) for one in found if not one.option_strings)) if part)


def configuration() -> str:
    """Return the page of the settings, from the classes that take them."""
    lines = [CONFIGURATION]
    own = {key: row for key, row in settings_of_run().items() if not key.startswith(("trainer", "data"))}
    own |= {f"model.net.{key}": row for key, row in settings_of(ResNetConfig).items()}
    for group, title in GROUPS.items():
        rows = {key: row for key, row in own.items() if key.rpartition(".")[0] == group}
        lines += [title]
        lines += [NET] if group == "model.net" else []
        lines += [settings_table(rows)]
    lines += [TRAINER, *dataset_sections()]
    return "\n\n".join(lines) + "\n"


class _ParserFound(Exception):
    """Carries the parser out of Lightning's constructor, which would go on to parse."""


class _Reader(CLI):
    def parse_arguments(self, parser: Any, args: Any) -> None:
        raise _ParserFound(parser)


def settings_of_run() -> dict[str, Row]:
    """Return the settings of `reslight fit`."""
    try:
        _Reader("fit", ["--help"], [], None)
    except _ParserFound as found:
        return rows_of(found.args[0])
    raise AssertionError("Lightning's constructor no longer parses")


def settings_of(owner: type) -> dict[str, Row]:
    """Return the settings of a class."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser()
    parser.add_class_arguments(owner, "x", fail_untyped=False)
    needed = {
        name for name, one in inspect.signature(owner).parameters.items() if one.default is one.empty and one.kind is not one.VAR_KEYWORD
    }
    found = {key.removeprefix("x."): row for key, row in rows_of(parser).items()}
    return {key: row._replace(default="needed") if key in needed else row for key, row in found.items()}


def rows_of(parser: Any) -> dict[str, Row]:
    """Return the settings of a parser of jsonargparse; not the groups, and not what is only for the terminal."""
    found = {}
    for action in parser._actions:
        kind = getattr(action, "_typehint", action.type)
        if kind is None or action.default == argparse.SUPPRESS or not isinstance(action.option_strings, list):
            continue
        if not any(one.startswith("--") for one in action.option_strings):
            continue
        found[action.dest] = Row(words(kind), value(action.default), escaped(re.sub(r" \(default: .*\)$", "", action.help or "")))
    return found


def dataset_sections() -> Iterator[str]:
    """Yield the sections about the datasets: what all have, and then what each adds or changes."""
    found = {one: settings_of(one) for one in sorted(datasets(), key=lambda one: (len(one.__mro__), one.__name__))}
    first, *others = found.values()
    common = {key for key in first if all(key in other and other[key].meaning == first[key].meaning for other in others)}
    base = {key: first[key] for key in first if key in common}
    usual = {key: row._replace(default=most([one[key].default for one in found.values()])) for key, row in base.items()}
    yield "## `data`: what every dataset has"
    names = ", ".join(f"[`{one.__name__}`](#{one.__name__.lower()})" for one in found)
    yield (
        f"`--data NAME` chooses the dataset: {names}, or the import path of [your own](../guides/extending.md). "
        "In a file, `data.class_path` is the name, and the settings stand under `data.init_args`."
    )
    plain_keys = {key: row for key, row in usual.items() if "." not in key}
    yield settings_table(prefixed(plain_keys))
    for group in dict.fromkeys(key.rpartition(".")[0] for key in usual if "." in key):
        yield f"### `data.{group}`\n\n{settings_table(prefixed({key: row for key, row in usual.items() if key.startswith(f'{group}.')}))}"
    for dataset, settings in found.items():
        parent = next((one for one in dataset.__mro__[1:] if one in found), None)
        known = {**usual, **(found[parent] if parent else {})}
        own = {key: row for key, row in settings.items() if key not in known or row.meaning != known[key].meaning}
        changed = {key: row.default for key, row in settings.items() if key not in own and row.default != known[key].default}
        about = (inspect.getdoc(dataset) or "").split("\n\n")[0]
        yield f"## {dataset.__name__}"
        yield escaped(about) + (f" It has the settings of {parent.__name__}, too." if parent else "")
        for group in dict.fromkeys(key.rpartition(".")[0] for key in own):
            rows = prefixed({key: row for key, row in own.items() if key.rpartition(".")[0] == group})
            yield (f"### `data.{group}` of {dataset.__name__}\n\n" if group else "") + settings_table(rows)
        if changed:
            yield "Other defaults: " + ", ".join(f"`data.{key}` is {default}" for key, default in changed.items()) + "."


def most(values: Sequence[str]) -> str:
    """Return the most frequent value, the first one of several."""
    return max(values, key=values.count)


def prefixed(rows: Mapping[str, Row]) -> dict[str, Row]:
    """Return settings of a dataset under their whole keys."""
    return {f"data.{key}": row for key, row in rows.items()}


def words(kind: Any) -> str:
    """Return a type in words: `null`, a number, one of some names."""
    if kind in WORDS:
        return WORDS[kind]
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return ", ".join(f"`{one}`" for one in inner)
    if origin in (Union, UnionType):
        return " or ".join(words(one) for one in inner)
    if origin in (tuple, list) or kind in (tuple, list):
        numbers = {float: "numbers", int: "whole numbers", str: "texts"}.get(inner[0] if inner else None, "values")
        return f"list of {numbers}" if len(inner) != 2 or inner[-1] is Ellipsis else f"two {numbers}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "mapping"
    return f"`{getattr(kind, '__name__', str(kind))}`"


def value(default: Any) -> str:
    """Return a default as YAML writes it."""
    return f"`{_yaml(default)}`"


def _yaml(default: Any) -> str:
    if default is None or isinstance(default, bool):
        return {None: "null", True: "true", False: "false"}[default]
    if isinstance(default, list | tuple):
        return f"[{', '.join(map(_yaml, default))}]"
    return f"{default:.6g}" if isinstance(default, float) else str(default)


def settings_table(rows: Mapping[str, Row]) -> str:
    """Return a table of settings."""
    return table(("key", "type", "default", "meaning"), [(f"`{key}`", *row) for key, row in rows.items()])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def sentence(text: str) -> str:
    """Return a help as a sentence."""
    return f"{escaped(text[:1].upper() + text[1:]).rstrip('.')}."


def escaped(text: str) -> str:
    """Return plain text for a Markdown table; what stands between backticks stays as it is."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()).replace("%%", "%"))
    for index in range(0, len(parts), 2):
        parts[index] = re.sub(r"([\\*\[\]]|(?<!\w)_|_(?!\w))", r"\\\1", parts[index]).replace("<", "&lt;").replace(">", "&gt;")
    return "".join(parts).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
