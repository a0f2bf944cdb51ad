"""stdout and stderr of a command: the output of a run may get lost, the run may not."""

import errno
import io
import os
import sys
from typing import Any

READER_GONE = (errno.EPIPE, errno.EIO)
"""The program that reads the output, such as `head`, has ended; the terminal was closed."""


class Output(io.FileIO):
    """Writes to stdout or stderr, and names the stream in an error. After an error, everything that is written is dropped.

    Args:
        descriptor: The number of the open file.
        called: The name of the stream.

    Attributes:
        needs_reader: Whether it is an error that the reader of the output has ended.
    """

    def __init__(self, descriptor: int, called: str) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.called, self.needs_reader = called, True

    def write(self, data: Any, /) -> int:
        """Write bytes; return how many were written.

        Raises:
            OSError: the bytes cannot be written.
        """
        try:
            return super().write(data)
        except BlockingIOError:  # try again
            raise
        except OSError as error:
            # Python flushes what is left when the process ends, and libraries print, too.
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            if error.errno in READER_GONE and not self.needs_reader:
                return len(data)
            raise OSError(error.errno, error.strerror, self.called) from error


def prepare_streams() -> None:
    r"""Name the streams in their errors, and have a console that is not UTF-8 show `\u732b` for a character that it does not have."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):
            continue
        stream.reconfigure(errors="backslashreplace")
        # Not what a test or a program put in its place, nor the console of Windows.
        if stream is getattr(sys, f"__{name}__") and type(_raw(stream)) is io.FileIO:
            stream.flush()
            raw = Output(stream.fileno(), name)
            buffer = raw if stream.write_through else io.BufferedWriter(raw)  # `python -u` has no buffer
            how = {"line_buffering": stream.line_buffering, "write_through": stream.write_through}
            setattr(sys, name, io.TextIOWrapper(buffer, stream.encoding, stream.errors, **how))


def keep_running_without_reader() -> None:
    """Drop output without an error once its reader has ended: a run must not end with `head` or with the terminal that started it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(raw := _raw(stream), Output):
            raw.needs_reader = False


def _raw(stream: object) -> object:
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)
