"""Read regular files only: a pipe would be waited for, and a device may never end.

A stranger's folder may hold a link to any file of the user, which `push` would publish, or to a device.
"""

import os
import re
import stat
from pathlib import Path

from reslight.messages import UsageError, visible

_KINDS = {stat.S_IFLNK: "a link", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
_IN_HUB_CACHE = re.compile(r"\.\.[/\\]\.\.[/\\]blobs[/\\][0-9a-f]{40,64}")
"""Where the files of a snapshot in the Hub's cache link to."""


def is_regular(path: Path) -> bool:
    """Return whether a file of a folder of weights is there. A link of the Hub's cache to the file of its hash counts as the file.

    Raises:
        UsageError: anything else than a regular file: another link, a folder, a device, a pipe.
    """
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode) and _IN_HUB_CACHE.fullmatch(str(path.readlink())) and not (path.parent / "../../blobs").is_symlink():
            mode = (path.parent / path.readlink()).lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not stat.S_ISREG(mode):
        raise UsageError(f"{path} is {_kind(mode)}: a folder of weights holds regular files only. Put the file itself there.")
    return True


def regular_size(path: Path) -> int:
    """Return the size in bytes of a regular file, or of the regular file that a link leads to.

    Raises:
        OSError: a missing file.
        UsageError: a pipe, a device or a folder.
    """
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise UsageError(f"{visible(path, 1000)} is {_kind(state.st_mode)}: it must be a regular file. Replace or remove it.")
    return state.st_size


def read_regular(path: Path, most: int) -> bytearray:
    """Return the bytes of a regular file.

    Args:
        path: The file, or a link to it.
        most: The largest size that is read, in bytes.

    Raises:
        OSError: a file that is missing or cannot be read.
        UsageError: a pipe, a device, a folder, or a file that is too large.
    """
    if (size := regular_size(path)) > most:
        raise UsageError(f"{visible(path, 1000)} has {size:,} bytes: at most {most:,} are read. Replace or remove it.")
    data = bytearray(size)
    with path.open("rb") as file:
        del data[file.readinto(data) :]  # the file may have been cut short meanwhile
    return data


def read_ends(path: Path, length: int) -> bytes:
    """Return the first and the last `length` bytes of a regular file; all of a file that has fewer than both.

    Raises:
        OSError: a file that is missing or cannot be read.
        UsageError: a pipe, a device or a folder.
    """
    size = regular_size(path)
    with path.open("rb") as file:
        if size <= 2 * length:
            return file.read(2 * length)
        first = file.read(length)
        file.seek(-length, os.SEEK_END)
        return first + file.read(length)


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "a device")
