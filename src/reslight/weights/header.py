"""What a safetensors file says it holds, read and compared before anything is allocated.

A legal file may still hold a header of 100 MB, a million empty tensors or float64 where float32 belongs; safetensors
itself takes them all. Format: 8 bytes of length, that many bytes of JSON, the tensors' bytes.
"""

import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from reslight.messages import UsageError
from reslight.weights.strict_json import parse_json

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "U8": torch.uint8}
_SHOWN = 3


@dataclass(frozen=True)
class Entry:
    """A tensor in a file: its dtype as safetensors names it, and its shape."""

    dtype: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> Self:
        """The entry that a tensor makes; a meta tensor will do."""
        names = {dtype: name for name, dtype in DTYPES.items()}
        return cls(names[tensor.dtype], tuple(tensor.shape))

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize

    def __str__(self) -> str:
        """As messages show it."""
        return f"{self.dtype} {list(self.shape)}"


def read_header(path: Path, limit: int) -> dict[str, Entry]:
    """The entries of a safetensors file.

    Args:
        path: The file.
        limit: The longest header that is read, in bytes.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such file, is cut short or too long, or its header exceeds `limit`.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= size - 8:
            raise UsageError(f"{path} is no safetensors file, or one that was cut short ({size:,} bytes); get it again")
        if length > limit:
            raise UsageError(f"{path} has a header of {length:,} bytes, and this network's takes at most {limit:,}; it belongs to another")
        text = file.read(length)
    header = parse_json(text, f"the header of {path}")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise UsageError(f"{path} is no safetensors file: its __metadata__ is no object of texts; get it again")
    entries = {name: _entry(value, name, path) for name, value in header.items()}
    _check_places(header, entries, path)
    expected = 8 + length + sum(entry.nbytes for entry in entries.values())
    if size != expected:
        what = "was cut short" if size < expected else "has something behind its end"
        raise UsageError(f"{path} {what}: {size:,} bytes, and its header says {expected:,}; get it again")
    return entries


def compare(there: Mapping[str, Entry], expected: Mapping[str, Entry], complaint: str) -> None:
    """Complain of every kind of difference between what is there and what a network needs.

    Raises:
        ValueError: They differ.
    """
    said = [
        _several("lacks", (name for name in expected if name not in there)),
        _several("has besides", (name for name in there if name not in expected)),
        _several(
            "has",
            (f"{name} as {there[name]} in place of {entry}" for name, entry in expected.items() if there.get(name, entry) != entry),
        ),
    ]
    if any(said):
        raise UsageError(f"{complaint}: it {'; '.join(filter(None, said))}")


def _several(verb: str, things: Iterable[str]) -> str:
    listed = list(things)
    more = f" and {len(listed) - _SHOWN:,} more" if len(listed) > _SHOWN else ""
    return f"{verb} {', '.join(thing[:100] for thing in listed[:_SHOWN])}{more}" if listed else ""


def _check_places(header: Mapping[str, Any], entries: Mapping[str, Entry], path: Path) -> None:
    """The tensors' bytes follow each other without a gap: the library says so otherwise, with an error of its own."""
    end = 0
    places = {name: header[name].get("data_offsets") for name in entries}
    if all(isinstance(place, list) and [type(one) for one in place] == [int, int] for place in places.values()):
        for name, (start, stop) in sorted(places.items(), key=lambda item: item[1]):
            if start != end or stop - start != entries[name].nbytes:
                break
            end = stop
        else:
            return
    raise UsageError(f"{path} is no safetensors file: its header has tensors at wrong places; get it again")


def _entry(value: Any, name: str, path: Path) -> Entry:
    if isinstance(value, dict) and isinstance(dtype := value.get("dtype"), str) and isinstance(shape := value.get("shape"), list):
        if dtype not in DTYPES:
            raise UsageError(f"{path} holds {name[:100]} as {str(dtype)[:20]}; weights are {', '.join(DTYPES)}")
        if all(type(size) is int and 0 <= size < 2**40 for size in shape) and len(shape) <= 8:
            return Entry(dtype, tuple(shape))
    raise UsageError(f"{path} is no safetensors file: its header describes {name[:100]} wrongly; get it again")
