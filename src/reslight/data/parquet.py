"""A set of images in parquet shards, as the Hugging Face Hub keeps them: encoded images that threads decode as they are needed.

A parquet file is read a row group at a time, and a step of training wants images from all over the set. So the images of
a shard are written once, as they are, into an Arrow file in the cache (`cache.py` says where), which is mapped into
memory: any image is then where a pointer says.
"""

import hashlib
import logging
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reslight.data.cache import cache_folder, stamp_of
from reslight.data.class_tree import fingerprint_of
from reslight.data.parts import FOLDERS, Part, PartName, Parts
from reslight.data.shards import IMAGE_COLUMNS, LABEL_COLUMNS, check_numbers, column_of, names_of, opened

log = logging.getLogger(__name__)

_ROWS = 256
"""Images that are copied at a time."""


@dataclass(frozen=True, eq=False)
class Shards:
    """The images of some shards, one shard after the other."""

    files: Sequence[Path]
    """The parquet files, for messages."""
    tables: Sequence[Any]
    """For each its Arrow table: `image`, the bytes, and `label`."""
    starts: Sequence[int]
    """For each the number of its first image; and one more, the number of images."""

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
        """The label of each, as the shard has it."""
        return np.concatenate([table.column("label").to_numpy() for table in self.tables])

    def _place(self, number: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self.starts, number, side="right")) - 1
        return shard, number - self.starts[shard]


def parts_in_shards(root: Path) -> Parts | None:
    """The parts of a set in shards: `train-*.parquet` and the like, in `root`, in its folder `data` or in the one folder that has them.

    Raises:
        OSError: The cache cannot be written.
        ValueError: They are damaged, incomplete, or no set to train with.
    """
    files = _files(root)
    if not files:
        return None
    if "train" not in files:
        raise ValueError(f"{root} has shards of {' and '.join(files)}, but none of train")
    shards = {part: _shards(paths) for part, paths in files.items()}
    labels = {part: found.labels() for part, found in shards.items()}
    remarks = []
    if "test" in labels and len(labels["test"]) and (labels["test"] == -1).all():
        remarks.append(f"{root} does not say what is on its {len(labels['test']):,} test images, which are left out")
        del labels["test"]
    classes = _class_names(files["train"][0]) or tuple(map(str, range(1 + max(int(each.max(initial=0)) for each in labels.values()))))
    if len(classes) < 2:
        raise ValueError(f"{root} has one class, {classes[0]}; a classifier needs two or more")
    for part, each in labels.items():
        if not len(each):
            raise ValueError(f"{files[part][0].parent} holds no images of {part}; get its shards again")
        if strange := sorted({int(label) for label in np.unique(each)} - set(range(len(classes)))):
            raise ValueError(f"{files[part][0].parent} has the label {strange[0]} in {part}, expected 0 to {len(classes) - 1}")
    if missing := [name for number, name in enumerate(classes) if number not in set(labels["train"].tolist())]:
        more = f" and {len(missing) - 1:,} other classes" if missing[1:] else ""
        remarks.append(f"{root} has no training image of {missing[0]}{more}")
    return Parts(classes, {part: _part(shards[part], each, classes) for part, each in labels.items()}, tuple(remarks))


def _part(shards: Shards, labels: np.ndarray, classes: Sequence[str]) -> Part:
    rows = ((f"{label}", int(size)) for label, size in zip(labels.tolist(), shards.sizes(), strict=True))
    return Part(shards, torch.from_numpy(labels.astype(np.int64)), fingerprint_of(classes, rows))


def _files(root: Path) -> dict[PartName, list[Path]]:
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
        raise ValueError(f"{root} holds several sets of shards; set data.root to one of {', '.join(map(str, places))}")
    return next(iter(places.values()), {})


def _files_at(place: Path) -> dict[PartName, list[Path]]:
    found: dict[PartName, list[Path]] = {}
    for part, names in FOLDERS.items():
        for name in names:
            if files := sorted(place.glob(f"{name}[-.]*parquet")) or sorted((place / name).glob("*.parquet")):
                check_numbers(files)
                found.setdefault(part, files)
    return found


def _class_names(file: Path) -> tuple[str, ...] | None:
    with opened(file) as shard:
        schema = shard.schema_arrow
        names = names_of(file, schema.metadata or {}, column_of(file, schema.names, LABEL_COLUMNS))
    return tuple(names) if names else None


def _shards(files: Sequence[Path]) -> Shards:
    tables = [_mapped(file) for file in files]
    return Shards(files, tables, list(np.cumsum([0, *(len(table) for table in tables)]).tolist()))


def _mapped(file: Path) -> Any:
    """A shard's Arrow table, mapped into memory; its file is written if it is not there, or is of another state of the shard."""
    import pyarrow as arrow

    place = hashlib.sha256(os.fsencode(file.absolute())).hexdigest()[:12]
    path = cache_folder() / "shards" / f"{place}-{stamp_of([file])[:12]}.arrow"
    if not path.is_file():
        try:
            _write(file, path)
        except OSError as error:
            raise OSError(
                f"the images of {file} cannot be kept in {path.parent} ({error.strerror or error}); make room, or set RESLIGHT_CACHE"
            ) from error
        for stale in path.parent.glob(f"{place}-*.arrow"):
            if stale != path:
                stale.unlink(missing_ok=True)
    return arrow.ipc.open_file(arrow.memory_map(str(path))).read_all()


def _write(file: Path, path: Path) -> None:
    """Copy a shard's images and labels; the file is there whole or not at all, whoever else writes it at the time.

    Raises:
        OSError: It cannot be written.
        ValueError: The shard is damaged.
    """
    import pyarrow as arrow

    log.info("copying the images of %s once, %.2f GB, to %s", file, file.stat().st_size / 1e9, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    schema = arrow.schema({"image": arrow.large_binary(), "label": arrow.int64()})
    try:
        with unfinished.open("wb") as sink, arrow.ipc.new_file(sink, schema) as writer:
            for images, labels in _columns(file):
                writer.write_batch(arrow.record_batch([images.cast(schema.field(0).type), labels.cast(schema.field(1).type)], schema))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _columns(file: Path) -> Iterator[tuple[Any, Any]]:
    """Images and labels of a shard, some rows at a time."""
    import pyarrow as arrow

    with opened(file) as shard:
        names = shard.schema_arrow.names
        image, label = column_of(file, names, IMAGE_COLUMNS), column_of(file, names, LABEL_COLUMNS)
        if not arrow.types.is_integer(shard.schema_arrow.field(label).type):
            raise ValueError(f"{file} has {shard.schema_arrow.field(label).type} in the column {label}; labels must be whole numbers")
        for batch in shard.iter_batches(_ROWS, columns=[image, label]):
            if batch.column(label).null_count:
                raise ValueError(f"{file} has images without a label; remove them, or set data.root to another set")
            images = batch.column(image)
            if arrow.types.is_struct(images.type):
                images = images.field("bytes")
            yield images, batch.column(label)
