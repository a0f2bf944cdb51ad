"""The official python archives of CIFAR, packed or unpacked: batches of images as Python 2 pickles.

A pickle can run any program. These are read by an unpickler that knows only what a batch is made of: dictionaries,
lists, numbers, text, and arrays of bytes. NumPy builds nothing from them: its own classes take pointers from a pickle
that asks for an array of objects.
"""

import io
import pickle
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reslight.data.cifar.metadata import CifarMetadata, SplitName
from reslight.data.cifar.source import Source
from reslight.messages import UsageError

_SIZE = 32


class _ByteType:
    """In the place of `numpy.dtype`: only the type of unsigned bytes."""

    def __init__(self, name: bytes | str, *_: object) -> None:
        kind = name.decode(errors="replace") if isinstance(name, bytes) else name
        if kind not in ("u1", "uint8"):
            raise pickle.UnpicklingError(f"it holds an array of {kind!r}, and images are bytes ('u1')")

    def __setstate__(self, state: object) -> None:
        """Leave out byte order and alignment, which bytes do not have."""


class _ByteArray:
    """In the place of the function that makes an empty array, and of that array, which is filled afterwards."""

    values: NDArray[np.uint8] = np.empty(0, np.uint8)

    def __init__(self, *_: object) -> None:
        """Take the class, shape and type of the empty array, which mean nothing."""

    def __setstate__(self, state: tuple[int, tuple[int, ...], _ByteType, bool, bytes]) -> None:
        _, shape, kind, is_by_column, data = state
        if not (isinstance(kind, _ByteType) and isinstance(data, bytes)):
            raise pickle.UnpicklingError("it holds an array that is not made of bytes")
        self.values = np.frombuffer(data, np.uint8).reshape(shape, order="F" if is_by_column else "C")


# What NumPy's arrays are pickled as: by NumPy 1, and by NumPy 2, which moved the function
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _ByteArray,
    ("numpy._core.multiarray", "_reconstruct"): _ByteArray,
    ("numpy", "ndarray"): _ByteArray,
    ("numpy", "dtype"): _ByteType,
}


class BatchUnpickler(pickle.Unpickler):
    """Admits arrays of bytes and what needs no import; refuses everything else before it is looked up."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="bytes")  # text of Python 2 has no encoding; arrays keep their values in it

    def find_class(self, module: str, name: str) -> Any:
        """Return what a pickle asks for.

        Raises:
            UnpicklingError: It is nothing that a batch is made of.
        """
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch of images needs")
        return _ALLOWED[module, name]


def find(folders: Sequence[Path], metadata: CifarMetadata, part: SplitName) -> Source | None:
    """Look for the archive's folder, the archive, or the files of the folder, in each of the folders.

    Raises:
        ValueError: A folder is there with only some of its files, and no archive.
    """
    incomplete = None
    for folder in folders:
        for batches in (folder / metadata.archive, folder):
            files = [batches / name for name in metadata.batches[part]]
            missing = [file.name for file in files if not file.is_file()]
            if not missing:
                return Source(f"the folder {batches}", files, partial(_read, _from_folder(files), metadata))
            if len(missing) < len(files) or (batches.name == metadata.archive and batches.is_dir()):
                incomplete = f"{batches} lacks {', '.join(missing)}; unpack the archive again"
        if archive := next((path for path in (folder / _archive_name(metadata), folder) if path.is_file()), None):
            return Source(f"the archive {archive}", [archive], partial(_read, _from_archive(archive, metadata, part), metadata))
    if incomplete:
        raise UsageError(incomplete)
    return None


def _archive_name(metadata: CifarMetadata) -> str:
    return f"{metadata.archive.replace('-batches-py', '-python')}.tar.gz"


def _from_folder(files: Sequence[Path]) -> Iterator[tuple[str, IO[bytes]]]:
    for path in files:
        with path.open("rb") as file:
            yield str(path), file


def _from_archive(path: Path, metadata: CifarMetadata, part: SplitName) -> Iterator[tuple[str, IO[bytes]]]:
    wanted = {f"{metadata.archive}/{name}" for name in metadata.batches[part]}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and member.name.removeprefix("./") in wanted and (file := archive.extractfile(member)):
                    wanted.discard(member.name.removeprefix("./"))
                    # whole in memory: the unpickler's errors are then its own, not those of a damaged archive
                    yield f"{path}: {member.name}", io.BytesIO(file.read())
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        reason = str(error).partition("\n")[0].removesuffix(":")  # tarfile goes on with each compression that it is not
        raise UsageError(
            f"{path} is no python archive, damaged, or was cut short ({reason}); get it again, or set data.root to a folder of images"
        ) from error
    if wanted:
        raise UsageError(
            f"{path} lacks {', '.join(sorted(wanted))}, so it is not the python archive of {metadata.title}; get that, or set data.name"
        )


def _read(batches: Iterator[tuple[str, IO[bytes]]], metadata: CifarMetadata) -> tuple[Tensor, Tensor]:
    images, labels = zip(*(_read_batch(name, file, metadata) for name, file in batches), strict=True)
    return torch.cat(images), torch.cat(labels)


def _read_batch(name: str, file: IO[bytes], metadata: CifarMetadata) -> tuple[Tensor, Tensor]:
    try:
        loaded = BatchUnpickler(file).load()
    except Exception as error:  # damaged pickles raise whatever their bytes happen to ask for
        raise _no_batch(name, metadata, " ".join(str(error).split())) from error
    batch = loaded if isinstance(loaded, dict) else {}
    # Python 2's text is bytes here; that of a copy saved by Python 3 is text
    array, labels = (batch.get(key.encode(), batch.get(key)) for key in ("data", metadata.batch_labels))
    data: NDArray[np.uint8] = array.values if isinstance(array, _ByteArray) else np.empty(0, np.uint8)
    width = 3 * _SIZE**2
    if data.shape[1:] != (width,):
        raise _no_batch(name, metadata, f"its 'data' must be an array of bytes, {width} for each image")
    is_list = isinstance(labels, list) and len(labels) == len(data)
    if not (is_list and all(isinstance(label, int) and 0 <= label < len(metadata.labels) for label in labels or ())):
        wanted = f"a number from 0 to {len(metadata.labels) - 1} for each of {len(data)} images"
        raise _no_batch(name, metadata, f"its '{metadata.batch_labels}' must be {wanted}")
    return torch.from_numpy(data.reshape(-1, 3, _SIZE, _SIZE).copy()), torch.tensor(labels, dtype=torch.int64)


def _no_batch(name: str, metadata: CifarMetadata, why: str) -> UsageError:
    return UsageError(f"{name} is no batch of {metadata.title}: {why}; get the python archive again, or set data.name or data.root")
