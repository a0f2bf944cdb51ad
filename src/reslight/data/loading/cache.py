"""Cache of decoded splits: uint8 tensors in a file that is memory-mapped at the next start.

The file is in `RESLIGHT_CACHE`, or else in `reslight` under `XDG_CACHE_HOME` or `~/.cache`, and may be deleted at any
time. A stamp of the source files tells whether it is up to date.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from reslight import atomic
from reslight.data.loading.split import Split
from reslight.file_lock import lock_alone, lock_shared

log = logging.getLogger(__name__)

FORMAT = 1
"""Increased when the meaning of a file's contents changes."""

_TENSORS = ("images", "labels", "keys")
_LONG = 86_400
"""Seconds after which an unfinished file counts as left over, on a file system without locks."""


def cache_folder() -> Path:
    """Return the folder of decoded images."""
    if own := os.environ.get("RESLIGHT_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "reslight"


def stamp_of(files: Sequence[Path]) -> str:
    """Return a text that changes with the names, sizes and times of files."""
    states = []
    for file in files:
        state = file.stat()
        states.append((str(file.absolute()), state.st_size, state.st_mtime_ns))
    return hashlib.sha256(json.dumps([FORMAT, states]).encode()).hexdigest()


def cached(name: str, files: Sequence[Path], decode: Callable[[], Split]) -> Split:
    """Return a split from the cache, or decode it and store it there.

    Several processes may do so at once: each stores a whole file. If the cache is not writable, a warning is logged.

    Args:
        name: Name of the dataset and the split.
        files: The files that `decode` reads.
        decode: Decodes the images.
    """
    place = hashlib.sha256(os.fsencode(files[0].parent.absolute())).hexdigest()[:12]
    path = cache_folder() / f"{name}-{place}.safetensors"
    stamp = stamp_of(files)
    remove_unfinished(path.parent)
    if (split := load(path, stamp)) is not None:
        return split
    split = decode()
    try:
        with writing_to(path.parent):
            store(path, stamp, split)
    except OSError as error:
        log.warning("%s Until then, each start decodes the images again. RESLIGHT_CACHE sets the folder.", error)
    return split


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Keep `remove_unfinished` away from a folder of the cache while this process writes to it; several may write at once."""
    lock = None
    with suppress(OSError):  # a folder that cannot be created is an error when the file is written
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)
    try:
        if lock is not None:
            lock_shared(lock)
        yield
    finally:
        if lock is not None:
            os.close(lock)


def remove_unfinished(folder: Path) -> None:
    """Delete the unfinished files that killed processes left in a folder of the cache."""
    with suppress(OSError):  # a missing folder, or one that belongs to another user
        if not (unfinished := atomic.unfinished_files(folder)):
            return
        lock = os.open(folder, os.O_RDONLY)
        try:
            for path in _abandoned(lock, unfinished):
                path.unlink(missing_ok=True)
        finally:
            os.close(lock)


def _abandoned(lock: int, unfinished: Sequence[Path]) -> Sequence[Path]:
    """Return the unfinished files that no process is writing; those that were begun since they were listed are not among them."""
    is_locked = lock_alone(lock)
    if is_locked is None:
        return [path for path in unfinished if time.time() - path.stat().st_mtime > _LONG]
    return unfinished if is_locked else []  # otherwise a process is writing


def load(path: Path, stamp: str) -> Split | None:
    """Return the split in a file, memory-mapped, or None if the file is missing, damaged or made from other files."""
    if not path.is_file():  # missing, or a pipe that would be waited for
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("stamp") != stamp:
                return None
            tensors = {name: file.get_tensor(name) for name in _TENSORS}
    except (OSError, SafetensorError):
        return None
    return Split(**tensors) if _digest(tensors) == metadata.get("digest") else None


def store(path: Path, stamp: str, split: Split) -> None:
    """Write a split to a file, whole or not at all.

    Raises:
        OSError: a file that cannot be written.
    """
    tensors = {name: getattr(split, name) for name in _TENSORS}
    atomic.write_files({path: save(tensors, metadata={"stamp": stamp, "digest": _digest(tensors)})})


def _digest(tensors: dict[str, Tensor]) -> str:
    """Return the sha256 of tensors, so that a damaged file is noticed; it takes a tenth of a second for 150 MB."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()
