"""One owner of a run: a second process that would train in the same folder is refused before it changes anything."""

import errno
import json
import logging
import os
import platform
import stat
import threading
import time
import weakref
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

from reslight.file_lock import lock_alone
from reslight.messages import UsageError, visible

log = logging.getLogger(__name__)

NAME = ".lock"
"""The file in the folder of a run while a process trains there. It names the process, and is removed when training ends."""
BEAT_SECONDS = 3.0
"""Interval at which the owner changes the time of the file."""
WATCH_SECONDS = 15.0
"""How long the file is watched before its owner counts as dead, where the lock of the operating system does not tell."""


class RunInUseError(UsageError):
    """Another process trains in the folder of the run."""


class RunLock:
    """The right to train in the folder of a run, until `release`, or until the process ends in any way.

    The lock of the operating system (flock) tells at once whether the owner lives, and ends with it, even with `kill -9`. Some network
    file systems have no such lock, or one that other machines do not see. So the owner also changes the time of the file every few
    seconds, and a file that another machine left behind is watched for a while: if its time changes, the owner lives. Only changes
    count: the clocks of two machines are never compared.

    Args:
        folder: The folder of the run, which exists.

    Raises:
        RunInUseError: another process, or another trainer of this process, trains there.
    """

    def __init__(self, folder: Path) -> None:
        self._finalizer: weakref.finalize[Any, Any] | None = None
        path = folder.resolve() / NAME
        try:
            file = _own(path, folder)
        except OSError as error:
            _check_of_other_user(path, folder)
            reason = error.strerror or error
            log.warning("%s cannot be written: %s. Nothing keeps a second process from training there.", folder / NAME, reason)
            return
        ended = threading.Event()
        # A finalizer also runs at the exit of a process that was interrupted in the trainer's clean-up.
        self._finalizer = weakref.finalize(self, _release, file, path, ended, os.getpid())
        threading.Thread(target=_beat, args=(path, ended), name="run lock", daemon=True).start()

    def release(self) -> None:
        """Let other processes train in the folder; a second call does nothing."""
        if self._finalizer is not None:
            self._finalizer()


_held: set[FileIO] = set()


def _close_held() -> None:
    """Close the files in a copy of the process: a worker that outlives its killed parent must not keep the lock."""
    for file in _held:
        file.close()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_held)


def _own(path: Path, folder: Path) -> FileIO:
    """Return the file, locked and with this process in it.

    Raises:
        RunInUseError: it has an owner that lives.
        OSError: the file cannot be written.
    """
    while True:
        file = FileIO(path, "a+", opener=_open_regular)
        try:
            is_locked = lock_alone(file.fileno())
            owner = _read(file)
            if is_locked is False:
                raise _refusal(folder, owner)
            if _is_at(path, file):
                # This machine's system knows of all processes of this machine, but not always of those of others.
                if owner is not None and not (is_locked and owner.get("machine") == _machine()):
                    _watch(path, folder, owner)
                file.truncate(0)
                file.write(json.dumps({"host": platform.node(), "pid": os.getpid(), "machine": _machine()}).encode())
                os.fsync(file.fileno())
                _held.add(file)
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # its owner removed the file after it was opened here


def _check_of_other_user(path: Path, folder: Path) -> None:
    """Check a file that this user may only read.

    Raises:
        RunInUseError: its owner has locked it.
    """
    with suppress(OSError), FileIO(path, opener=_open_regular) as file:
        if lock_alone(file.fileno()) is False:
            raise _refusal(folder, _read(file))


def _open_regular(path: str, flags: int) -> int:
    """Open a regular file. The folder may come from a stranger: the file that a link leads to would be emptied, and a pipe never ends.

    Raises:
        OSError: a link, a pipe or a device, or a file that cannot be opened.
    """
    problem = OSError(errno.EINVAL, "it is not a regular file")
    if Path(path).is_symlink():  # Windows has no O_NOFOLLOW
        raise problem
    file = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise problem
    return file


def _read(file: FileIO) -> dict[str, Any] | None:
    """Return what the file says of its owner; None for an empty file, whose owner has released it."""
    file.seek(0)
    content = file.read(10_000)
    with suppress(ValueError):
        record = json.loads(content)
        return record if isinstance(record, dict) else {}
    return {} if content else None


def _is_at(path: Path, file: FileIO) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


def _watch(path: Path, folder: Path, owner: dict[str, Any]) -> None:
    """Wait until it is clear that the owner is dead.

    Raises:
        RunInUseError: the owner lives.
    """
    log.info("%s was not released by %s: watching it for %.0f s, in case it is still training", folder, _name(owner), WATCH_SECONDS)
    first, end = _state(path), time.monotonic() + WATCH_SECONDS
    while time.monotonic() < end:
        time.sleep(min(1.0, WATCH_SECONDS / 10))
        if _state(path) != first:
            raise _refusal(folder, owner)


def _state(path: Path) -> int:
    """Return the time of the last change; to open the file is what makes a network file system ask its server for it."""
    with FileIO(path) as file:
        return os.fstat(file.fileno()).st_mtime_ns


def _beat(path: Path, ended: threading.Event) -> None:
    while not ended.wait(BEAT_SECONDS):
        with suppress(OSError):  # the folder may have been moved, or be out of reach for a while
            os.utime(path)


def _release(file: FileIO, path: Path, ended: threading.Event, pid: int) -> None:
    """Remove the file, then unlock it by closing it. A copy of the process does neither."""
    ended.set()
    if os.getpid() == pid:
        with suppress(OSError):
            if _is_at(path, file) and (_read(file) or {}).get("pid") == pid:  # the user may have deleted it, and another process made it
                file.truncate(0)
                path.unlink()
        _held.discard(file)
        file.close()


def _machine() -> str:
    """Return what tells a running machine from others, whatever they are called: containers of one machine share its locks."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return platform.node()


def _name(owner: dict[str, Any]) -> str:
    return f"process {visible(owner['pid'])} on {visible(owner['host'])}" if owner.keys() >= {"pid", "host"} else "another process"


def _refusal(folder: Path, owner: dict[str, Any] | None) -> RunInUseError:
    return RunInUseError(
        f"{folder} is in use: {_name(owner or {})} is training there, and a run has one process at a time. "
        "Wait until it ends, or stop it; then resume with --ckpt_path last."
    )
