"""Datasets of the Hugging Face library `datasets` in memory: a `Dataset`, or a `DatasetDict` with its splits."""

import reprlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from reslight.data.image_folder.row_columns import find_columns, numbered, row_info
from reslight.data.image_folder.rows import Rows, image_set_of_rows, known_splits
from reslight.data.image_folder.splits import ImageSet, SplitName
from reslight.data.loading.content import ends_of, sampled_content
from reslight.data.loading.encoded import Files
from reslight.messages import UsageError, visible

_ROWS = 1000
"""Rows that are looked at together."""


@dataclass(frozen=True, eq=False)
class DatasetImages:
    """The images of a dataset: bytes in its rows, or files that its rows name."""

    dataset: Any
    """The dataset with the column of images only, whose rows are Arrow tables."""
    source: str
    """The dataset in messages."""

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.dataset)

    def read(self, number: int) -> bytearray:
        """Return the bytes of an image; empty if its row has none.

        Raises:
            OSError: a file that is missing or cannot be read.
            UsageError: a pipe, a device, or a file that is too large.
        """
        data, path = self._cell(number)
        return Files([Path(path)]).read(0) if data is None and path else bytearray(data or b"")

    def name(self, number: int) -> str:
        """Return the name of an image in messages: its file, or its row."""
        data, path = self._cell(number)
        return visible(path, 1000) if data is None and path else f"row {number} of {self.source}"

    def content(self) -> str:
        """Return a sha256 over a sample of the images, see `sampled_content`."""
        return sampled_content(len(self), lambda number: ends_of(self.read(number)))

    def sizes_and_paths(self) -> tuple[np.ndarray, list[str | None]]:
        """Return the size of each image in bytes, -1 for a missing file, which is an error when it is read; and the path of each."""
        from pyarrow import compute

        sizes: list[int] = []
        found: list[str | None] = []
        for start in range(0, len(self), _ROWS):
            data, paths = _parts(self.dataset[start : start + _ROWS].column(0))
            of_bytes = compute.binary_length(data).to_pylist() if data is not None else [None] * len(paths)
            of_paths = paths.to_pylist() if paths is not None else [None] * len(of_bytes)
            sizes += [_size(path) if size is None else size for size, path in zip(of_bytes, of_paths, strict=True)]
            found += of_paths
        return np.array(sizes, dtype=np.int64), found

    def _cell(self, number: int) -> tuple[bytes | None, str | None]:
        data, path = (None if part is None else part[0].as_py() for part in _parts(self.dataset[number].column(0)))
        return data, path


def _parts(column: Any) -> tuple[Any, Any]:
    """Return the bytes and the paths in a column of images, each None if it does not have them."""
    from pyarrow import compute, types

    if not types.is_struct(column.type):
        return (None, column) if types.is_string(column.type) or types.is_large_string(column.type) else (column, None)
    there = [column.type.field(place).name for place in range(column.type.num_fields)]
    data, paths = (compute.struct_field(column, name) if name in there else None for name in ("bytes", "path"))
    return data, paths


def _size(path: str | None) -> int:
    try:
        return Path(path).stat().st_size if path else 0
    except OSError:
        return -1


def image_set_in_memory(dataset: Any) -> ImageSet:
    """Return the images of a `datasets.Dataset`, or those of the splits of a `DatasetDict`.

    Raises:
        UsageError: an object of another type, or columns that do not fit.
    """
    given = dict(dataset) if isinstance(dataset, Mapping) else {"train": dataset}
    for one in given.values():
        _check_type(one)
    warnings, known = known_splits(given, "data.root")
    sources = {split: "data.root" if one is dataset else f"data.root[{name!r}]" for split, (name, one) in known.items()}
    columns = {split: find_columns(sources[split], one.features.arrow_schema, texts=True, paths=True) for split, (_, one) in known.items()}
    tables = {
        split: known[split][1].select_columns([one for one in (used.label, used.group) if one]).with_format("arrow")[:]
        for split, used in columns.items()
    }
    names, labels = numbered({split: tables[split][used.label] for split, used in columns.items()}, "data.root")
    splits: dict[SplitName, Rows] = {}
    for split, used in columns.items():
        images = DatasetImages(known[split][1].select_columns([used.image]).with_format("arrow"), sources[split])
        sizes, paths = images.sizes_and_paths()
        groups = tables[split][used.group] if used.group else None
        info = row_info(sources[split], replace(used, names=used.names or names), labels[split], _text_column(paths), groups)
        splits[split] = Rows(images, info, sizes, sources[split])
    found = image_set_of_rows(splits, "data.root")
    return replace(found, warnings=(*warnings, *found.warnings))


def name_of(dataset: Any) -> str:
    """Return the name of a dataset for messages and reports."""
    first = next(iter(dataset.values()), None) if isinstance(dataset, Mapping) else dataset
    return getattr(getattr(first, "info", None), "dataset_name", None) or "dataset"


def _text_column(texts: list[str | None]) -> Any:
    import pyarrow as arrow

    return arrow.chunked_array([arrow.array(texts, arrow.string())])


def _check_type(dataset: Any) -> None:
    """Check that an object is a dataset whose rows can be read in any order.

    Raises:
        UsageError: another object.
    """
    module = sys.modules.get("datasets")  # of an object of its classes, it is imported
    if module is not None and isinstance(dataset, module.Dataset):
        return
    if module is not None and isinstance(dataset, module.IterableDataset):
        raise UsageError("data.root is a streamed dataset: its images must be at hand. Load it without streaming=True.")
    text = f"data.root is {reprlib.repr(dataset)}"
    raise UsageError(f"{text}: it must be a folder, OWNER/DATASET, or a Dataset or DatasetDict of the library datasets.")
