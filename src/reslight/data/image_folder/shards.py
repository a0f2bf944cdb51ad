"""A set of images in parquet shards, as the Hugging Face Hub keeps them: encoded images that threads decode as they are needed.

A parquet file is read a row group at a time, and a step of training wants images from all over the set. So the images of
a shard are written once, as they are, into an Arrow file in the cache (`cache.py` says where), which is mapped into
memory: any image is then where a pointer says.
"""

import contextlib
import hashlib
import json
import logging
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reslight.data.image_folder.class_tree import fingerprint_of
from reslight.data.image_folder.splits import SPLIT_FOLDERS, ImageSet, LabelledImages, SplitName
from reslight.data.loading.cache import cache_folder, stamp_of
from reslight.data.loading.parquet import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    check_numbers,
    check_one_set,
    column_of_kind,
    holds_images,
    names_of,
    opened,
)
from reslight.messages import UsageError

log = logging.getLogger(__name__)

_ROWS = 256
"""Images that are copied at a time."""
_NAMES = b"reslight.names"
"""Where the schema of a file in the cache has the names of the classes."""
_UNKNOWN = -1
"""The label of an image of which nobody says what is on it."""
_MOST_CLASSES = 1_000_000
_CALLED: Mapping[SplitName, str] = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True, eq=False)
class Shards:
    """The images of some shards, one shard after the other."""

    files: Sequence[Path]
    """The parquet files, for messages."""
    tables: Sequence[Any]
    """For each its Arrow table: `image`, the bytes, and `label`."""
    starts: Sequence[int]
    """For each the number of its first image; and one more, the number of images."""

    @classmethod
    def of(cls, files: Sequence[Path], tables: Sequence[Any]) -> "Shards":
        """These, in this order."""
        return cls(files, tables, np.cumsum([0, *(len(table) for table in tables)]).tolist())

    def __len__(self) -> int:
        """How many."""
        return self.starts[-1]

    def read(self, number: int) -> bytearray:
        """The bytes of one; none where the shard has none."""
        shard, row = self._place(number)
        return bytearray(self.tables[shard].column("image")[row].as_buffer() or b"")

    def name(self, number: int) -> str:
        """Its row and its shard."""
        shard, row = self._place(number)
        return f"row {row} of {self.files[shard]}"

    def sizes(self) -> np.ndarray:
        """Bytes of each."""
        from pyarrow import compute

        return np.concatenate([compute.binary_length(table.column("image")).fill_null(0).to_numpy() for table in self.tables])

    def labels(self) -> np.ndarray:
        """The label of each, as the shard has it; -1 where it has none."""
        return np.concatenate([table.column("label").to_numpy() for table in self.tables])

    def names(self) -> Iterator[tuple[Path, tuple[str, ...]]]:
        """The names of the classes in each shard that has them."""
        for file, table in zip(self.files, self.tables, strict=True):
            if names := json.loads(table.schema.metadata[_NAMES]):
                yield file, tuple(names)

    def _place(self, number: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self.starts, number, side="right")) - 1
        return shard, number - self.starts[shard]


def image_set_in_shards(root: Path) -> ImageSet | None:
    """The parts of a set in shards: `train-*.parquet` and the like, in `root`, in its folder `data` or in the one folder that has them.

    Raises:
        OSError: The cache cannot be written.
        ValueError: They are damaged, incomplete, or no set to train with.
    """
    files = _files(root)
    if not files:
        return None
    if "train" not in files:
        raise UsageError(f"{root} has shards of {' and '.join(files)}, but none of train")
    shards = _shards(files, root)
    labels = {part: found.labels() for part, found in shards.items()}
    warnings = []
    if "test" in labels and len(labels["test"]) and (labels["test"] == _UNKNOWN).all():
        warnings.append(f"{root} does not say what is on its {len(labels['test']):,} test images, which are left out")
        del labels["test"]
    classes = _class_names(shards[part] for part in labels) or _class_numbers(labels, root)
    if len(classes) < 2:
        raise UsageError(f"{root} has one class, {classes[0]}; a classifier needs two or more")
    for part, each in labels.items():
        place = files[part][0].parent
        if not len(each):
            raise UsageError(f"{place} holds no images of {part}; get its shards again")
        there = set(np.unique(each).tolist())
        if strange := sorted(there - set(range(len(classes)))):
            label = "-1, or none," if strange[0] == _UNKNOWN else strange[0]
            raise UsageError(f"{place} has the label {label} in {part}, expected 0 to {len(classes) - 1}")
        if missing := [name for number, name in enumerate(classes) if number not in there]:
            more = f" and {len(missing) - 1:,} other classes" if missing[1:] else ""
            warnings.append(f"{root} has no {_CALLED[part]} image of {missing[0]}{more}")
    return ImageSet(classes, {part: _part(shards[part], each, classes) for part, each in labels.items()}, tuple(warnings))


def _part(shards: Shards, labels: np.ndarray, classes: Sequence[str]) -> LabelledImages:
    rows = ((f"{label}", int(size)) for label, size in zip(labels.tolist(), shards.sizes(), strict=True))
    return LabelledImages(shards, torch.from_numpy(labels.astype(np.int64)), fingerprint_of(classes, rows))


def _class_names(parts: Iterable[Shards]) -> tuple[str, ...] | None:
    """What the shards call the classes, if any of them says it.

    Raises:
        ValueError: Two of them say different things.
    """
    said = [pair for shards in parts for pair in shards.names()]
    for file, names in said:
        if names != said[0][1]:
            raise UsageError(f"{file} has other classes than {said[0][0]}, or in another order; take both from one source")
    return said[0][1] if said else None


def _class_numbers(labels: Mapping[SplitName, np.ndarray], root: Path) -> tuple[str, ...]:
    """Numbers in the place of names, up to the largest label."""
    largest = max(int(each.max(initial=0)) for each in labels.values())
    if largest >= _MOST_CLASSES:
        raise UsageError(f"{root} has the label {largest}, must be below {_MOST_CLASSES:,}; labels count the classes from 0")
    return tuple(map(str, range(1 + largest)))


def _files(root: Path) -> dict[SplitName, list[Path]]:
    """The shards of each part, from the first place that has any.

    Raises:
        ValueError: Several folders have some, or of numbered shards some are not there.
    """
    for place in (root, root / "data"):
        if found := _files_at(place):
            return found
    inner = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")) if root.is_dir() else []
    places = {place: found for place in inner if (found := _files_at(place))}
    if len(places) > 1:
        raise UsageError(f"{root} holds several sets of shards; set data.root to one of {', '.join(map(str, places))}")
    return next(iter(places.values()), {})


def _files_at(place: Path) -> dict[SplitName, list[Path]]:
    found: dict[SplitName, list[Path]] = {}
    for part, names in SPLIT_FOLDERS.items():
        for name in names:
            if files := sorted(place.glob(f"{name}[-.]*parquet")) or sorted((place / name).glob("*.parquet")):
                check_numbers(files)
                check_one_set(files)
                found.setdefault(part, files)
    return found


@dataclass(frozen=True)
class _Columns:
    """What is taken of a shard."""

    image: str
    label: str
    names: list[str] | None
    rows: int


def _shards(parts: Mapping[SplitName, Sequence[Path]], root: Path) -> dict[SplitName, Shards]:
    """The shards of each part, mapped into memory; those that the cache does not have are copied there."""
    tables = {file: _kept(file) for files in parts.values() for file in files}
    new = {file: _columns(file) for file, table in tables.items() if table is None}  # all, before the first is copied
    if new:
        images, size = sum(columns.rows for columns in new.values()), sum(file.stat().st_size for file in new)
        log.info("reading %s images of %s once, %.2f GB, into %s", f"{images:,}", root, size / 1e9, cache_folder() / "shards")
        if (first := next(iter(new.values()))).label not in LABEL_COLUMNS:
            log.warning("%s: the labels are taken from the column %s, the only one of whole numbers", root, first.label)
    for file, columns in new.items():
        tables[file] = _copied(file, columns)
    return {part: Shards.of(files, [tables[file] for file in files]) for part, files in parts.items()}


def _path(file: Path) -> Path:
    """Where the cache has a shard, in the state in which it is."""
    return cache_folder() / "shards" / f"{_place_of(file)}-{stamp_of([file])[:12]}.arrow"


def _place_of(file: Path) -> str:
    return hashlib.sha256(os.fsencode(file.absolute())).hexdigest()[:12]


def _kept(file: Path) -> Any | None:
    """A shard's Arrow table from the cache, mapped into memory; None where it is absent, damaged, or an older reslight's."""
    if not (path := _path(file)).is_file():
        return None
    import pyarrow as arrow

    try:
        table = arrow.ipc.open_file(arrow.memory_map(str(path))).read_all()
    except (arrow.ArrowException, OSError):
        return None
    return table if _NAMES in (table.schema.metadata or {}) else None


def _copied(file: Path, columns: _Columns) -> Any:
    """A shard's Arrow table, mapped into memory, after it was copied to the cache.

    Raises:
        OSError: It cannot be written.
        ValueError: The shard is damaged.
    """
    path = _path(file)
    try:
        _write(file, columns, path)
    except OSError as error:
        raise OSError(
            f"the images of {file} cannot be kept in {path.parent} ({error.strerror or error}); make room, or set RESLIGHT_CACHE"
        ) from error
    for stale in path.parent.glob(f"{_place_of(file)}-*.arrow"):
        if stale != path:
            with contextlib.suppress(OSError):  # somebody else's, or gone by now
                stale.unlink()
    if (table := _kept(file)) is None:
        raise OSError(f"the images of {file} were written to {path} and are not there; set RESLIGHT_CACHE to another place")
    return table


def _write(file: Path, columns: _Columns, path: Path) -> None:
    """Copy a shard's images and labels; the file is there whole or not at all, whoever else writes it at the time."""
    import pyarrow as arrow

    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    schema = arrow.schema({"image": arrow.large_binary(), "label": arrow.int64()}, {_NAMES: json.dumps(columns.names)})
    try:
        with unfinished.open("wb") as sink, arrow.ipc.new_file(sink, schema) as writer:
            for images, labels in _batches(file, columns):
                writer.write_batch(arrow.record_batch([images, labels], schema))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _batches(file: Path, columns: _Columns) -> Iterator[tuple[Any, Any]]:
    """Images and labels of a shard, some rows at a time."""
    import pyarrow as arrow
    from pyarrow import compute

    with opened(file) as shard:
        found = shard.read([columns.label]).column(0).cast(arrow.int64())
        numbers = found.fill_null(_UNKNOWN).combine_chunks()
        if len(numbers) and compute.all(compute.equal(numbers, _UNKNOWN)).as_py():
            yield arrow.nulls(len(numbers), arrow.large_binary()), numbers  # nobody reads images without a label: a tenth of ImageNet's
            return
        if found.null_count:
            raise UsageError(f"{file} has images without a label; remove them, or set data.root to another set")
        start = 0
        for batch in shard.iter_batches(_ROWS, columns=[columns.image]):
            images = batch.column(0)
            if arrow.types.is_struct(images.type):
                images = compute.struct_field(images, "bytes")
            yield images.cast(arrow.large_binary()), numbers.slice(start, len(images))
            start += len(images)


def _columns(file: Path) -> _Columns:
    """Which columns hold the images and the labels: those that are called so, or the only ones of their kinds.

    Raises:
        ValueError: There are none, or several.
    """
    from pyarrow import types

    with opened(file) as shard:
        schema = shard.schema_arrow
        image = column_of_kind(file, schema, IMAGE_COLUMNS, holds_images, "images must be bytes, or structs of bytes and a path")
        label = column_of_kind(file, schema, LABEL_COLUMNS, types.is_integer, "labels must be whole numbers")
        return _Columns(image, label, names_of(file, schema.metadata or {}, label), shard.metadata.num_rows)
