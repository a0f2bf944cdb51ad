"""The names, dtypes and shapes in a safetensors file, read and compared before anything is allocated.

A legal file may hold a header of 100 MB, a million empty tensors, or float64 where float32 is expected: safetensors reads
them all. So the length of the header is bounded here before safetensors opens the file, which checks the rest.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from reslight.messages import UsageError, shortened, visible

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "U8": torch.uint8}


@dataclass(frozen=True)
class Entry:
    """A tensor in a file.

    Attributes:
        dtype: safetensors' name of the dtype.
        shape: The shape.
    """

    dtype: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> Self:
        """Return the entry of a tensor, which may be on the meta device."""
        names = {dtype: name for name, dtype in DTYPES.items()}
        return cls(names[tensor.dtype], tuple(tensor.shape))

    def __str__(self) -> str:
        """Return the entry as messages show it."""
        return f"{self.dtype} {list(self.shape)}"


def read_header(path: Path, limit: int) -> dict[str, Entry]:
    """Read the entries of a safetensors file.

    Args:
        path: The file.
        limit: Length of the longest header that is read, in bytes.

    Raises:
        FileNotFoundError: a missing file.
        UsageError: a file that is damaged, cut short or in another format, or a header longer than `limit`.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
    length = int.from_bytes(start, "little")
    if size < 10 or length > size - 8:
        raise UsageError(f"{path} has {size:,} bytes: it was cut short, or is not a safetensors file. Get it again.")
    if length > limit:
        raise UsageError(f"{path} has a header of {length:,} bytes: this network's has at most {limit:,}. Get the file again.")
    try:
        with safe_open(path, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118  # it is not a mapping
            return {name: Entry(one.get_dtype(), tuple(one.get_shape())) for name, one in slices.items()}
    except SafetensorError as error:
        reason = visible(" ".join(str(error).split()), 200)
        raise UsageError(f"{path} is damaged, or is not a safetensors file ({reason}). Get it again.") from None


def compare(found: Mapping[str, Entry], expected: Mapping[str, Entry], complaint: str) -> None:
    """Compare the entries of a file with those that a network needs.

    Args:
        found: The entries of the file.
        expected: The entries of the network.
        complaint: What the message begins with.

    Raises:
        UsageError: entries that are missing, unexpected, or of another dtype or shape.
    """
    different = (f"{name} as {found[name]} instead of {entry}" for name, entry in expected.items() if found.get(name, entry) != entry)
    problems = [
        _several("is missing", (name for name in expected if name not in found)),
        _several("also has", (name for name in found if name not in expected)),
        _several("has", different),
    ]
    if any(problems):
        raise UsageError(f"{complaint}: it {'; '.join(filter(None, problems))}.")


def _several(verb: str, items: Iterable[str]) -> str:
    listed = [visible(item) for item in items]
    return f"{verb} {shortened(listed)}" if listed else ""
