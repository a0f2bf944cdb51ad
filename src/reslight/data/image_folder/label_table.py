"""Label files: tables with the path and the class of each image, as CSV, TSV, JSON lines or parquet."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Self

from reslight.data.image_folder.class_tree import is_image
from reslight.data.image_folder.label_sets import CELLS, is_yes, joined
from reslight.data.loading.parquet import names_of, opened, path_in_struct
from reslight.messages import UsageError, shortened, suggestion, visible
from reslight.plain import plain
from reslight.regular_file import read_regular

_LARGEST = 2**30
"""Bytes of a label file that are read at most."""
_DELIMITERS = ",;\t|"
_BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_SHOWN = 20
USUAL: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "path": (
            *("file_name", "filename", "file_path", "filepath", "file", "path"),
            *("image_path", "image_file", "image_name", "image_id", "image", "img", "id"),
        ),
        "label": ("label", "class", "category", "target", "class_name", "label_name", "species", "breed", "labels"),
        "split": ("split", "subset", "partition"),
        "group": ("group", "group_id", "patient_id", "subject_id"),
    }
)
"""The usual names of each column, in lower case with underscores; the first one found is used."""


@dataclass(frozen=True)
class LabelColumns:
    """The columns of a label file. Null means one with a usual name, if there is one."""

    path: str | None = None
    """Path of the image."""
    label: tuple[str, ...] | str | None = None
    """Name of its class, or a list of several; or a list of columns, one for each class, that have 1 if the image has the class."""
    split: str | None = None
    """Its split: train, val or test."""
    group: str | None = None
    """What the image belongs to, such as a patient or a camera: no group is in both training and validation."""
    separator: str | None = None
    """What is between several labels of an image, such as |; null for one label."""

    def __post_init__(self) -> None:
        """Keep a list of columns as a tuple."""
        if isinstance(self.label, list):
            object.__setattr__(self, "label", tuple(self.label))

    def names(self, kind: str) -> tuple[str, ...]:
        """Return the names of the columns of a kind, such as path; empty without one."""
        found = getattr(self, kind)
        return () if found is None else (found,) if isinstance(found, str) else tuple(found)

    def info(self) -> dict[str, Any]:
        """Return the columns as plain data for checkpoints and model cards; the separator only if there is one."""
        columns: dict[str, Any] = plain(self)
        return {kind: name for kind, name in columns.items() if name is not None or kind != "separator"}

    @classmethod
    def of_card(cls, columns: object) -> Self:
        """Return the columns that a model card names; those of another type are ignored."""
        named = columns if isinstance(columns, Mapping) else {}
        found: dict[str, Any] = {one.name: name for one in fields(cls) if isinstance(name := named.get(one.name), str)}
        if isinstance(several := named.get("label"), list | tuple) and all(isinstance(name, str) for name in several):
            found["label"] = tuple(several)
        return cls(**found)


class Fault(NamedTuple):
    """A mistake in a label file, as a sentence in two parts."""

    path: str
    """The line of the file."""
    text: str
    """What is wrong with it and what to do."""
    number: int = 0
    """The number of the line, for sorting."""

    def __str__(self) -> str:
        """Return the sentence, in one printable line."""
        return visible(f"{self.path} {self.text}", 2_000)


@dataclass(frozen=True)
class LabelTable:
    """The rows of a label file.

    Attributes:
        file: The file.
        columns: The names of the columns that are used.
        unit: What a row of the file is called: line or row.
        numbers: The number of each row.
        paths: The path of each image, as written.
        labels: The name of its class; of several, their text, see `label_sets`.
        several: Whether an image may have several classes, or none.
        splits: Its split, as written; None without such a column.
        groups: Its group; None without such a column.
        faults: Rows that cannot be read; they are left out.
    """

    file: Path
    columns: LabelColumns
    unit: str
    numbers: Sequence[int]
    paths: Sequence[str]
    labels: Sequence[str]
    splits: Sequence[str] | None
    groups: Sequence[str] | None
    faults: Sequence[Fault] = field(default=())
    several: bool = False

    def where(self, row: int) -> str:
        """Return the place of a row for messages."""
        return f"{self.unit} {self.numbers[row]} of {self.file}"

    def fault(self, row: int, text: str) -> Fault:
        """Return a fault of a row."""
        return Fault(self.where(row), text, self.numbers[row])


class _Raw(NamedTuple):
    """The columns and the rows of a file of any format."""

    names: Sequence[str]
    read: Callable[[Sequence[str]], Iterator[tuple[int, Sequence[Any] | str]]]
    """Yields, for each row, its number and its values in these columns, or a fault's text instead."""
    unit: str = "line"
    """What a row is called."""


def read_label_table(file: Path, columns: LabelColumns = LabelColumns()) -> LabelTable:
    """Read a label file.

    Args:
        file: A file `*.csv`, `*.tsv`, `*.jsonl` or `*.parquet`; delimiters other than the usual ones are found in the header.
        columns: The names of its columns, where they are not the usual ones.

    Raises:
        OSError: a file that is missing or cannot be read.
        UsageError: a file in another format, without the columns or without rows.
    """
    raw = _open(file)
    used = _find_columns(file, raw.names, columns)
    wanted = [(kind, name) for kind in USUAL for name in used.names(kind)]
    numbers: list[int] = []
    rows: list[Sequence[Any]] = []
    faults: list[Fault] = []
    for number, values in raw.read([name for _, name in wanted]):
        if isinstance(values, str):
            faults.append(Fault(f"{raw.unit} {number} of {file}", values, number))
        else:
            numbers.append(number)
            rows.append(values)
    if not rows and not faults:
        raise UsageError(f"{file} has no rows: it must have one for each image. Add them.")
    cells = {pair: values for pair, values in zip(wanted, zip(*rows, strict=True), strict=True)} if rows else {pair: () for pair in wanted}
    label = used.label if isinstance(used.label, str) else ""
    several = not label or used.separator is not None or any(isinstance(value, list | tuple) for value in cells["label", label])
    texts = {kind: _texts(cells[kind, name]) for kind, name in wanted if kind != "label"}
    texts["label"] = (
        _texts(cells["label", label])
        if not several
        else [_several(value, used.separator) for value in cells["label", label]]
        if label
        else [_classes_of(row, used.names("label")) for row in zip(*(cells["label", name] for name in used.names("label")), strict=True)]
    )
    if bad := sorted({row for found in texts.values() for row, text in enumerate(found) if text is None}):
        faults += [
            Fault(f"{raw.unit} {numbers[row]} of {file}", _what_is_wrong(rows[row], wanted, used, several=several), numbers[row])
            for row in bad
        ]
        left_out = set(bad)
        numbers = [number for row, number in enumerate(numbers) if row not in left_out]
        texts = {kind: [text for row, text in enumerate(found) if row not in left_out] for kind, found in texts.items()}
    whole: dict[str, Any] = texts  # no text is None by now
    of_kinds = (whole["path"], whole["label"], whole.get("split"), whole.get("group"))
    return LabelTable(file, used, raw.unit, numbers, *of_kinds, faults, several)


def has_usual_columns(file: Path, columns: LabelColumns = LabelColumns()) -> bool:
    """Return whether a file is a table with the Hub's column `file_name` and a column of labels, unless columns are given.

    Raises:
        OSError: a file that cannot be read.
        UsageError: a damaged file that begins with `file_name`.
    """
    try:
        names = {usual_name(name) for name in _open(file).names}
    except UsageError:  # of class folders, for instance, whose table of other things does not matter
        with file.open("rb") as content:
            if b"file_name" in content.readline(10_000).replace(b"\0", b""):  # also in UTF-16
                raise
        return False
    return ("file_name" in names or columns.path is not None) and (
        columns.label is not None or any(name in names for name in USUAL["label"])
    )


def _open(file: Path) -> _Raw:
    kind = file.suffix.lower()
    if kind == ".parquet":
        return _open_parquet(file)
    if kind in (".csv", ".tsv", ".txt"):
        return _open_csv(file, "\t" if kind == ".tsv" else None)
    if kind in (".jsonl", ".ndjson"):
        return _open_json_lines(file)
    raise UsageError(f"{file} is no label file: its name must end in .csv, .tsv, .jsonl or .parquet. Convert or rename it.")


def _open_csv(file: Path, delimiter: str | None) -> _Raw:
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

    return _Raw(names, read)


def _open_json_lines(file: Path) -> _Raw:
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

    return _Raw(list(first), read)


def _open_parquet(file: Path) -> _Raw:
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

    return _Raw(names, read, "row")


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


def _find_columns(file: Path, names: Sequence[str], given: LabelColumns) -> LabelColumns:
    """Return the names of the columns, as the file has them; those of a split or a group only where there are such columns.

    Raises:
        UsageError: a missing column, or two of one name.
    """
    if given.separator is not None and not (given.separator and isinstance(given.label, str | None)):
        allowed = "it must be text, and null where each class has a column of its own"
        raise UsageError(f"data.labels_columns.separator is {given.separator!r}: {allowed}. Use null, or one column of labels.")
    found: dict[str, Any] = {}
    listed = shortened([visible(name) for name in names], _SHOWN) or "none"
    for kind, usual in USUAL.items():
        chosen = given.names(kind)
        if not chosen:
            by_usual = {usual_name(one): one for one in reversed(names)}
            name = next((by_usual[one] for one in usual if one in by_usual and by_usual[one] not in found.values()), None)
            if name is None and kind in ("path", "label"):
                raise UsageError(
                    f"{file} has the columns {listed}: none has a usual name for the {kind} of an image, such as {usual[0]}. "
                    f"Set data.labels_columns.{kind} to one of them."
                )
            found[kind] = name
        elif missing := [name for name in chosen if name not in names]:
            raise UsageError(
                f"data.labels_columns.{kind} is {visible(missing[0])}: {file} has the columns {listed}. "
                f"{suggestion(missing[0], names, 'Use one of them.')}"
            )
        else:
            found[kind] = getattr(given, kind)
        for name in LabelColumns(**found).names(kind):
            if list(names).count(name) > 1:
                raise UsageError(f"{file} has two columns {visible(name)}: names of columns must differ. Rename one.")
    return LabelColumns(**found, separator=given.separator)


def _texts(values: Iterable[Any]) -> list[str | None]:
    """Return values as text: words, whole numbers, false and true; None for any other value."""
    return [(value.strip() if isinstance(value, str) else str(value) if isinstance(value, int) else "") or None for value in values]


def _several(value: Any, separator: str | None) -> str | None:
    """Return the classes in a cell as one text, see `label_sets`: a list, or names with a separator between; None for any other value."""
    if value is None:
        return ""
    names = value if isinstance(value, list | tuple) else value.split(separator) if isinstance(value, str) and separator else [value]
    found = _texts(name for name in names if not isinstance(name, str) or name.strip())
    return None if None in found else joined(name for name in found if name)


def _classes_of(cells: Sequence[Any], names: Sequence[str]) -> str | None:
    """Return the classes whose columns say that the image has them, as one text, see `label_sets`; None if a column has another value."""
    has = [is_yes(cell) for cell in cells]
    return None if None in has else joined(name for name, one in zip(names, has, strict=True) if one)


def _what_is_wrong(values: Sequence[Any], wanted: Sequence[tuple[str, str]], columns: LabelColumns, *, several: bool) -> str:
    """Return what is wrong with the first value of a row that cannot be used, and what to do."""
    for value, (kind, name) in zip(values, wanted, strict=True):
        allowed = "text or a whole number"
        if kind == "label" and isinstance(columns.label, tuple):
            if is_yes(value) is not None:
                continue
            allowed = CELLS
        elif kind == "label" and several:
            if _several(value, columns.separator) is not None:
                continue
            allowed = "a list of text or whole numbers"
        elif _texts([value])[0] is not None:
            continue
        elif value is None or isinstance(value, str):
            return f"has no {kind} in the column {visible(name)}. Add it, or remove the row."
        return f"has {visible(value, 40)} in the column {visible(name)}: the {kind} must be {allowed}. Correct it."
    raise AssertionError("no value of the row is wrong")


def usual_name(name: str) -> str:
    """Return the name of a column in lower case with underscores, as in `USUAL`."""
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _reason(error: Exception) -> str:
    return visible(error, 100).rstrip(".")
