"""The file in the cache that holds the images of a parquet shard: encoded images, one after the other, and then an index.

The index has the place, the label and the checksum of every image, and a sha256 of its own. A damaged index is noticed when the file
is opened, a damaged image when it is read: reading 150 GB of images at every start would take minutes.
"""

import hashlib
import json
import mmap
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from reslight.regular_file import regular_size

_MAGIC = b"reslight shard 1"
"""The last bytes of a file, whose number changes with the format."""
_END = struct.Struct(f"<Q32s{len(_MAGIC)}s")
"""The end of a file: the index's size and sha256, and the magic."""


@dataclass(frozen=True, eq=False)
class Index:
    """What is known of the images of a shard.

    Attributes:
        starts: int64 `(N + 1,)`: the place of each image's first byte, and the place behind the last image.
        labels: int64 `(N,)`, as stored in the shard.
        checksums: uint32 `(N,)`: the CRC-32 of each image.
        names: The class names in the shard's schema; empty if it has none.
    """

    starts: np.ndarray
    labels: np.ndarray
    checksums: np.ndarray
    names: tuple[str, ...]

    def is_same(self, other: "Index") -> bool:
        """Return whether both are of the same images."""
        pairs = ((self.starts, other.starts), (self.labels, other.labels), (self.checksums, other.checksums))
        return self.names == other.names and all(np.array_equal(one, two) for one, two in pairs)


class ShardCopy:
    """A memory-mapped file of images with its index."""

    def __init__(self, path: Path) -> None:
        """Map a file and check its index; no image is read.

        Raises:
            OSError: a missing file.
            ValueError: a damaged file, or one of another format.
        """
        self.path = path
        regular_size(path)  # a pipe would be waited for
        with path.open("rb") as file:
            # An empty file cannot be mapped, which is a ValueError.
            self._bytes = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        self.index = _index_of(self._bytes)

    def __reduce__(self) -> tuple[type["ShardCopy"], tuple[Path]]:
        """Send the path alone to another process, which maps the file itself."""
        return type(self), (self.path,)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.index.labels)

    def read(self, row: int) -> bytearray | None:
        """Return the bytes of an image, empty if the shard has none; None if they are damaged."""
        data = bytearray(self._bytes[self.index.starts[row] : self.index.starts[row + 1]])
        return data if zlib.crc32(data) == self.index.checksums[row] else None


def _index_of(content: memoryview) -> Index:
    """Return the index at the end of a file.

    Raises:
        ValueError: a damaged file, or one of another format.
    """
    if len(content) < _END.size:
        raise ValueError("the file is cut short")
    size, digest, magic = _END.unpack(content[-_END.size :])
    end = len(content) - _END.size
    if magic != _MAGIC or size > end:
        raise ValueError("the file is damaged, or of another format")
    encoded = bytes(content[end - size : end])
    if hashlib.sha256(encoded).digest() != digest:
        raise ValueError("the index is damaged")
    try:
        values = load(encoded)
    except SafetensorError as error:
        raise ValueError("the index is not one of reslight") from error
    if values["starts"][-1] != end - size:
        raise ValueError("the file has more or fewer images than its index")
    return Index(values["starts"], values["labels"], values["checksums"], tuple(json.loads(values["names"].tobytes())))


def write_copy(sink: BinaryIO, rows: Iterable[tuple[Sequence[bytes | memoryview], Sequence[int]]], names: Sequence[str]) -> None:
    """Write a file of images.

    Args:
        sink: The file.
        rows: Encoded images and their labels, some at a time.
        names: The class names, empty if there are none.
    """
    sizes, labels, checksums = [0], list[int](), list[int]()
    for images, numbers in rows:
        for image in images:
            sink.write(image)
            sizes.append(len(image))
            checksums.append(zlib.crc32(image))
        labels += numbers
    encoded = save(
        {
            "starts": np.cumsum(sizes, dtype=np.int64),
            "labels": np.array(labels, dtype=np.int64),
            "checksums": np.array(checksums, dtype=np.uint32),
            "names": np.frombuffer(json.dumps(list(names)).encode(), dtype=np.uint8),
        }
    )
    sink.write(encoded)
    sink.write(_END.pack(len(encoded), hashlib.sha256(encoded).digest(), _MAGIC))
