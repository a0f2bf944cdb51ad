"""Run the blocks of a page in the current folder, in this process."""

import io
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import yaml
from tests.docs.blocks import Block, Page

from reslight.cli.main import main, make_parser
from reslight.cli.parser import TRAINER_COMMANDS
from reslight.messages import UsageError
from reslight.runs.config_files import names

ROOT = Path(__file__).parents[2]
PROGRAMS = ("ls", "cat", "head", "tail", "mkdir", "cp", "mv", "rm", "find", "wc", "touch", "cut", "export")
"""Programs of the system that blocks may run."""
INSTALLERS = ("pip", "uv", "conda", "git", "docker", "pytest")
"""Programs that are not run."""
_UNQUOTED = r"""(?:[^"']|"[^"]*"|'[^']*')*\Z"""
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:e[-+]?\d+)?")


class Wrong(AssertionError):
    """A block that does not do what its page says."""


def run_page(page: Page) -> Iterator[tuple[Block, str]]:
    """Run the blocks of a page; yield each block that ran, with its output.

    Raises:
        Wrong: a block failed, or printed something else.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in page.blocks:
        where = f"{page.path.name}, line {block.line}"
        text = block.text
        for old, new in block.stands_for.items():
            text = text.replace(old, new.replace("{repository}", str(ROOT)))
        if path := block.file or _named_file(block):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(text, encoding="utf-8")
        if block.not_run or block.file:
            check(block.language, text, where)
        elif block.language == "python" and not path:
            printed = _python(text, names, where)
            _compare(block.output, printed, block, where)
            yield block, printed
        elif block.language in ("console", "bash"):
            for command, expected in commands_of(block.language, text):
                code, printed = run(command, block.shortened)
                shown = expected if block.language == "console" else block.output
                is_wrong = shown is not None and "reslight: error: " in shown
                if code != (2 if is_wrong else block.exit_code or 0):
                    raise Wrong(f"{where}: {command}: exit code {code}\n{printed}")
                _compare(shown, printed, block, where)
                yield block, printed
        else:
            check(block.language, text, where)


def check(language: str, text: str, where: str) -> None:
    """Check a block that is not run.

    Raises:
        Wrong: a command is not accepted, or the block is not in its language.
    """
    if language == "python":
        compile(text, where, "exec")
    elif language == "yaml":
        yaml.safe_load(text)
    elif language in ("console", "bash"):
        for command, _ in commands_of(language, text):
            _check_command(command, where)


def commands_of(language: str, text: str) -> Iterator[tuple[str, str | None]]:
    """Yield the commands of a block with the output that it shows; loops are unrolled, and lines that end with a backslash joined."""
    if text.startswith("#!"):  # a script, to be saved
        return
    text = re.sub(r"\\\n\s*", "", text)
    if language == "console":
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, _, printed = part.partition("\n")
            yield from ((line, printed) for line in _unrolled(command))
    else:
        for line in text.splitlines():
            if line.strip() and not line.startswith("#"):
                yield from ((command, None) for command in _unrolled(line))


def _unrolled(line: str) -> Iterator[str]:
    if loop := re.fullmatch(r"for (\w+) in (.*); do (.*); done\s*(?:#.*)?", line):
        for value in loop[2].split():
            yield re.sub(rf"\$\{{?{loop[1]}\b\}}?", value, loop[3])
    else:
        yield line


def run(command: str, shortened: str = "") -> tuple[int, str]:
    """Run a command line; return its exit code and what it printed."""
    code, printed = 0, io.StringIO()
    for words in _simple_commands(command):
        if words[0] == "python" and len(words) > 1:
            words[1] = str(ROOT / words[1]) if (ROOT / words[1]).exists() else words[1]
            with redirect_stdout(printed), redirect_stderr(printed):
                code = _script(words[1:])
        elif words[0] == "reslight":
            with redirect_stdout(printed), redirect_stderr(printed):
                code = main([*words[1:], *(shlex.split(shortened) if words[1] == "fit" else ())])
        elif words[0] in PROGRAMS:
            done = subprocess.run(["bash", "-c", shlex.join(words)], capture_output=True, text=True)
            code = done.returncode
            printed.write(done.stdout + done.stderr)
        elif words[0] not in INSTALLERS:
            raise Wrong(f"{words[0]} is a program that pages do not run: {command}")
        if code:
            break
    return code, printed.getvalue()


def _simple_commands(command: str) -> Iterator[list[str]]:
    """Yield the words of the commands that `&&` or `;` join, without assignments before them, comments and the end of a pipe."""
    command = re.sub(r"(^|\s)#\s.*", "", command)
    for part in re.split(rf"(?:&&|;)(?={_UNQUOTED})", command):
        words = shlex.split(re.split(rf"\|(?={_UNQUOTED})", part)[0])
        while words and re.match(r"\w+=", words[0]):
            words = words[1:]
        if words:
            yield words


def _script(words: list[str]) -> int:
    before = sys.argv
    sys.argv = words
    try:
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    finally:
        sys.argv = before
    return 0


def _python(text: str, names: dict[str, Any], where: str) -> str:
    printed = io.StringIO()
    with redirect_stdout(printed):  # stderr has what libraries say
        try:
            exec(compile(text, where, "exec"), names)
        except Exception as error:
            raise Wrong(f"{where}: {type(error).__name__}: {error}\n{printed.getvalue()}") from error
    return printed.getvalue()


def _named_file(block: Block) -> str | None:
    found = re.match(r"# ([\w/-]+\.(?:py|yaml))\n", block.text)
    return found[1] if found and block.language in ("python", "yaml") else None


def _check_command(command: str, where: str) -> None:
    for words in _simple_commands(command):
        name = words[0]
        with suppress(StopIteration):
            start = next(place for place, word in enumerate(words) if word == "reslight")
            words, name = words[start:], "reslight"
        if name == "python" and words[1:] and words[1].endswith(".py") and not (ROOT / words[1]).exists():
            raise Wrong(f"{where}: {words[1]} does not exist")
        if name == "reslight" and (problem := _refused(words[1:])):
            raise Wrong(f"{where}: {command}: {problem}")


def _refused(words: list[str]) -> str | None:
    """Return why a command line of reslight is refused, None if it is not."""
    if words[0] in TRAINER_COMMANDS and words[1:2] and words[1].startswith("-"):
        words = [_config_of_run(word) for word in words]
        printed = io.StringIO()
        with redirect_stdout(printed), redirect_stderr(printed):
            code = main([*words, *([] if "--print_config" in words or any("help" in word for word in words) else ["--print_config"])])
        return printed.getvalue() if code else None
    try:
        make_parser().parse_args(words)
    except SystemExit:
        return None
    except UsageError as error:
        return str(error)
    return None


def _config_of_run(word: str) -> str:
    """Return the configuration that a run's folder is named after: runs/cifar10/modern-resnet56/1 is one of cifar10/modern."""
    name = word.removeprefix("runs/")
    known = [config for config in names() if word != name and name.startswith(config)]
    return max(known, key=len) if known and not Path(word).exists() else word


def _compare(expected: str | None, printed: str, block: Block, where: str) -> None:
    """Compare what a page shows with what was printed: `...` stands for anything.

    Raises:
        Wrong: they differ.
    """
    if not expected or not expected.strip():
        return
    expected, printed = (_without_threads(text) for text in (expected, printed))
    if block.numbers_vary:
        lines = [_NUMBER.sub("0", line) for line in printed.splitlines()]
        for line in expected.splitlines():
            pattern = _pattern(_NUMBER.sub("0", line))
            if line.strip() not in ("", "...") and not any(_matches(pattern, printed_line) for printed_line in lines):
                raise Wrong(f"{where}: this line is not printed: {line}\n{printed}")
    elif not _matches(_pattern(expected), printed):
        raise Wrong(f"{where}: it prints something else:\n{printed}")


def _without_threads(text: str) -> str:
    """Leave out what depends on the cores of this machine."""
    return re.sub(r"\d+ threads?\b", "threads", re.sub(r"^threads .*\n", "", text, flags=re.MULTILINE))


def _pattern(expected: str) -> str:
    return re.sub(r"(?:\\ )?\\\.\\\.\\\.(?:\\ )?", ".*", re.escape(" ".join(expected.split())))


def _matches(pattern: str, printed: str) -> bool:
    return re.fullmatch(pattern, " ".join(printed.split())) is not None
