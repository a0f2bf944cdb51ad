"""Label files: tables with the path and the class of each image, as CSV, TSV, JSON lines or parquet."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Self

from reslight.data.image_folder.label_sets import CELLS, is_yes, joined
from reslight.data.image_folder.table_file import open_table
from reslight.messages import UsageError, shortened, suggestion, visible
from reslight.plain import plain

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


def read_label_table(file: Path, columns: LabelColumns = LabelColumns()) -> LabelTable:
    """Read a label file.

    Args:
        file: A file `*.csv`, `*.tsv`, `*.jsonl` or `*.parquet`; delimiters other than the usual ones are found in the header.
        columns: The names of its columns, where they are not the usual ones.

    Raises:
        OSError: a file that is missing or cannot be read.
        UsageError: a file in another format, without the columns or without rows.
    """
    raw = open_table(file)
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
        names = {usual_name(name) for name in open_table(file).names}
    except UsageError:  # of class folders, for instance, whose table of other things does not matter
        with file.open("rb") as content:
            if b"file_name" in content.readline(10_000).replace(b"\0", b""):  # also in UTF-16
                raise
        return False
    return ("file_name" in names or columns.path is not None) and (
        columns.label is not None or any(name in names for name in USUAL["label"])
    )


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
