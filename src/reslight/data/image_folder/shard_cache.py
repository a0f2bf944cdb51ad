"""Copies of parquet shards that can be memory-mapped.

A parquet file can only be read one row group at a time, and a training step needs images from all over the dataset. So the images of
a shard are copied once, still encoded, into an Arrow file in the cache (see `cache.py`), which is memory-mapped: every image is then
at a known address.
"""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from reslight.atomic import write_files
from reslight.data.image_folder.class_tree import class_name
from reslight.data.loading.cache import cache_folder, stamp_of
from reslight.data.loading.parquet import IMAGE_COLUMNS, LABEL_COLUMNS, column_of_kind, holds_images, names_of, opened
from reslight.messages import UsageError

log = logging.getLogger(__name__)

UNLABELLED = -1
"""The label of an unlabelled image."""
_ROWS = 256
"""Images copied at a time."""
_NAMES = b"reslight.names"
"""Key of the class names in the schema of a cached file."""


@dataclass(frozen=True)
class _Columns:
    """The columns of a shard that are read."""

    image: str
    label: str
    names: list[str] | None
    """The class names in the schema."""
    rows: int


def map_tables(files: Sequence[Path], root: Path) -> dict[Path, Any]:
    """Memory-map the Arrow table of each shard, with the columns `image` (bytes) and `label`; new shards are copied to the cache first.

    Args:
        files: The shards.
        root: The dataset, for log lines.

    Raises:
        OSError: a cache that cannot be written.
        UsageError: a shard that is damaged, or without a column of images and one of labels.
    """
    tables = {file: _from_cache(file) for file in files}
    # All schemas are checked before the first shard is copied, which may take minutes.
    new = {file: _columns(file) for file, table in tables.items() if table is None}
    if new:
        images, size = sum(columns.rows for columns in new.values()), sum(file.stat().st_size for file in new)
        log.info("copying %s images (%.2f GB) of %s to %s; this happens once", f"{images:,}", size / 1e9, root, cache_folder() / "shards")
        if (first := next(iter(new.values()))).label not in LABEL_COLUMNS:
            log.warning("%s: labels are read from the column %s, the only one of whole numbers", root, first.label)
    return {file: _copy_to_cache(file, new[file]) if table is None else table for file, table in tables.items()}


def class_names(table: Any) -> tuple[str, ...]:
    """Return the class names of a table, see `class_name`; empty if its shard has none."""
    return tuple(map(class_name, json.loads(table.schema.metadata[_NAMES]) or ()))


def _cache_path(file: Path) -> Path:
    """Return the path of a shard's copy in the cache; it changes when the shard does."""
    return cache_folder() / "shards" / f"{_cache_key(file)}-{stamp_of([file])[:12]}.arrow"


def _cache_key(file: Path) -> str:
    return hashlib.sha256(os.fsencode(file.absolute())).hexdigest()[:12]


def _from_cache(file: Path) -> Any | None:
    """Memory-map a shard's Arrow table from the cache; None if it is absent, damaged, or written by an older reslight."""
    if not (path := _cache_path(file)).is_file():
        return None
    import pyarrow as arrow

    try:
        table = arrow.ipc.open_file(arrow.memory_map(str(path))).read_all()
    except (arrow.ArrowException, OSError):
        return None
    return table if _NAMES in (table.schema.metadata or {}) else None


def _copy_to_cache(file: Path, columns: _Columns) -> Any:
    """Copy a shard to the cache, delete copies of its earlier contents, and memory-map the new Arrow table.

    Raises:
        OSError: a cache that cannot be written.
        UsageError: a damaged shard.
    """
    path = _cache_path(file)
    try:
        write_files({path: lambda sink: _write(file, columns, sink)})
    except OSError as error:
        reason = getattr(error.__cause__, "strerror", None) or error
        raise OSError(f"{path.parent} cannot hold the images of {file}: {reason}. Make room, or set RESLIGHT_CACHE.") from error
    for stale in path.parent.glob(f"{_cache_key(file)}-*.arrow"):
        if stale != path:
            with contextlib.suppress(OSError):  # another user's file, or deleted by another process
                stale.unlink()
    if (table := _from_cache(file)) is None:
        raise OSError(f"{path} was written, but cannot be read. Set RESLIGHT_CACHE to another folder.")
    return table


def _write(file: Path, columns: _Columns, sink: BinaryIO) -> None:
    """Write the images and labels of a shard as an Arrow file, some rows at a time."""
    import pyarrow as arrow

    schema = arrow.schema({"image": arrow.large_binary(), "label": arrow.int64()}, {_NAMES: json.dumps(columns.names)})
    with arrow.ipc.new_file(sink, schema) as writer:
        for images, labels in _batches(file, columns):
            writer.write_batch(arrow.record_batch([images, labels], schema))


def _batches(file: Path, columns: _Columns) -> Iterator[tuple[Any, Any]]:
    """Yield the images and labels of a shard, some rows at a time."""
    import pyarrow as arrow
    from pyarrow import compute

    with opened(file) as shard:
        labels = shard.read([columns.label]).column(0).cast(arrow.int64())
        numbers = labels.fill_null(UNLABELLED).combine_chunks()
        if len(numbers) and compute.all(compute.equal(numbers, UNLABELLED)).as_py():
            # Unlabelled images are never read; in ImageNet they are a tenth of all images.
            yield arrow.nulls(len(numbers), arrow.large_binary()), numbers
            return
        if labels.null_count:
            raise UsageError(f"{file} has images without a label: all or none must have one. Remove them, or set data.root.")
        start = 0
        for batch in shard.iter_batches(_ROWS, columns=[columns.image]):
            images = batch.column(0)
            if arrow.types.is_struct(images.type):
                images = compute.struct_field(images, "bytes")
            yield images.cast(arrow.large_binary()), numbers.slice(start, len(images))
            start += len(images)


def _columns(file: Path) -> _Columns:
    """Find the columns of images and labels: those with the usual names, or the only ones of a suitable type.

    Raises:
        UsageError: no such columns, or several.
    """
    from pyarrow import types

    with opened(file) as shard:
        schema = shard.schema_arrow
        image = column_of_kind(file, schema, IMAGE_COLUMNS, holds_images, "images must be bytes, or structs of bytes and a path")
        label = column_of_kind(file, schema, LABEL_COLUMNS, types.is_integer, "labels must be whole numbers")
        return _Columns(image, label, names_of(file, schema.metadata or {}, label), shard.metadata.num_rows)
