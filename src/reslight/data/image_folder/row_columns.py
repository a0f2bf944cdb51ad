"""Columns of tables with images, and what they say about each image: labels, paths and groups."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reslight.data.image_folder.class_tree import class_name
from reslight.data.image_folder.label_table import USUAL, usual_name
from reslight.data.image_folder.pictures import UNLABELLED
from reslight.data.image_folder.rows import RowInfo, Texts
from reslight.data.image_folder.splits import SplitName
from reslight.data.loading.parquet import IMAGE_COLUMNS, LABEL_COLUMNS, column_of_kind, holds_images, names_of
from reslight.messages import UsageError, shortened, visible

PACKED = b"reslight.packed"
"""The key in the schema's metadata of shards that `reslight data pack` wrote."""


_SHOWN = 5


@dataclass(frozen=True)
class Columns:
    """The columns of a table that are read."""

    image: str
    label: str
    group: str | None
    names: tuple[str, ...]
    """The class names in the schema; empty if it has none."""
    has_paths: bool
    """Whether the images are structs with a path."""
    is_packed: bool


def find_columns(file: Path | str, schema: Any, *, texts: bool = False, paths: bool = False) -> Columns:
    """Find the columns of images and labels, those with the usual names or the only ones of a suitable type; and one of groups, if any.

    Args:
        file: The file, for messages.
        schema: The Arrow schema of the table.
        texts: Whether labels may be texts, too.
        paths: Whether images may be paths, too.

    Raises:
        UsageError: no such columns, or several.
    """
    from pyarrow import types

    def is_image(kind: Any) -> bool:
        return holds_images(kind) or (paths and is_text(kind))

    def is_label(kind: Any) -> bool:
        return bool(types.is_integer(kind)) or (texts and is_text(kind))

    image = column_of_kind(file, schema, IMAGE_COLUMNS, is_image, "images must be bytes, or structs of bytes and a path")
    named = next((name for name in LABEL_COLUMNS if name in schema.names), None)
    if named and is_list(kind := schema.field(named).type) and is_label(kind.value_type):
        label = named
    else:
        allowed = "whole numbers or texts" if texts else "whole numbers"
        label = column_of_kind(file, schema, LABEL_COLUMNS, is_label, f"labels must be {allowed}")
    kind, metadata = schema.field(image).type, schema.metadata or {}
    names = tuple(map(class_name, names_of(file, metadata, label) or ()))
    has_paths = types.is_struct(kind) and kind.get_field_index("path") >= 0
    return Columns(image, label, group_column(schema), names, has_paths, PACKED in metadata)


def group_column(schema: Any) -> str | None:
    """Return the column of groups that a table has under a usual name, if it is of text or whole numbers."""
    from pyarrow import types

    by_usual = {
        usual_name(name): name
        for name, kind in zip(reversed(schema.names), reversed(schema.types), strict=True)
        if types.is_integer(kind) or is_text(kind)
    }
    return next((by_usual[name] for name in USUAL["group"] if name in by_usual), None)


def is_text(kind: Any) -> bool:
    """Return whether an Arrow type is text."""
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind))


def is_list(kind: Any) -> bool:
    """Return whether an Arrow type is a list of values."""
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def row_info(file: Path | str, columns: Columns, labels: Any, paths: Any, groups: Any) -> RowInfo:
    """Return what a table says about its images.

    Args:
        file: The file, for messages.
        columns: The names of the columns.
        labels: Arrow ChunkedArray of numbers, or of lists of numbers.
        paths: Arrow ChunkedArray of text; None without paths.
        groups: Arrow ChunkedArray of text or whole numbers; None without groups.

    Raises:
        UsageError: some images without a label, or without a group.
    """
    values, counts = _labels(file, labels)
    if groups is not None and 0 < groups.null_count < len(groups):
        raise UsageError(
            f"{file} has {groups.null_count:,} of {len(groups):,} images without a value in the column {columns.group}: all or none must "
            "have a group, which is never in both training and validation. Add them, or remove the column."
        )
    of_paths, of_groups = (None if column is None else texts_of(column) for column in (paths, groups))
    return RowInfo(values, counts, columns.names, of_paths, of_groups, columns.is_packed and of_paths is not None)


def numbered(columns: Mapping[SplitName, Any], root: str, *, partial: bool = False) -> tuple[tuple[str, ...], dict[SplitName, Any]]:
    """Return labels that are texts as numbers, and the names of the classes; labels that are numbers as they are, without names.

    Args:
        columns: The labels of each split, as Arrow ChunkedArrays.
        root: The dataset, for messages.
        partial: Whether the classes are those of all splits, not of training alone.

    Raises:
        UsageError: a class without training images.
    """
    import pyarrow as arrow

    if not any(is_text(column.type.value_type if is_list(column.type) else column.type) for column in columns.values()):
        return (), dict(columns)
    values = {split: column.to_pylist() for split, column in columns.items()}
    used = {split: {class_name(str(one)) for value in of_split for one in _each(value)} for split, of_split in values.items()}
    names = tuple(sorted(set().union(*used.values()) if partial else used.get("train", ())))
    numbers = {name: number for number, name in enumerate(names)}
    for split, of_split in used.items():
        if unknown := sorted(of_split - set(names)):
            text = shortened([visible(name) for name in unknown], _SHOWN)
            raise UsageError(f"{root} has classes in {split} that are missing in train: {text}. Add training images, or remove the rows.")

    def number_of(value: Any) -> Any:
        found = [numbers[class_name(str(one))] for one in _each(value)]
        return found if isinstance(value, list) else found[0] if found else None

    return names, {
        split: arrow.chunked_array(
            [arrow.array(map(number_of, of_split), arrow.list_(arrow.int64()) if is_list(columns[split].type) else arrow.int64())]
        )
        for split, of_split in values.items()
    }


def _each(value: Any) -> list[Any]:
    """Return the labels of an image; none for a missing value."""
    return [one for one in (value if isinstance(value, list) else [value]) if one is not None]


def _labels(file: Path | str, column: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Return all labels, int64, and how many each image has; None if each has one.

    Raises:
        UsageError: some images without a label.
    """
    import pyarrow as arrow
    from pyarrow import compute

    counts = None
    if is_list(column.type):
        counts = compute.list_value_length(column).fill_null(0).cast(arrow.int64()).to_numpy()
        column = compute.list_flatten(column)
    labels = column.cast(arrow.int64())
    values = labels.fill_null(UNLABELLED).to_numpy()
    if labels.null_count and (values != UNLABELLED).any():
        raise UsageError(f"{file} has images without a label: all or none must have one. Remove them, or set data.root.")
    return values, counts


def texts_of(column: Any) -> Texts | None:
    """Return the texts or whole numbers of a column; None if a value is missing."""
    import pyarrow as arrow
    from pyarrow import types

    if column.null_count:
        return None
    if types.is_integer(column.type):
        column = column.cast(arrow.string())
    return Texts.of(column.cast(arrow.large_binary()).to_pylist())  # bytes, since text of strangers may not be UTF-8
