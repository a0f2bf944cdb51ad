"""`FilePaths`: the paths of many files in one piece of memory; a `Path` for each of a million files would take a gigabyte."""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import overload

import numpy as np

_BLOCK = 4096
"""Names that exist as Python objects at a time."""


class FilePaths(Sequence[Path]):
    """Files below a folder; each one's path is made when it is asked for.

    Attributes:
        root: The folder.
        names: uint8: the paths of the files relative to the folder, as the file system encodes them, with a zero byte after each.
        ends: int64 `(N,)`: where each name ends in `names`.
    """

    def __init__(self, root: Path, names: np.ndarray, sizes: np.ndarray | None = None) -> None:
        """Take the files with these names; `sizes`, as of the method, where they are known."""
        self.root, self.names, self._sizes = root, names, sizes
        self.ends = np.flatnonzero(names == 0)

    @classmethod
    def below(cls, root: Path, names: Iterable[str]) -> "FilePaths":
        """Return the files with these paths, relative to `root` and with `/` between the folders."""
        encoded, rest = bytearray(), iter(names)
        while block := [f"{name}\0" for name in islice(rest, _BLOCK)]:
            encoded += os.fsencode("".join(block))
        return cls(root, np.frombuffer(bytes(encoded), np.uint8))

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.ends)

    @overload
    def __getitem__(self, number: int) -> Path: ...
    @overload
    def __getitem__(self, number: slice) -> list[Path]: ...
    def __getitem__(self, number: int | slice) -> Path | list[Path]:
        """Return the path of a file, or of several."""
        if isinstance(number, slice):
            return [self[one] for one in range(len(self))[number]]
        place = range(len(self))[number]
        start = int(self.ends[place - 1]) + 1 if place else 0
        return self.root / os.fsdecode(self.names[start : int(self.ends[place])].tobytes())

    def relative(self) -> Iterator[str]:
        """Yield the path of each file relative to the folder, with `/` between the folders."""
        for start in range(0, len(self), _BLOCK):
            first = int(self.ends[start - 1]) + 1 if start else 0
            last = int(self.ends[min(start + _BLOCK, len(self)) - 1])
            yield from os.fsdecode(self.names[first:last].tobytes()).split("\0")

    def sizes(self) -> np.ndarray:
        """Return the size of each file in bytes, int64; -1 for a broken link, which is an error later, when the image is read."""
        if self._sizes is None:
            self._sizes = np.fromiter((_size_of(f"{self.root}/{name}") for name in self.relative()), np.int64, len(self))
        return self._sizes


def _size_of(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116, a Path takes longer to make than the call
    except OSError:
        return -1
