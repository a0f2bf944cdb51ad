"""Splits decoded once: kept as uint8 tensors in a file that is memory-mapped the next time.

The file lies in `RESLIGHT_CACHE`, else in `reslight` under `XDG_CACHE_HOME` or `~/.cache`, and may be deleted at any
time. It holds what its source held when it was made: the stamp says which files those were.
"""

import hashlib
import json
import logging
import os
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from reslight.data.loading.split import Split

log = logging.getLogger(__name__)

FORMAT = 1
"""Counted up when the file's contents change their meaning."""

_TENSORS = ("images", "labels", "keys")


def cache_folder() -> Path:
    """Return where decoded images are kept."""
    if own := os.environ.get("RESLIGHT_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "reslight"


def stamp_of(files: Sequence[Path]) -> str:
    """Return a text that changes with the names, sizes and times of files."""
    described = []
    for file in files:
        state = file.stat()
        described.append((str(file.absolute()), state.st_size, state.st_mtime_ns))
    return hashlib.sha256(json.dumps([FORMAT, described]).encode()).hexdigest()


def cached(name: str, files: Sequence[Path], make: Callable[[], Split]) -> Split:
    """Return the split that `make` makes of `files`: from the cache, or made and put there.

    Two processes may do so at once; each puts its file in place whole. Where nothing can be kept, a warning says so.

    Args:
        name: Name of the data set and the split.
        files: What `make` reads.
        make: Decodes the images.
    """
    place = hashlib.sha256(os.fsencode(files[0].parent.absolute())).hexdigest()[:12]
    path = cache_folder() / f"{name}-{place}.safetensors"
    stamp = stamp_of(files)
    if (split := load(path, stamp)) is not None:
        return split
    split = make()
    try:
        store(path, stamp, split)
    except (OSError, SafetensorError) as error:
        log.warning("decoded images cannot be kept in %s (%s), so each start decodes them again; set RESLIGHT_CACHE", path.parent, error)
    return split


def load(path: Path, stamp: str) -> Split | None:
    """Return the split in a file, memory-mapped; None if it is absent, damaged, or was made of something else."""
    try:
        with safe_open(path, framework="pt") as file:
            said = file.metadata() or {}
            if said.get("stamp") != stamp:
                return None
            tensors = {name: file.get_tensor(name) for name in _TENSORS}
    except (OSError, SafetensorError):
        return None
    return Split(**tensors) if _digest(tensors) == said.get("digest") else None


def store(path: Path, stamp: str, split: Split) -> None:
    """Write a split to a file, which is there whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}-{uuid.uuid4().hex}")  # of this process alone
    try:
        tensors = {name: getattr(split, name) for name in _TENSORS}
        save_file(tensors, unfinished, metadata={"stamp": stamp, "digest": _digest(tensors)})
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _digest(tensors: dict[str, Tensor]) -> str:
    """Return the sha256 of tensors, which takes a tenth of a second for 150 MB: a damaged file must not pass for sound."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()
