"""The file in the cache that holds the images of a parquet shard: encoded images, one after the other, and then an index.

The index has the place, the label and the checksum of every image, and a sha256 of its own. A damaged index is noticed when the file
is opened, a damaged image when it is read: reading 150 GB of images at every start would take minutes.
"""

import hashlib
import json
import mmap
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from reslight.data.image_folder.rows import RowInfo, Texts
from reslight.regular_file import regular_size

_MAGIC = b"reslight shard 2"
"""The last bytes of a file, whose number changes with the format."""
_END = struct.Struct(f"<Q32s{len(_MAGIC)}s")
"""The end of a file: the index's size and sha256, and the magic."""


@dataclass(frozen=True, eq=False)
class Index:
    """What is known of the images of a shard.

    Attributes:
        starts: int64 `(N + 1,)`: the place of each image's first byte, and the place behind the last image.
        checksums: uint32 `(N,)`: the CRC-32 of each image.
        info: Labels, class names, paths and groups, as stored in the shard.
    """

    starts: np.ndarray
    checksums: np.ndarray
    info: RowInfo

    def is_same(self, other: "Index") -> bool:
        """Return whether both are of the same images."""
        one, two = self._arrays(), other._arrays()
        return one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)

    def encoded(self) -> bytes:
        """Return the index as bytes, which `of` reads."""
        return save(self._arrays())

    @classmethod
    def of(cls, encoded: bytes) -> "Index":
        """Return the index that is encoded in these bytes.

        Raises:
            ValueError: other bytes.
        """
        try:
            values = load(encoded)
        except SafetensorError as error:
            raise ValueError("the index is not one of reslight") from error
        names = tuple(json.loads(values["names"].tobytes()))
        paths, groups = _texts(values, "paths"), _texts(values, "groups")
        info = RowInfo(values["labels"], values.get("counts"), names, paths, groups, "is_packed" in values)
        return cls(values["starts"], values["checksums"], info)

    def _arrays(self) -> dict[str, np.ndarray]:
        info = self.info
        arrays = {"starts": self.starts, "checksums": self.checksums, "labels": info.labels}
        arrays["names"] = np.frombuffer(json.dumps(list(info.names)).encode(), dtype=np.uint8)
        for name, texts in (("paths", info.paths), ("groups", info.groups)):
            arrays |= {name: texts.data, f"{name}_ends": texts.ends} if texts else {}
        arrays |= {"counts": info.counts} if info.counts is not None else {}
        return arrays | ({"is_packed": np.ones(1, np.uint8)} if info.is_packed else {})


def _texts(values: Mapping[str, np.ndarray], name: str) -> Texts | None:
    return Texts(values[name], values[f"{name}_ends"]) if name in values else None


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
        return len(self.index.checksums)

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
    index = Index.of(encoded)
    if index.starts[-1] != end - size:
        raise ValueError("the file has more or fewer images than its index")
    return index


def write_copy(sink: BinaryIO, images: Iterable[Sequence[bytes | memoryview]], info: RowInfo) -> None:
    """Write a file of images.

    Args:
        sink: The file.
        images: Encoded images, some at a time.
        info: What the shard says about them.
    """
    sizes, checksums = [0], list[int]()
    for some in images:
        for image in some:
            sink.write(image)
            sizes.append(len(image))
            checksums.append(zlib.crc32(image))
    encoded = Index(np.cumsum(sizes, dtype=np.int64), np.array(checksums, dtype=np.uint32), info).encoded()
    sink.write(encoded)
    sink.write(_END.pack(len(encoded), hashlib.sha256(encoded).digest(), _MAGIC))
