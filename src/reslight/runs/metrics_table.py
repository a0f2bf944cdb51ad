"""metrics.csv: a row for each step, complete up to every checkpoint whatever ends the process."""

import csv
import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from reslight.atomic import unfinished_files, write_files
from reslight.messages import UsageError
from reslight.regular_file import read_regular

FIRST_COLUMNS = ("epoch", "step")
_MAX_BYTES = 2**28


class MetricsTable:
    """Rows of rising steps in a CSV file; values of one step share a row, and a column without a value at that step is empty.

    A row is appended once it is complete: at the first value of a later step, or at `flush` before a checkpoint. More values of a row
    that is in the file, and new columns, replace the file by a rename. So a crash can cut short the last row only, and only one that is
    later than every checkpoint.

    Args:
        path: The file, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._columns = list(FIRST_COLUMNS)
        self._step = 0
        self._row: dict[str, str] = {}
        self._start: int | None = None  # where the current row begins in the file; None while it is not in the file
        self._is_synced = True

    def add(self, values: Mapping[str, Any], step: int) -> int:
        """Add values to the row of a step; return the step, which is never below that of an earlier row.

        Raises:
            OSError: the file cannot be written.
        """
        step = max(step, self._step)
        if step != self._step or not self._row:
            self._write()
            self._step, self._row, self._start = step, {}, None
        row = self._row | {name: _text(value) for name, value in values.items()} | {"step": str(step)}
        if row != self._row:
            self._row = row
            if self._start is not None:
                self._replace()
        return step

    def row_of(self, step: int) -> dict[str, str]:
        """Return the values of a step so far, as text; none if another step is the last one."""
        return dict(self._row) if step == self._step else {}

    def flush(self) -> None:
        """Write the current row, and wait until all rows are on the disk.

        Raises:
            OSError: the file cannot be written.
        """
        self._write()
        if not self._is_synced:
            with self.path.open("rb+") as file:
                os.fsync(file.fileno())
            self._is_synced = True

    def cut(self, step: int) -> None:
        """Remove the rows after a step, and what a crash left of a row or of a whole file.

        Raises:
            OSError: the file cannot be written.
            UsageError: a damaged file, or one that reslight did not write: its values would be lost.
        """
        for unfinished in unfinished_files(self.path.parent, self.path.name):
            unfinished.unlink(missing_ok=True)
        if not self.path.exists():
            return
        columns, rows = read_table(self.path)
        if not columns:  # not even the first line is whole
            columns = list(FIRST_COLUMNS)
        if lacking := [name for name in FIRST_COLUMNS if name not in columns]:
            raise UsageError(
                f"{self.path} has no column {lacking[0]}: it was altered. Restore it, or move it away: a new one is begun then."
            )
        kept: list[dict[str, str]] = []
        for row in rows:
            if row["step"].isdecimal() and (int(kept[-1]["step"]) if kept else -1) < int(row["step"]) <= step:
                kept.append(row)
        self._columns = columns
        if kept:
            self._row, self._step = kept[-1], int(kept[-1]["step"])
            self._start = len(_lines(columns, kept[:-1], header=True))
        content = _lines(columns, kept, header=True)
        if content != self.path.read_bytes():
            write_files({self.path: content})
        self._is_synced = False  # an unchanged file may not be on the disk yet

    def _write(self) -> None:
        """Write the current row, unless it is in the file."""
        if not self._row or self._start is not None:
            return
        if not self.path.exists() or not self._row.keys() <= {*self._columns}:
            self._replace()
            return
        start = self.path.stat().st_size
        try:
            with self.path.open("ab") as file:
                file.write(_lines(self._columns, [self._row]))
        except OSError:
            with suppress(OSError):  # a part of a row, which the next row would be joined to
                os.truncate(self.path, start)
            raise
        self._start, self._is_synced = start, False

    def _replace(self) -> None:
        """Replace the file by one with the current row and all of its columns."""
        before = self.path.read_bytes()[: self._start] if self.path.exists() else b""
        columns = [*self._columns, *(name for name in self._row if name not in self._columns)]
        if not before or columns != self._columns:
            before = _lines(columns, _read(before, self.path)[1], header=True)
        write_files({self.path: before + _lines(columns, [self._row])})
        self._columns, self._start, self._is_synced = columns, len(before), True


def read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return the columns and the whole rows of a table; a last line without a line break is not whole.

    Raises:
        OSError: a file that is missing or cannot be read.
        UsageError: a damaged file.
    """
    return _read(read_regular(path, _MAX_BYTES), path)


def _read(content: bytes | bytearray, path: Path) -> tuple[list[str], list[dict[str, str]]]:
    whole = content[: content.rfind(b"\n") + 1].decode(errors="replace")
    reader = csv.DictReader(io.StringIO(whole, newline=""))
    try:
        rows = [row for row in reader if None not in row and None not in row.values()]
    except csv.Error as error:
        raise UsageError(f"{path} is damaged: line {reader.line_num + 1}: {error}. Remove that line, or the file.") from None
    return [name for name in reader.fieldnames or () if name], rows


def _lines(columns: Sequence[str], rows: Iterable[Mapping[str, str]], *, header: bool = False) -> bytes:
    """Return rows as lines of CSV."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _text(value: Any) -> str:
    """Return a number as text that reads back as the same number."""
    if isinstance(value, float) and math.isfinite(value) and value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return repr(value) if isinstance(value, float) else str(value)
