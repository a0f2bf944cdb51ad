"""Find the pictures that a user means: files, folders at any depth, patterns, lists and standard input, one path at a time."""

import codecs
import glob
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from reslight.data.image_folder.class_tree import files_below, is_foreign, is_image
from reslight.messages import UsageError, visible

STDIN = "-"
"""The argument that means standard input."""
_BLOCK = 2**16
_LONGEST = 1000


class Pictures:
    """Paths of pictures, which may be iterated several times unless they come from standard input.

    Args:
        given: Files, folders, patterns with wildcards, `@FILE` for a list, and `-` for standard input.
        lists: Files with a path on each line, or with a zero byte after each path.

    Raises:
        OSError: none of the files exists, or a list that cannot be read.
        UsageError: no pictures are given, or a pattern matches no file.
    """

    def __init__(self, given: Sequence[str], lists: Sequence[str] = ()) -> None:
        at = [name for name in given if name.startswith("@") and not os.path.lexists(name)]
        self._lists = [Path(name) for name in (*(name[1:] for name in at), *lists)]
        self._given = [name for name in given if name not in at]
        if not given and not lists:
            raise UsageError("PICTURES is missing: give files, folders, patterns in quotes, @LIST, or - to read paths from standard input.")
        for path in self._lists:
            if not path.is_file():
                raise FileNotFoundError(f"the list {visible(path, _LONGEST)} is missing. Give a text file with a path on each line.")
        for name in self._given:
            if _is_pattern(name) and not _matches(name):
                raise UsageError(f"{visible(name, _LONGEST)} matches no file. Check the pattern, or give a folder.")
        literal = [name for name in self._given if name != STDIN and not _is_pattern(name)]
        if literal == self._given and literal and not self._lists and not any(map(os.path.lexists, literal)):
            more = f" and {len(literal) - 1:,} more" if len(literal) > 1 else ""
            raise FileNotFoundError(f"{visible(literal[0], _LONGEST)}{more} missing. Give image files, or folders of images.")

    @property
    def total(self) -> int | None:
        """The number of pictures; None with standard input, which can be read only once."""
        return None if STDIN in self._given else sum(1 for _ in self)

    def __iter__(self) -> Iterator[str]:
        """Yield each path: as given, sorted within each folder."""
        for name in self._given:
            if name == STDIN:
                yield from lines(sys.stdin.buffer)
            elif _is_pattern(name):
                yield from (path for found in _matches(name) for path in _files(found))
            else:
                yield from _files(name)
        for path in self._lists:
            with path.open("rb") as file:
                yield from lines(file)


def lines(file: BinaryIO) -> Iterator[str]:
    """Yield the paths of a list: one a line, or with a zero byte after each if the beginning has one; empty ones are left out."""
    rest, separator = b"", b""
    while block := os.read(file.fileno(), _BLOCK):
        rest += block
        separator = separator or (b"\0" if b"\0" in rest else b"\n" if b"\n" in rest else b"")
        if separator:
            *whole, rest = rest.split(separator)
            yield from _decoded(whole, separator)
    yield from _decoded([rest], separator)


def _decoded(paths: Iterable[bytes], separator: bytes) -> Iterator[str]:
    for path in paths:
        name = os.fsdecode(path.removesuffix(b"\r").removeprefix(codecs.BOM_UTF8) if separator != b"\0" else path)
        if name:
            yield name


def _files(name: str) -> Iterator[str]:
    """Yield a file, or the images of a folder. What cannot be read, such as HEIC, is yielded, too: its row tells why."""
    if not Path(name).is_dir():
        yield name
        return
    closed: list[str] = []

    def report(path: Path, error: OSError | None) -> None:
        if error is not None or is_image(path.name):
            closed.append(str(path))

    for inner, files in files_below(Path(name), ".", report):
        folder = Path(name, inner).as_posix()
        yield from closed
        closed.clear()
        yield from (f"{folder}/{one}" for one in files if is_image(one) or is_foreign(one))


def _matches(pattern: str) -> list[str]:
    """Return the files and folders of a pattern, sorted, without what is in one of these folders; ** stands for folders at any depth."""
    found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207, Path.glob takes no absolute pattern
    if "**" not in pattern:
        return found
    folders = {one.rstrip("/") for one in found if Path(one).is_dir()}
    return [one for one in found if not _is_inside(one.rstrip("/"), folders)]


def _is_inside(path: str, folders: Collection[str]) -> bool:
    while (above := os.path.dirname(path)) != path:  # noqa: PTH120, Path has no leading ./
        if above in folders:
            return True
        path = above
    return False


def _is_pattern(name: str) -> bool:
    return glob.has_magic(name) and not os.path.lexists(name)
