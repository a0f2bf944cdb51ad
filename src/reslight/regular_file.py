"""Read regular files only: a pipe would be waited for, and a device may never end.

A stranger's folder may hold a link to any file of the user, which `push` would publish, or to a device.
"""

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


def read_regular(path: Path, most: int) -> bytearray:
    """Return the bytes of a regular file, or of the regular file that a link leads to.

    Args:
        path: The file.
        most: The largest size that is read, in bytes.

    Raises:
        OSError: a file that is missing or cannot be read.
        UsageError: a pipe, a device, a folder, or a file that is too large.
    """
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise UsageError(f"{visible(path, 1000)} is {_kind(state.st_mode)}: it must be a regular file. Replace or remove it.")
    if state.st_size > most:
        raise UsageError(f"{visible(path, 1000)} has {state.st_size:,} bytes: at most {most:,} are read. Replace or remove it.")
    data = bytearray(state.st_size)
    with path.open("rb") as file:
        del data[file.readinto(data) :]  # the file may have been cut short meanwhile
    return data


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "a device")
