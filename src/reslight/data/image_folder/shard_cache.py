"""Copies of parquet shards that can be memory-mapped.

A parquet file can only be read one row group at a time, and a training step needs images from all over the dataset. So the images of
a shard are copied once, still encoded, into a file in the cache (see `shard_copy.py`), which is memory-mapped: every image is then at a
known address. A copy that is damaged is made again, when the dataset is opened or in the middle of training.
"""

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from reslight.atomic import write_files
from reslight.data.image_folder.row_columns import Columns, find_columns, row_info
from reslight.data.image_folder.rows import RowInfo
from reslight.data.image_folder.shard_copy import Index, ShardCopy, write_copy
from reslight.data.loading.cache import cache_folder, remove_unfinished, stamp_of, writing_to
from reslight.data.loading.parquet import LABEL_COLUMNS, opened
from reslight.messages import UsageError

log = logging.getLogger(__name__)

_ROWS = 256
"""Images copied at a time."""


@dataclass(eq=False)
class CachedShard:
    """The images of a parquet shard, read from its copy in the cache."""

    file: Path
    """The parquet file."""
    copy: ShardCopy
    _repair: Lock = field(default_factory=Lock, repr=False)

    def __reduce__(self) -> tuple[type["CachedShard"], tuple[Path, ShardCopy]]:
        """Leave the lock out, which another process has no use for."""
        return type(self), (self.file, self.copy)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.copy)

    @property
    def index(self) -> Index:
        """Sizes and checksums, and what the shard says about the images."""
        return self.copy.index

    def read(self, row: int) -> bytearray:
        """Return the bytes of an image, empty if the shard has none; a damaged copy is made again.

        Raises:
            OSError: a cache that cannot be written.
            UsageError: a shard that is damaged, or that changed since it was copied.
        """
        if (data := self.copy.read(row)) is not None:
            return data
        with self._repair:
            if (data := self.copy.read(row)) is None:  # no other thread made the copy again meanwhile
                log.warning("%s is damaged: %s is copied again", self.copy.path, self.file)
                copy = _copy_to_cache(self.file, _columns(self.file)[0])
                if not copy.index.is_same(self.index):
                    raise UsageError(f"{self.file} has other images than at the start of this run. Start again.")
                self.copy, data = copy, copy.read(row)
        if data is None:
            raise OSError(f"{self.copy.path} was written, but is damaged when it is read. Set RESLIGHT_CACHE to another disk.")
        return data


def open_shards(files: Sequence[Path], root: Path) -> dict[Path, CachedShard]:
    """Open the images of each shard; new shards are copied to the cache first.

    Args:
        files: The shards.
        root: The dataset, for log lines.

    Raises:
        OSError: a cache that cannot be written.
        UsageError: a shard that is damaged, or without a column of images and one of labels.
    """
    remove_unfinished(cache_folder() / "shards")
    copies = {file: _from_cache(file) for file in files}
    # All schemas are checked before the first shard is copied, which may take minutes.
    new = {file: _columns(file) for file, copy in copies.items() if copy is None}
    if new:
        images, size = sum(rows for _, rows in new.values()), sum(file.stat().st_size for file in new)
        log.info("copying %s images (%.2f GB) of %s to %s; this happens once", f"{images:,}", size / 1e9, root, cache_folder() / "shards")
        if (first := next(iter(new.values()))[0]).label not in LABEL_COLUMNS:
            log.warning("%s: labels are read from the column %s, the only one of whole numbers", root, first.label)
    return {file: CachedShard(file, copy or _copy_to_cache(file, new[file][0])) for file, copy in copies.items()}


def is_copied(file: Path) -> bool:
    """Return whether the cache has a copy of a shard, damaged or not."""
    try:
        return _cache_path(file).exists()
    except OSError:
        return False


def _cache_path(file: Path) -> Path:
    """Return the path of a shard's copy in the cache; it changes when the shard does."""
    return cache_folder() / "shards" / f"{_cache_key(file)}-{stamp_of([file])[:12]}.images"


def _cache_key(file: Path) -> str:
    return hashlib.sha256(os.fsencode(file.absolute())).hexdigest()[:12]


def _from_cache(file: Path) -> ShardCopy | None:
    """Open a shard's copy in the cache; None if it is missing, damaged, or of an older format."""
    try:
        return ShardCopy(_cache_path(file))
    except (OSError, ValueError):
        return None


def _copy_to_cache(file: Path, columns: Columns) -> ShardCopy:
    """Copy a shard to the cache, delete copies of its earlier contents and formats, and open the new copy.

    Raises:
        OSError: a cache that cannot be written.
        UsageError: a damaged shard.
    """
    path = _cache_path(file)
    try:
        with writing_to(path.parent):
            info = _info(file, columns)
            write_files({path: lambda sink: write_copy(sink, _images(file, columns, info), info)})
    except OSError as error:
        reason = getattr(error.__cause__, "strerror", None) or error
        raise OSError(f"{path.parent} cannot hold the images of {file}: {reason}. Make room, or set RESLIGHT_CACHE.") from error
    for stale in path.parent.glob(f"{_cache_key(file)}-*"):
        if stale != path:
            with contextlib.suppress(OSError):  # another user's file, or deleted by another process
                stale.unlink()
    if (copy := _from_cache(file)) is None:
        raise OSError(f"{path} was written, but cannot be read. Set RESLIGHT_CACHE to another folder.")
    return copy


def _info(file: Path, columns: Columns) -> RowInfo:
    from pyarrow import compute

    with opened(file) as shard:
        labels = shard.read([columns.label]).column(0)
        paths = compute.struct_field(shard.read([f"{columns.image}.path"]).column(0), "path") if columns.has_paths else None
        groups = shard.read([columns.group]).column(0) if columns.group else None
        return row_info(file, columns, labels, paths, groups)


def _images(file: Path, columns: Columns, info: RowInfo) -> Iterator[list[bytes]]:
    """Yield the images of a shard, some rows at a time."""
    import pyarrow as arrow
    from pyarrow import compute

    with opened(file) as shard:
        if shard.metadata.num_rows and info.counts is None and info.is_unlabelled:
            # Unlabelled images are never read; in ImageNet they are a tenth of all images.
            yield [b""] * shard.metadata.num_rows
            return
        name = f"{columns.image}.bytes" if columns.has_paths else columns.image
        for batch in shard.iter_batches(_ROWS, columns=[name]):
            images = batch.column(0)
            if arrow.types.is_struct(images.type):
                images = compute.struct_field(images, "bytes")
            yield [image or b"" for image in images.to_pylist()]


def _columns(file: Path) -> tuple[Columns, int]:
    """Return the columns and the number of rows of a shard.

    Raises:
        UsageError: no columns of images and labels, or several.
    """
    with opened(file) as shard:
        return find_columns(file, shard.schema_arrow), shard.metadata.num_rows
