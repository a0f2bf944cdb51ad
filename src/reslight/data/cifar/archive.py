"""The official python archives of CIFAR, packed or unpacked: batches of images as Python 2 pickles.

A pickle can run any program. The unpickler here accepts only the types of a batch: dictionaries, lists, numbers, text,
and arrays of bytes. NumPy builds nothing from a pickle: its own classes accept pointers from a pickle that asks for an
array of objects.
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

from reslight.data.cifar.metadata import SIZE, CifarMetadata, SplitName
from reslight.data.cifar.source import Source
from reslight.messages import UsageError, visible


class _ByteType:
    """Stands in for `numpy.dtype`; only the type of unsigned bytes is accepted."""

    def __init__(self, name: bytes | str, *_: object) -> None:
        kind = name.decode(errors="replace") if isinstance(name, bytes) else name
        if kind not in ("u1", "uint8"):
            raise pickle.UnpicklingError(f"it has an array of {kind!r}, but images are bytes ('u1')")

    def __setstate__(self, state: object) -> None:
        """Ignore byte order and alignment, which bytes do not have."""


class _ByteArray:
    """Stands in for the function that creates an empty array, and for that array, which is filled afterwards."""

    values: NDArray[np.uint8] = np.empty(0, np.uint8)

    def __init__(self, *_: object) -> None:
        """Ignore the class, shape and type of the empty array."""

    def __setstate__(self, state: tuple[int, tuple[int, ...], _ByteType, bool, bytes]) -> None:
        _, shape, kind, is_by_column, data = state
        if not (isinstance(kind, _ByteType) and isinstance(data, bytes)):
            raise pickle.UnpicklingError("it has an array that is not of bytes")
        self.values = np.frombuffer(data, np.uint8).reshape(shape, order="F" if is_by_column else "C")


# The names in pickles of NumPy's arrays; NumPy 2 moved the function.
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _ByteArray,
    ("numpy._core.multiarray", "_reconstruct"): _ByteArray,
    ("numpy", "ndarray"): _ByteArray,
    ("numpy", "dtype"): _ByteType,
}


class BatchUnpickler(pickle.Unpickler):
    """Accepts arrays of bytes and types that need no import; refuses all other names before they are imported."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="bytes")  # text of Python 2, which also holds the values of arrays, has no encoding

    def find_class(self, module: str, name: str) -> Any:
        """Return the class or function of this name in a pickle.

        Raises:
            UnpicklingError: a name that no batch needs.
        """
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch of images needs")
        return _ALLOWED[module, name]


def find(folders: Sequence[Path], metadata: CifarMetadata, split: SplitName) -> Source | None:
    """Find the archive's folder, the archive, or the files of its folder, in one of the folders.

    Raises:
        UsageError: a folder with only some of its files, and no archive.
    """
    incomplete = None
    for folder in folders:
        for batches in (folder / metadata.archive, folder):
            files = [batches / name for name in metadata.batches[split]]
            missing = [file.name for file in files if not file.is_file()]
            if not missing:
                return Source(f"the folder {batches}", files, partial(_read, _from_folder(files), metadata))
            if len(missing) < len(files) or (batches.name == metadata.archive and batches.is_dir()):
                incomplete = f"{batches} is incomplete: {', '.join(missing)} is missing. Unpack the archive again."
        if archive := next((path for path in (folder / _archive_name(metadata), folder) if path.is_file()), None):
            return Source(f"the archive {archive}", [archive], partial(_read, _from_archive(archive, metadata, split), metadata))
    if incomplete:
        raise UsageError(incomplete)
    return None


def _archive_name(metadata: CifarMetadata) -> str:
    return f"{metadata.archive.replace('-batches-py', '-python')}.tar.gz"


def _from_folder(files: Sequence[Path]) -> Iterator[tuple[str, IO[bytes]]]:
    for path in files:
        with path.open("rb") as file:
            yield str(path), file


def _from_archive(path: Path, metadata: CifarMetadata, split: SplitName) -> Iterator[tuple[str, IO[bytes]]]:
    wanted = {f"{metadata.archive}/{name}" for name in metadata.batches[split]}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and member.name.removeprefix("./") in wanted and (file := archive.extractfile(member)):
                    wanted.discard(member.name.removeprefix("./"))
                    # Read into memory first, so that errors of the unpickler and of a damaged archive are told apart.
                    yield f"{path}: {member.name}", io.BytesIO(file.read())
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        reason = str(error).partition("\n")[0].removesuffix(":")  # more lines name each compression that tarfile tried
        raise UsageError(
            f"{path} cannot be read as an archive: it is damaged, cut short, or another file ({reason}). "
            "Download it again, or set data.root to a folder of images."
        ) from error
    if wanted:
        raise UsageError(
            f"{path} is not the python archive of {metadata.title}: {', '.join(sorted(wanted))} is missing. "
            "Download that archive, or set data.name."
        )


def _read(batches: Iterator[tuple[str, IO[bytes]]], metadata: CifarMetadata) -> tuple[Tensor, Tensor]:
    images, labels = zip(*(_read_batch(name, file, metadata) for name, file in batches), strict=True)
    return torch.cat(images), torch.cat(labels)


def _read_batch(name: str, file: IO[bytes], metadata: CifarMetadata) -> tuple[Tensor, Tensor]:
    try:
        loaded = BatchUnpickler(file).load()
    except Exception as error:  # a damaged pickle can raise any error
        raise _invalid_batch(name, metadata, " ".join(str(error).split())) from error
    batch = loaded if isinstance(loaded, dict) else {}
    # Keys are bytes in Python 2's pickles, and text in copies that Python 3 saved.
    array, labels = (batch.get(key.encode(), batch.get(key)) for key in ("data", metadata.batch_labels))
    data: NDArray[np.uint8] = array.values if isinstance(array, _ByteArray) else np.empty(0, np.uint8)
    width = 3 * SIZE**2
    if data.shape[1:] != (width,):
        raise _invalid_batch(name, metadata, f"its 'data' must be an array of bytes, {width} for each image")
    is_list = isinstance(labels, list) and len(labels) == len(data)
    if not (is_list and all(isinstance(label, int) and 0 <= label < len(metadata.labels) for label in labels or ())):
        wanted = f"a number from 0 to {len(metadata.labels) - 1} for each of {len(data)} images"
        raise _invalid_batch(name, metadata, f"its '{metadata.batch_labels}' must be {wanted}")
    return torch.from_numpy(data.reshape(-1, 3, SIZE, SIZE).copy()), torch.tensor(labels, dtype=torch.int64)


def _invalid_batch(name: str, metadata: CifarMetadata, reason: str) -> UsageError:
    return UsageError(
        f"{name} is not a batch of {metadata.title}: {visible(reason, 300)}. Download the archive again, or set data.name or data.root."
    )
