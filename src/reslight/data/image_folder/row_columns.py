"""Columns of tables with images, and what they say about each image: labels, paths and groups."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reslight.data.image_folder.class_tree import class_name
from reslight.data.image_folder.label_table import USUAL, usual_name
from reslight.data.image_folder.rows import UNLABELLED, RowInfo, Texts
from reslight.data.loading.parquet import IMAGE_COLUMNS, LABEL_COLUMNS, column_of_kind, holds_images, names_of
from reslight.messages import UsageError

PACKED = b"reslight.packed"
"""The key in the schema's metadata of shards that `reslight data pack` wrote."""


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


def find_columns(file: Path, schema: Any) -> Columns:
    """Find the columns of images and labels, those with the usual names or the only ones of a suitable type; and one of groups, if any.

    Args:
        file: The file, for messages.
        schema: The Arrow schema of the table.

    Raises:
        UsageError: no such columns, or several.
    """
    from pyarrow import types

    image = column_of_kind(file, schema, IMAGE_COLUMNS, holds_images, "images must be bytes, or structs of bytes and a path")
    named = next((name for name in LABEL_COLUMNS if name in schema.names), None)
    if named and is_list(kind := schema.field(named).type) and types.is_integer(kind.value_type):
        label = named
    else:
        label = column_of_kind(file, schema, LABEL_COLUMNS, types.is_integer, "labels must be whole numbers")
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
        if types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind)
    }
    return next((by_usual[name] for name in USUAL["group"] if name in by_usual), None)


def is_list(kind: Any) -> bool:
    """Return whether an Arrow type is a list of values."""
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def row_info(file: Path, columns: Columns, read: Callable[[str], Any]) -> RowInfo:
    """Return what a table says about its images.

    Args:
        file: The file, for messages.
        columns: The columns.
        read: Returns a column, or `COLUMN.path` as a column of structs, as an Arrow ChunkedArray.

    Raises:
        UsageError: some images without a label.
    """
    from pyarrow import compute

    labels, counts = _labels(file, read(columns.label))
    paths = texts_of(compute.struct_field(read(f"{columns.image}.path"), "path")) if columns.has_paths else None
    groups = texts_of(read(columns.group)) if columns.group else None
    return RowInfo(labels, counts, columns.names, paths, groups, columns.is_packed and paths is not None)


def _labels(file: Path, column: Any) -> tuple[np.ndarray, np.ndarray | None]:
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
