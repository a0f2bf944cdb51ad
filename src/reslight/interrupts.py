"""Ctrl-C before a command has begun and after its end: no traceback."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
"""The exit code of the shell for Ctrl-C."""


def is_rank_zero() -> bool:
    """Return whether this is the process of a run that prints."""
    return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0) == 0


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process at once while modules are imported: some of them lose a KeyboardInterrupt, or make another error of it."""
    replaces = _is_main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if replaces:
        signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        if replaces:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def end_quietly(code: int) -> None:
    """Let Ctrl-C cut the end of the process short, whose exit code is known: Python would print a traceback of its own clean-up."""
    if _is_main_thread():
        signal.signal(signal.SIGINT, lambda *_: os._exit(code))


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _end(number: int, frame: FrameType | None) -> None:
    if is_rank_zero():
        os.write(2, b"\nreslight: interrupted\n")
    os._exit(INTERRUPTED)
