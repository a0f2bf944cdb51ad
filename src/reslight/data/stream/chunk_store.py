"""`ChunkStore`: the chunks of a split, downloaded and read a few ahead of their use.

A chunk that is in use is in memory, still encoded, so that its images can be taken in any order and its file may be deleted, where the
disk is smaller than the dataset. Processes of one machine share the files: one of them downloads a chunk, and the others wait for it.
"""

import contextlib
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, Semaphore, Thread
from typing import BinaryIO

import numpy as np
from torch import Tensor

from reslight.atomic import write_files
from reslight.data.loading.cache import cache_folder, remove_unfinished, writing_to
from reslight.data.stream.chunk_index import ChunkIndex
from reslight.data.stream.items import Items, read_items
from reslight.data.stream.s3 import Bucket
from reslight.file_lock import lock_alone
from reslight.messages import UsageError

log = logging.getLogger(__name__)

DOWNLOADS = 4
"""Downloads at a time, of one process."""
_IN_PROGRESS = 4
"""Batches that threads may still be decoding when the next one begins."""
_FREE_SHARE = 0.1
"""Share of the disk that is left free if there is no limit for the cache."""
_LOCKS = 64
_SUFFIX = ".chunk"
_SLOW = 10
"""Seconds after which a chunk that is waited for is named."""
_ATTEMPTS = 5
"""Downloads of a chunk whose file is deleted before it is read."""


@dataclass(eq=False)
class ChunkStore:
    """The chunks of a split."""

    index: ChunkIndex
    folder: Path
    """Where their files are: the dataset's folder, or the cache's for a dataset on S3."""
    bucket: Bucket | None = None
    """Where they are downloaded from; None if they are in a folder."""
    checksums: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None
    """Bytes of disk for all downloaded chunks; None to leave a tenth of the disk free."""
    _chunks: dict[int, "Future[Items]"] = field(default_factory=dict, repr=False)
    _lock: Lock = field(default_factory=Lock, repr=False)
    _slots: Semaphore = field(default_factory=lambda: Semaphore(DOWNLOADS), repr=False)

    def items(self, number: int) -> Items:
        """Return the items of a chunk, and wait for its download if need be.

        Raises:
            OSError: a file that cannot be downloaded or read; the message is one line.
            UsageError: a damaged file.
        """
        while True:
            try:
                return self._wanted(number).result()
            except CancelledError:  # another reader closed the chunk before its download had begun
                continue

    @contextmanager
    def ahead_of(self, chunks: Sequence[np.ndarray], distance: int) -> Iterator["Reading"]:
        """Download chunks ahead of their use.

        Args:
            chunks: The chunks of each batch, ascending and without repetition.
            distance: Chunks in memory at a time; more if a batch needs more.
        """
        reading = Reading(self, chunks, distance)
        try:
            yield reading
        finally:
            reading.close()

    def close(self, number: int) -> None:
        """Forget a chunk that is not needed any more; its file is kept while there is room."""
        with self._lock:
            self._chunks.pop(number, None)

    def _wanted(self, number: int) -> "Future[Items]":
        """Return a chunk's future, and begin its download if nobody has."""
        with self._lock:
            if (future := self._chunks.get(number)) is not None:
                return future
            future = self._chunks[number] = Future()
        # Not a pool of threads: Python waits for one before it ends, and a dead connection takes minutes.
        Thread(target=self._fill, args=(number, future), name="reslight-chunk", daemon=True).start()
        return future

    def _fill(self, number: int, future: "Future[Items]") -> None:
        """Download and read a chunk, when its turn has come; set a future's result or error."""
        with self._slots:
            try:
                if self._chunks.get(number) is not future:
                    raise CancelledError  # closed meanwhile
                future.set_result(self._read(number, self._path(number)))
            except BaseException as error:  # an error that nobody set would be waited for
                future.set_exception(error)

    def _read(self, number: int, path: Path) -> Items:
        """Read a chunk; download it before, again if another process deletes the file to make room for another chunk."""
        if self.bucket is None:
            return read_items(path, self.index, number)
        for _ in range(_ATTEMPTS):
            self._download(number, path)
            try:
                os.utime(path)  # the chunks that were used last are deleted last
                return read_items(path, self.index, number)
            except (FileNotFoundError, UsageError):
                if path.exists():
                    raise
        raise OSError(f"{path} was deleted {_ATTEMPTS} times before it was read. Make room, or increase data.cache_gb.")

    def _path(self, number: int) -> Path:
        name = self.index.filenames[number]
        return self.folder / (name if self.bucket is None else f"{name}{_SUFFIX}")

    def _download(self, number: int, path: Path) -> None:
        """Download a chunk, unless it is on the disk."""
        assert self.bucket is not None
        bucket, name = self.bucket, self.index.filenames[number]
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f".lock-{number % _LOCKS}").open("wb") as lock:
            while lock_alone(lock.fileno()) is False:
                time.sleep(0.05)
            if path.exists():  # another process has downloaded it
                return
            digest = hashlib.sha256()

            def fill(file: BinaryIO) -> None:
                bucket.download(name, file)
                file.flush()
                with Path(file.name).open("rb") as written:  # what is on the disk, not what was received
                    while block := written.read(2**20):
                        digest.update(block)

            make_room(self.index.sizes[number], self.limit)
            try:
                with writing_to(self.folder):
                    write_files({path: fill})
            except OSError as error:
                if (cause := error.__cause__) is not None and isinstance(cause, OSError) and cause.errno is None:
                    raise cause from None  # the bucket's own error, not the disk's
                reason = getattr(cause, "strerror", None) or error
                raise OSError(f"{self.folder} cannot hold {name}: {reason}. Make room, or set RESLIGHT_CACHE or data.cache_gb.") from error
            if (wanted := self.checksums.get(name)) is not None and digest.hexdigest() != wanted:
                path.unlink(missing_ok=True)
                raise UsageError(f"{bucket.url}/{name} has other bytes than when it was written. Copy the dataset again.")


class Reading:
    """One pass over batches: which chunks are needed now, soon, and no more."""

    def __init__(self, store: ChunkStore, chunks: Sequence[np.ndarray], distance: int) -> None:
        self._store, self._chunks, self._distance = store, chunks, distance
        self._last = {int(chunk): batch for batch, of_batch in enumerate(chunks) for chunk in of_batch}
        self._first = list(dict.fromkeys(int(chunk) for of_batch in chunks for chunk in of_batch))
        self._begun = 0  # chunks of _first whose download has begun
        self._open: set[int] = set()

    def ready(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield each batch when its chunks are on the disk.

        Raises:
            OSError: a chunk that cannot be downloaded or read.
            UsageError: a damaged chunk.
        """
        for number, batch in enumerate(batches):
            for chunk in [one for one in self._open if self._last[one] < number - _IN_PROGRESS]:
                self._open.remove(chunk)
                self._store.close(chunk)
            for chunk in self._chunks[number].tolist():
                self._begin(chunk)
                self._wait(chunk)
            yield batch

    def close(self) -> None:
        """Forget all chunks; downloads that have not begun never will."""
        for chunk in self._open:
            self._store.close(chunk)
        self._open.clear()

    def _begin(self, needed: int) -> None:
        """Begin to read a chunk that is needed now, and those after it for which there is room."""
        while self._begun < len(self._first) and (len(self._open) < self._distance or needed not in self._open):
            chunk = self._first[self._begun]
            self._open.add(chunk)
            self._store._wanted(chunk)
            self._begun += 1

    def _wait(self, chunk: int) -> None:
        if wait([self._store._wanted(chunk)], _SLOW).not_done:
            log.info("waiting for %s", self._store.index.filenames[chunk])
        self._store.items(chunk)


def stream_cache() -> Path:
    """Return the folder of downloaded chunks."""
    return cache_folder() / "stream"


def make_room(needed: int, limit: int | None) -> None:
    """Delete downloaded chunks, those that were used longest ago first, until there is room for another one.

    Args:
        needed: Its bytes.
        limit: Bytes for all chunks, see `ChunkStore.limit`.
    """
    files = []
    for path in stream_cache().glob(f"*/*{_SUFFIX}"):
        with contextlib.suppress(OSError):  # another process may delete it meanwhile
            state = path.stat()
            files.append((state.st_mtime, state.st_size, path))
    if limit is None:
        disk = shutil.disk_usage(stream_cache())
        excess = needed + int(_FREE_SHARE * disk.total) - disk.free
    else:
        excess = sum(size for _, size, _ in files) + needed - limit
    for _, size, path in sorted(files):
        if excess <= 0:
            return
        with contextlib.suppress(OSError):
            path.unlink()
            excess -= size


def folder_for(bucket: Bucket, digest: str) -> Path:
    """Return the folder of the cache for a split; it changes when the split does, and what the earlier one left is deleted.

    Args:
        bucket: The split.
        digest: The sha256 of its index.
    """
    place = hashlib.sha256(bucket.url.encode()).hexdigest()[:12]
    folder = stream_cache() / f"{place}-{digest[:12]}"
    for stale in stream_cache().glob(f"{place}-*"):
        if stale != folder:
            shutil.rmtree(stale, ignore_errors=True)
    remove_unfinished(folder)
    return folder
