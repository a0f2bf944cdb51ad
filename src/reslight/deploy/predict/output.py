"""Files of predictions that are written row by row, and that an interrupted command resumes: csv, jsonl and parquet.

csv and jsonl files grow line by line; a line that was cut by a crash is removed. A parquet file cannot be read before it is complete, so
its rows are in small files beside it until then, in the folder `<file>.parts`.
"""

import csv
import io
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from reslight.atomic import make_folder, write_files
from reslight.deploy.predict.pipeline import Result
from reslight.messages import UsageError, has_control, is_control, visible

SUFFIXES = (".csv", ".jsonl", ".parquet")
_ROWS = 4096
"""Rows of a part of a parquet file; at most so many are computed again after a crash."""


class Output(Protocol):
    """A file of rows, one for each picture."""

    def paths(self) -> Iterator[str]:
        """Yield the path of each row that was written, as it was written."""

    def keep(self, rows: int) -> None:
        """Remove all rows behind the first ones."""

    def append(self, results: Sequence[Result]) -> None:
        """Add rows."""

    def flush(self) -> None:
        """Write all rows that were added."""

    def finish(self) -> None:
        """Make the file what others read."""


class Table:
    """The columns of a picture's row.

    Args:
        top: Classes of each picture.
        threshold: Only classes with a probability above it are kept; all if 0.
    """

    def __init__(self, top: int, threshold: float) -> None:
        self.top, self.threshold = top, threshold

    @property
    def columns(self) -> list[str]:
        """Names of the columns: path, label, probability, label2, probability2, ..., error."""
        numbers = ["", *map(str, range(2, self.top + 1))]
        return ["path", *(name for number in numbers for name in (f"label{number}", f"probability{number}")), "error"]

    def classes(self, result: Result) -> list[tuple[str, float]]:
        """Return the classes of a picture that are written."""
        pairs = result.prediction.classes if result.prediction else ()
        return [(label, probability) for label, probability in pairs if probability > self.threshold or not self.threshold]

    def values(self, result: Result) -> list[Any]:
        """Return the value of each column; None where it is empty."""
        pairs = [value for pair in self.classes(result) for value in pair]
        return [plain_path(result.path), *pairs, *[None] * (2 * self.top - len(pairs)), result.error]


class LinesOutput:
    """A csv or jsonl file.

    Args:
        path: The file; None for standard output.
        table: Its columns.
        is_json: Whether it is jsonl.
    """

    def __init__(self, path: Path | None, table: Table, *, is_json: bool) -> None:
        self._path, self._table, self._is_json = path, table, is_json
        self._file: BinaryIO = sys.stdout.buffer if path is None else path.open("r+b" if path.exists() else "w+b")
        has_line = path is not None and self._file.readline().endswith(b"\n")
        if path is not None:
            self._file.seek(0, io.SEEK_END if has_line else io.SEEK_SET)
            self._file.truncate()  # a crash may have cut the first line
        if not has_line:
            self._write([] if is_json else [table.columns])

    def paths(self) -> Iterator[str]:
        """Yield the path of each row that was written; a damaged row and those behind it count as not written."""
        self._file.seek(0)
        for number, line in enumerate(self._file):
            if line.endswith(b"\n") and (number or self._is_json):
                try:
                    text = line.decode()
                    path = json.loads(text)["path"] if self._is_json else next(csv.reader([text]))[0]
                except (ValueError, IndexError, csv.Error):
                    return
                yield path

    def keep(self, rows: int) -> None:
        """Remove all rows behind the first ones."""
        self._file.seek(0)
        for _ in range(rows if self._is_json else rows + 1):
            self._file.readline()
        self._file.truncate(self._file.tell())

    def append(self, results: Sequence[Result]) -> None:
        """Add rows."""
        if self._is_json:
            self._write([self._object(result) for result in results])
        else:
            values = [self._table.values(result) for result in results]
            self._write([[f"{value:.6f}" if isinstance(value, float) else value for value in row] for row in values])

    def flush(self) -> None:
        """Write all rows that were added."""
        self._file.flush()

    def finish(self) -> None:
        """Close the file."""
        self.flush()
        if self._path is not None:
            self._file.close()

    def _object(self, result: Result) -> dict[str, Any]:
        path = plain_path(result.path)
        if result.error is not None:
            return {"path": path, "error": result.error}
        classes = [{"label": label, "probability": round(probability, 6)} for label, probability in self._table.classes(result)]
        return {"path": path, "classes": classes}

    def _write(self, rows: Sequence[Any]) -> None:
        """Write rows in one call, so that Ctrl-C leaves whole lines."""
        text = io.StringIO()
        if self._is_json:
            text.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
        else:
            csv.writer(text, lineterminator="\n").writerows(rows)
        try:
            self._file.write(text.getvalue().encode())
            self._file.flush()
        except OSError as error:
            if self._path is None:
                raise
            message = f"{visible(self._path)} cannot be written: {error.strerror}. Make room, then repeat the command: it resumes."
            raise OSError(message) from error


class ParquetOutput:
    """A parquet file, of predictions or of embeddings.

    Args:
        path: The file.
        table: The columns of predictions; None for embeddings.
        features: Numbers of an embedding.
    """

    def __init__(self, path: Path, table: Table | None, features: int = 0) -> None:
        import pyarrow as pa

        self._path, self._table, self._parts, self._rows = path, table, parts_of(path), list[Result]()
        make_folder(self._parts)
        if table is None:
            columns = {"path": pa.string(), "embedding": pa.list_(pa.float32(), features)}
        else:
            columns = {name: pa.float32() if name.startswith("probability") else pa.string() for name in table.columns}
        self._schema = pa.schema(list(columns.items()))

    def paths(self) -> Iterator[str]:
        """Yield the path of each row that was written."""
        import pyarrow.parquet as pq

        for part in self._written():
            yield from pq.read_table(part, columns=["path"])["path"].to_pylist()

    def keep(self, rows: int) -> None:
        """Remove all rows behind the first ones."""
        import pyarrow.parquet as pq

        before = 0
        for part in self._written():
            has = pq.read_metadata(part).num_rows
            if before >= rows:
                part.unlink()
            elif before + has > rows:
                pq.write_table(pq.read_table(part, schema=self._schema).slice(0, rows - before), buffer := io.BytesIO())
                write_files({part: buffer.getvalue()})
            before += has

    def append(self, results: Sequence[Result]) -> None:
        """Add rows."""
        self._rows += results
        if len(self._rows) >= _ROWS:
            self.flush()

    def flush(self) -> None:
        """Write all rows that were added."""
        if not self._rows:
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._table is None:
            embeddings = [None if one.embedding is None else one.embedding.tolist() for one in self._rows]
            values: list[list[Any]] = [[plain_path(one.path) for one in self._rows], embeddings]
        else:
            values = [list(column) for column in zip(*(self._table.values(one) for one in self._rows), strict=True)]
        made = pa.table([pa.array(column, field.type) for column, field in zip(values, self._schema, strict=True)], schema=self._schema)
        number = max((int(part.stem) for part in self._written()), default=-1) + 1
        write_files({self._parts / f"{number:08}.parquet": lambda file: pq.write_table(made, file)})
        self._rows = []

    def finish(self) -> None:
        """Put the parts together, a row group each, and remove them."""
        self.flush()
        write_files({self._path: self._whole})
        for part in reversed(self._written()):  # the first rows are left if a crash interrupts this
            part.unlink()
        shutil.rmtree(self._parts)

    def _whole(self, file: BinaryIO) -> None:
        import pyarrow.parquet as pq

        with pq.ParquetWriter(file, self._schema) as writer:
            for part in self._written():
                writer.write_table(pq.read_table(part, schema=self._schema))

    def _written(self) -> list[Path]:
        return sorted(self._parts.glob("[0-9]*.parquet"))


def parts_of(path: Path) -> Path:
    """Return the folder for the parts of a parquet file."""
    return path.with_name(f"{path.name}.parts")


def open_output(path: Path | None, table: Table) -> Output:
    """Open the file of the predictions, or standard output as csv.

    Raises:
        OSError: a file that cannot be written.
    """
    if path is not None and path.suffix == ".parquet":
        return ParquetOutput(path, table)
    return LinesOutput(path, table, is_json=path is not None and path.suffix == ".jsonl")


def check_suffix(option: str, path: Path, suffixes: Sequence[str]) -> None:
    """Check that a file's name says its format.

    Raises:
        UsageError: another suffix.
    """
    if path.suffix not in suffixes:
        raise UsageError(f"{option} is {visible(path)}: its name must end with {' or '.join(suffixes)}. Rename it.")


def plain_path(path: str) -> str:
    r"""Return a path as text that every reader takes: control characters, and bytes that are not UTF-8, as escapes such as `\x0a`."""
    return "".join(_escaped(one) if is_control(one) else one for one in path) if has_control(path) else path


def _escaped(character: str) -> str:
    # Python has a byte that is no UTF-8 as U+DC00 and the byte.
    is_byte = "\udc80" <= character <= "\udcff"
    return f"\\x{ord(character) - 0xDC00:02x}" if is_byte else character.encode("unicode_escape").decode()
