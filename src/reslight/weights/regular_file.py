"""Read only regular files from a folder of weights.

A stranger's folder may hold a link to any file of the user, which `push` would publish, or to a device that never ends.
"""

import re
import stat
from pathlib import Path

from reslight.messages import UsageError

_KINDS = {stat.S_IFLNK: "a link", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
_IN_HUB_CACHE = re.compile(r"\.\.[/\\]\.\.[/\\]blobs[/\\][0-9a-f]{40,64}")
"""Where the files of a snapshot in the Hub's cache link to."""


def is_regular(path: Path) -> bool:
    """Return whether a file of a folder is there. A link of the Hub's cache to the file of its hash counts as the file.

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
        kind = _KINDS.get(stat.S_IFMT(mode), "a device")
        raise UsageError(f"{path} is {kind}: a folder of weights holds regular files only. Put the file itself there.")
    return True
