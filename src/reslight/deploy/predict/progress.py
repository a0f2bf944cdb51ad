"""Show how far a long command is: a line that changes in a terminal, a line now and then elsewhere."""

import os
import sys
import time
from contextlib import suppress
from typing import TextIO

from reslight.messages import counted

TERMINAL_SECONDS, LINE_SECONDS = 0.2, 30.0
"""Intervals between two updates."""


class Progress:
    """Shows images, images per second, and the time that is left, on stderr.

    Args:
        total: Number of images; None if it is not known.
        done: Images that an earlier command has done.
    """

    def __init__(self, total: int | None, done: int = 0, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._total, self._first, self._done = total, done, done
        self._start = self._shown = time.monotonic()
        self._width = 0

    @property
    def speed(self) -> float:
        """Images per second so far."""
        return (self._done - self._first) / max(1e-9, time.monotonic() - self._start)

    def advance(self, images: int) -> None:
        """Count images, and show the line if it is time."""
        self._done += images
        now = time.monotonic()
        if now - self._shown >= (TERMINAL_SECONDS if self._is_terminal else LINE_SECONDS):
            self._shown = now
            self._print(self._line())

    def close(self) -> None:
        """Remove the line from the terminal."""
        if self._is_terminal and self._width:
            self._stream.write(f"\r{' ' * self._width}\r")
            self._stream.flush()

    def _line(self) -> str:
        if self._total is None:
            return f"{counted(self._done, 'image')}, {self.speed:,.0f}/s"
        left = duration((self._total - self._done) / max(1e-9, self.speed))
        return (
            f"{self._done:,} of {counted(self._total, 'image')} ({self._done / max(1, self._total):.0%}), {self.speed:,.0f}/s, {left} left"
        )

    def _print(self, line: str) -> None:
        if self._is_terminal:
            with suppress(OSError):  # a longer line would begin a new one each time
                line = line[: max(0, os.get_terminal_size(self._stream.fileno()).columns - 1) or None]  # 0 if unknown
            self._stream.write(f"\r{line.ljust(self._width)}")
            self._width = len(line)
        else:
            self._stream.write(f"{line}\n")
        self._stream.flush()


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
