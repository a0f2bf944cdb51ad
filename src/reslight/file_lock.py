"""Locks of the operating system on open files (flock): they end with the process, however that ends."""

from contextlib import suppress

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]  # mypy knows the module of the system it runs on


def lock_alone(descriptor: int) -> bool | None:
    """Lock an open file for this process alone: True; False if another one has locked it; None if the file system has no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


def lock_shared(descriptor: int) -> None:
    """Lock an open file together with other processes, once no process has locked it alone; without locks, do nothing."""
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
