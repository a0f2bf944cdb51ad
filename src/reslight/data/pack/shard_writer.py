"""Write a parquet shard as the Hub has it: images with their paths, labels with the names of the classes, and groups."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, BinaryIO

import torch

from reslight.data.image_folder.row_columns import PACKED
from reslight.data.image_folder.splits import LabelledImages
from reslight.messages import UsageError, visible

_ROWS = 100
"""Images of a row group, which is what a reader reads at once."""


class HashedSink:
    """A file that is written once, and the sha256 of what was written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest, self.size, self.closed = file, hashlib.sha256(), 0, False

    def write(self, data: Any) -> int:
        """Write bytes."""
        view = memoryview(data)
        self._file.write(view)
        self._digest.update(view)
        self.size += view.nbytes
        return view.nbytes

    def flush(self) -> None:
        """Do nothing: the file is flushed when it is whole."""

    def tell(self) -> int:
        """Return the number of bytes that were written."""
        return self.size

    def close(self) -> None:
        """Leave the file open for its owner."""

    def sha256(self) -> str:
        """Return the sha256 of what was written, in hexadecimal."""
        return self._digest.hexdigest()


def paths_of(images: LabelledImages) -> list[str | None]:
    """Return the path of each image, its name in class folders; None where it has none.

    Raises:
        UsageError: a name that is not UTF-8.
    """
    if images.names is None:
        return [None] * len(images.images)
    names = list(images.names())
    if bad := next((name for name in names if not _is_utf_8(name)), None):
        raise UsageError(f"{visible(bad.encode('utf-8', 'backslashreplace').decode(), 200)} has a name that is not UTF-8. Rename the file.")
    return list(names)


def _is_utf_8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def schema_of(images: LabelledImages, classes: Sequence[str]) -> Any:
    """Return the Arrow schema of the shards of a split."""
    import pyarrow as arrow

    labels: dict[str, Any] = {"names": list(classes), "_type": "ClassLabel"}
    several = images.labels.ndim == 2
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    features["labels" if several else "label"] = {"feature": labels, "_type": "Sequence"} if several else labels
    fields = [
        ("image", arrow.struct({"bytes": arrow.binary(), "path": arrow.string()})),
        ("labels", arrow.list_(arrow.int64())) if several else ("label", arrow.int64()),
    ]
    if images.groups is not None:
        features["group"] = {"dtype": "string", "_type": "Value"}
        fields.append(("group", arrow.string()))
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    return arrow.schema(fields).with_metadata(metadata | ({PACKED: b"1"} if images.names is not None else {}))


def write_shard(
    sink: BinaryIO, images: LabelledImages, classes: Sequence[str], rows: range, encoded: Iterable[bytes], paths: Sequence[str | None]
) -> tuple[str, int]:
    """Write some images of a split, with a checksum for each page.

    Args:
        sink: The file.
        images: The split.
        classes: The names of its classes.
        rows: The images of the shard.
        encoded: The bytes of these images.
        paths: The path of each image of the split.

    Returns:
        The sha256 of the file in hexadecimal, and its size in bytes.
    """
    import pyarrow as arrow
    from pyarrow import parquet

    schema, hashed, source = schema_of(images, classes), HashedSink(sink), iter(encoded)
    how = {"compression": "none", "use_dictionary": False, "write_page_checksum": True, "write_statistics": ["label", "image.path"]}
    with parquet.ParquetWriter(arrow.PythonFile(hashed, mode="w"), schema, **how) as writer:
        for start in range(rows.start, rows.stop, _ROWS):
            numbers = range(start, min(start + _ROWS, rows.stop))
            cells = [{"bytes": data, "path": paths[number]} for number, data in zip(numbers, islice(source, len(numbers)), strict=True)]
            columns = [cells, _labels(images.labels[numbers.start : numbers.stop])]
            if images.groups is not None:
                columns.append([images.group_names[group] for group in images.groups[numbers.start : numbers.stop].tolist()])
            writer.write_table(arrow.table(columns, schema=schema))
    return hashed.sha256(), hashed.size


def _labels(labels: torch.Tensor) -> list[Any]:
    """Return the label of each image, or a list of its labels."""
    return [row.nonzero().flatten().tolist() for row in labels] if labels.ndim == 2 else list(labels.tolist())
