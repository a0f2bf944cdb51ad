"""Tables in files, as CSV, TSV, JSON lines or parquet: their columns, and the values of each row."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from reslight.data.image_folder.class_tree import is_image
from reslight.data.loading.parquet import names_of, opened, path_in_struct
from reslight.messages import UsageError, visible
from reslight.regular_file import read_regular

_LARGEST = 2**30
"""Bytes of a label file that are read at most."""
_DELIMITERS = ",;\t|"
_BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


class TableFile(NamedTuple):
    """The columns and the rows of a file of any format."""

    names: Sequence[str]
    read: Callable[[Sequence[str]], Iterator[tuple[int, Sequence[Any] | str]]]
    """Yields, for each row, its number and its values in these columns, or a fault's text instead."""
    unit: str = "line"
    """What a row is called."""


def open_table(file: Path) -> TableFile:
    """Read the names of the columns of a table.

    Args:
        file: A file `*.csv`, `*.tsv`, `*.jsonl` or `*.parquet`; delimiters other than the usual ones are found in the header.

    Raises:
        OSError: a file that is missing or cannot be read.
        UsageError: a file in another format, or damaged.
    """
    kind = file.suffix.lower()
    if kind == ".parquet":
        return _open_parquet(file)
    if kind in (".csv", ".tsv", ".txt"):
        return _open_csv(file, "\t" if kind == ".tsv" else None)
    if kind in (".jsonl", ".ndjson"):
        return _open_json_lines(file)
    raise UsageError(f"{file} is no label file: its name must end in .csv, .tsv, .jsonl or .parquet. Convert or rename it.")


def _open_csv(file: Path, delimiter: str | None) -> TableFile:
    text = _text_of(file)
    header = next((line for line in text.splitlines() if line.strip()), "")
    if delimiter is None or delimiter not in header:
        delimiter = max(_DELIMITERS, key=header.count)
    lines = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True, skipinitialspace=True)

    def rows() -> Iterator[tuple[int, list[str]]]:
        before = 0
        try:
            for row in lines:
                if any(row):
                    yield before + 1, row
                before = lines.line_num
        except csv.Error as error:
            raise UsageError(f"line {before + 1} of {file} cannot be read: {_reason(error)}. Correct its quotes.") from error

    content = rows()
    names = [name.strip() for name in next(content, (0, []))[1]]
    if names and any(map(is_image, names)):
        raise UsageError(
            f"{file} begins with an image: its first line must name the columns. Add {delimiter.join(('file_name', 'label'))}."
        )

    def read(wanted: Sequence[str]) -> Iterator[tuple[int, Sequence[str] | str]]:
        chosen = [names.index(name) for name in wanted]
        for number, row in content:
            if len(row) == len(names):
                yield number, tuple([row[one] for one in chosen])
            else:
                yield number, f"has {len(row)} fields: the first line has {len(names)}. Correct it; quote a field with a delimiter."

    return TableFile(names, read)


def _open_json_lines(file: Path) -> TableFile:
    lines = [(number, line) for number, line in enumerate(_text_of(file).split("\n"), 1) if line.strip()]

    def parsed(line: str) -> Mapping[str, Any] | str:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            return f"is not JSON: {_reason(error)}. Correct it."
        return row if isinstance(row, dict) else 'must be a JSON object, such as {"file_name": "1.jpg", "label": "cat"}. Correct it.'

    first = parsed(lines[0][1]) if lines else {}
    if isinstance(first, str):
        raise UsageError(f"line {lines[0][0]} of {file} {first}")

    def read(wanted: Sequence[str]) -> Iterator[tuple[int, Sequence[Any] | str]]:
        for number, line in lines:
            row = parsed(line)
            yield number, row if isinstance(row, str) else [row.get(name) for name in wanted]

    return TableFile(list(first), read)


def _open_parquet(file: Path) -> TableFile:
    with opened(file) as table:
        names, metadata = list(table.schema_arrow.names), table.schema_arrow.metadata or {}
        in_structs = {name for name in names if path_in_struct(table.schema_arrow.field(name).type)}

    def read(wanted: Sequence[str]) -> Iterator[tuple[int, Sequence[Any]]]:
        with opened(file) as table:
            columns = [_cells(table, name, is_struct=name in in_structs) for name in wanted]
        for place, name in enumerate(wanted):
            if classes := names_of(file, metadata, name):  # the Hub's numbers of named classes
                columns[place] = [_named(one, classes) for one in columns[place]]
        yield from enumerate(zip(*columns, strict=True))

    return TableFile(names, read, "row")


def _cells(table: Any, name: str, *, is_struct: bool) -> list[Any]:
    """Return the cells of a column; of the Hub's structs of an image and its path, the paths."""
    if not is_struct:
        return list(table.read([name]).column(0).to_pylist())
    return [None if cell is None else cell["path"] for cell in table.read([f"{name}.path"]).column(0).to_pylist()]


def _named(value: Any, classes: Sequence[str]) -> Any:
    """Return the name of a numbered class, or of each in a list; another value as it is."""
    if isinstance(value, list):
        return [_named(one, classes) for one in value]
    return classes[value] if isinstance(value, int) and 0 <= value < len(classes) else value


def _text_of(file: Path) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 with a byte-order mark.

    Raises:
        OSError: a file that is missing or cannot be read.
        UsageError: another encoding.
    """
    data = bytes(read_regular(file, _LARGEST))
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"line {line} of {file} is not {encoding.upper()[:6].rstrip('-')}: save the file as UTF-8.") from error
    if "\0" in text:
        raise UsageError(f"{file} has null characters: it must be text. Save the file as UTF-8.")
    return text


def _reason(error: Exception) -> str:
    return visible(error, 100).rstrip(".")
