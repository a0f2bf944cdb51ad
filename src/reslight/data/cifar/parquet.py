"""The Hugging Face Hub's format: parquet shards of encoded images and labels."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from reslight.data.cifar.metadata import CifarMetadata, SplitName
from reslight.data.cifar.source import Source, class_key, class_numbers, decode, to_tensors
from reslight.data.loading.parquet import IMAGE_COLUMNS, LABEL_COLUMNS, column_of, names_of, opened, shards_in
from reslight.messages import UsageError, visible

_ROWS = 1000  # images that are decoded at a time


def find(folders: Sequence[Path], metadata: CifarMetadata, split: SplitName) -> Source | None:
    """Find shards in one of the folders, or in the folders within it that the Hub uses.

    Raises:
        UsageError: missing shards.
    """
    within = {".", "data", Path(metadata.shards[split]).parent.name}
    for folder in folders:
        for place in [folder / name for name in sorted(within)]:
            if files := shards_in(place, split):
                return Source(f"the parquet files in {place}", files, partial(_read, files, metadata))
    return None


def _read(files: Sequence[Path], metadata: CifarMetadata) -> tuple[Tensor, Tensor]:
    images: list[np.ndarray] = []
    labels: list[int] = []
    for file in files:
        for row, (data, label) in enumerate(_rows(file, metadata)):
            images.append(decode(data, f"the image in row {row} of {file}"))
            labels.append(label)
    if not images:
        raise UsageError(f"{', '.join(map(str, files))} has no images. Download it again.")
    return to_tensors(images, labels)


def _rows(file: Path, metadata: CifarMetadata) -> Iterator[tuple[bytes, int]]:
    """Yield the encoded image and the official label of each row."""
    with opened(file) as shard:
        schema = shard.schema_arrow
        image_column = column_of(file, schema.names, IMAGE_COLUMNS)
        label_column = column_of(file, schema.names, LABEL_COLUMNS)
        numbers = _official_numbers(file, schema, label_column, metadata)
        for batch in shard.iter_batches(_ROWS, columns=[image_column, label_column]):
            cells, labels = batch.column(image_column).to_pylist(), batch.column(label_column).to_pylist()
            for cell, label in zip(cells, labels, strict=True):
                if not isinstance(label, int) or label not in numbers:
                    raise UsageError(f"{file} has the label {label}: it must be 0 to {len(numbers) - 1}. Set data.name or data.root.")
                yield _bytes(cell), numbers[label]


def _official_numbers(file: Path, schema: Any, column: str, metadata: CifarMetadata) -> dict[int, int]:
    """Return the official class number of each label of a shard, by class name if the shard has class names."""
    names = names_of(file, schema.metadata or {}, column)
    if not names:
        return {number: number for number in range(len(metadata.labels))}
    official = class_numbers(metadata.labels)
    if unknown := [name for name in names if class_key(name) not in official]:
        raise UsageError(f"{file} has the class {visible(unknown[0])}, which {metadata.title} does not have. Set data.name or data.root.")
    return {number: official[class_key(name)] for number, name in enumerate(names)}


def _bytes(cell: Any) -> bytes:
    """Return the encoded image of a cell: bytes, or the Hub's struct of bytes and a path."""
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    return data if isinstance(data, bytes) else b""
