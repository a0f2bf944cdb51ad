"""The official python archives of CIFAR, packed or unpacked: batches of images as Python 2 pickles.

A pickle can run any program. These are read by an unpickler that knows only what a batch is made of: dictionaries,
lists, numbers, text, and NumPy arrays.
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
from torch import Tensor

from reslight.data.known import KnownSet, Part
from reslight.data.source import Source

_SIZE = 32

# What NumPy's arrays are pickled as: by NumPy 1, and by NumPy 2, which moved the function
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class BatchUnpickler(pickle.Unpickler):
    """Admits NumPy arrays and what needs no import; refuses everything else before it is looked up."""

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


def find(folders: Sequence[Path], known: KnownSet, part: Part) -> Source | None:
    """Look for the archive's folder, the archive, or the files of the folder, in each of the folders.

    Raises:
        ValueError: A folder is there with only some of its files, and no archive.
    """
    incomplete = None
    for folder in folders:
        for batches in (folder / known.archive, folder):
            files = [batches / name for name in known.batches[part]]
            missing = [file.name for file in files if not file.is_file()]
            if not missing:
                return Source(f"the folder {batches}", files, partial(_read, _from_folder(files), known))
            if len(missing) < len(files) or (batches.name == known.archive and batches.is_dir()):
                incomplete = f"{batches} lacks {', '.join(missing)}; unpack the archive again"
        if archive := next((path for path in (folder / _archive_name(known), folder) if path.is_file()), None):
            return Source(f"the archive {archive}", [archive], partial(_read, _from_archive(archive, known, part), known))
    if incomplete:
        raise ValueError(incomplete)
    return None


def _archive_name(known: KnownSet) -> str:
    return f"{known.archive.replace('-batches-py', '-python')}.tar.gz"


def _from_folder(files: Sequence[Path]) -> Iterator[tuple[str, IO[bytes]]]:
    for path in files:
        with path.open("rb") as file:
            yield str(path), file


def _from_archive(path: Path, known: KnownSet, part: Part) -> Iterator[tuple[str, IO[bytes]]]:
    wanted = {f"{known.archive}/{name}" for name in known.batches[part]}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and member.name.removeprefix("./") in wanted and (file := archive.extractfile(member)):
                    wanted.discard(member.name.removeprefix("./"))
                    # whole in memory: the unpickler's errors are then its own, not those of a damaged archive
                    yield f"{path}: {member.name}", io.BytesIO(file.read())
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is no archive, damaged, or was cut short ({reason}); get it again, or set data.root") from error
    if wanted:
        raise ValueError(
            f"{path} lacks {', '.join(sorted(wanted))}, so it is not the python archive of {known.title}; get that, or set data.name"
        )


def _read(batches: Iterator[tuple[str, IO[bytes]]], known: KnownSet) -> tuple[Tensor, Tensor]:
    images, labels = zip(*(_read_batch(name, file, known) for name, file in batches), strict=True)
    return torch.cat(images), torch.cat(labels)


def _read_batch(name: str, file: IO[bytes], known: KnownSet) -> tuple[Tensor, Tensor]:
    try:
        loaded = BatchUnpickler(file).load()
    except Exception as error:  # damaged pickles raise whatever their bytes happen to ask for
        raise _no_batch(name, known, " ".join(str(error).split())) from error
    batch = loaded if isinstance(loaded, dict) else {}
    # Python 2's text is bytes here; that of a copy saved by Python 3 is text
    data, labels = (batch.get(key.encode(), batch.get(key)) for key in ("data", known.batch_labels))
    width = 3 * _SIZE**2
    if not (isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.ndim == 2 and data.shape[1] == width):
        raise _no_batch(name, known, f"its 'data' must be an array of bytes, {width} for each image")
    is_list = isinstance(labels, list) and len(labels) == len(data)
    if not (is_list and all(isinstance(label, int) and 0 <= label < len(known.labels) for label in labels or ())):
        wanted = f"a number from 0 to {len(known.labels) - 1} for each of {len(data)} images"
        raise _no_batch(name, known, f"its '{known.batch_labels}' must be {wanted}")
    return torch.from_numpy(data.reshape(-1, 3, _SIZE, _SIZE).copy()), torch.tensor(labels, dtype=torch.int64)


def _no_batch(name: str, known: KnownSet, why: str) -> ValueError:
    return ValueError(f"{name} is no batch of {known.title}: {why}; get the python archive again, or set data.name or data.root")
