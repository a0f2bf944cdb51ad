"""Splits too large for memory: images stay files, and threads decode a few batches ahead of the device.

Threads, not processes: decoder and resizer let go of Python's lock, no pixel is copied between processes, no memory is
doubled, and what a bad file raises comes up as it is. Which images a batch holds, and which part of each, was settled
before any thread runs, so their number changes nothing.
"""

import hashlib
import logging
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor

from reslight.data.augment.crop import Geometry
from reslight.data.augment.views import MultiScale, TenCrop, gathered
from reslight.data.loading.decode import decode
from reslight.data.loading.split import Batch
from reslight.messages import UsageError

log = logging.getLogger(__name__)

OnBadImage = Literal["raise", "skip"]
_AHEAD = 2
"""Batches under way beside the one that is waited for."""
_CHUNKS = 4
"""Parts of a batch for each thread: many, and none idles at its end; few, and little is lost between them."""


class Images(Protocol):
    """Encoded images, by number."""

    def __len__(self) -> int:
        """How many."""

    def read(self, number: int) -> bytearray:
        """The bytes of one."""

    def name(self, number: int) -> str:
        """What it is called in a message."""


@dataclass(frozen=True)
class Files:
    """Images in files of their own."""

    paths: Sequence[Path]

    def __len__(self) -> int:
        """How many."""
        return len(self.paths)

    def read(self, number: int) -> bytearray:
        """The bytes of one."""
        with self.paths[number].open("rb", buffering=0) as file:
            return bytearray(file.read())

    def name(self, number: int) -> str:
        """Its path."""
        return str(self.paths[number])


@dataclass(frozen=True, eq=False)
class EncodedSplit:
    """Encoded images with their labels, and what becomes of each: the counterpart of `Split`, batch by batch."""

    images: Images
    """All images of the set's part."""
    numbers: Tensor
    """int64 `(N,)`: which of `images` belong to the split, in its order."""
    labels: Tensor
    """int64 `(N,)`."""
    fingerprint: str
    """Names the split."""
    geometry: Geometry
    """Which part of an image, at which size."""
    channels: int
    threads: int
    seed: int = 0
    on_bad_image: OnBadImage = "raise"
    views: TenCrop | MultiScale | None = None
    """Several views of each image in the place of `geometry`."""
    bad: dict[int, str] = field(default_factory=dict)
    """What was wrong with images that were skipped, by their number in `images`."""

    device = torch.device("cpu")

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @property
    def skipped(self) -> int:
        """How many of them could not be read so far, and were left out."""
        return int(torch.isin(self.numbers, torch.tensor(list(self.bad), dtype=torch.int64)).sum())

    def take(self, indices: Tensor) -> Self:
        """Return the split of the images at `indices`, in that order."""
        own = self.numbers[indices]
        name = hashlib.sha256(self.fingerprint.encode() + own.numpy().astype("<i8").tobytes()).hexdigest()
        return replace(self, numbers=own, labels=self.labels[indices], fingerprint=name)

    def batches(self, numbers: Iterable[Tensor], epoch: int) -> Iterator[Batch]:
        """Decode the images of each batch.

        Args:
            numbers: For each batch the numbers of its images, int64 `(n,)`; a number beyond the split is another copy of an
                image, with random numbers of its own.
            epoch: Epoch, counted from 0.

        Raises:
            ValueError: An image cannot be read, and is not to be skipped.
        """
        waiting: deque[_Pending] = deque()
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="reslight-decode")
        try:
            for batch in numbers:
                waiting.append(self._begin(pool, batch, epoch))
                if len(waiting) > _AHEAD:
                    yield self._finish(waiting.popleft())
            while waiting:
                yield self._finish(waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _begin(self, pool: ThreadPoolExecutor, numbers: Tensor, epoch: int) -> "_Pending":
        drawn = self.geometry.draw(numbers, self.seed, epoch)
        room = self._room(len(numbers))
        step = max(1, math.ceil(len(numbers) / (self.threads * _CHUNKS)))
        own = self.numbers[numbers % len(self)].tolist()
        places = [range(start, min(start + step, len(own))) for start in range(0, len(own), step)]
        return _Pending(numbers, room, [pool.submit(self._decode, some, own, drawn, room) for some in places])

    def _room(self, count: int) -> "_Room":
        """Where the decoded images of a batch go."""
        if self.views:
            return [[]] * count
        # (N, H, W, C) in memory, as decoders write and convolutions read
        shape = (count, self.channels, self.geometry.size, self.geometry.size)
        with torch.inference_mode(False):  # which ends at this thread, and others are going to write here
            return torch.empty(shape, dtype=torch.uint8, pin_memory=torch.cuda.is_available(), memory_format=torch.channels_last)

    def _decode(self, places: range, numbers: list[int], drawn: Tensor, room: "_Room") -> dict[int, ValueError]:
        """Fill these places; returned is what could not be read, by its place."""
        bad = {}
        for place in places:
            number = numbers[place]
            try:
                image = decode(self._read(number), self.images.name(number), self.channels)
            except ValueError as error:
                bad[place] = error
            else:
                made: Any = self.views(image) if self.views else self.geometry(image, drawn[place])
                room[place] = made
        return bad

    def _read(self, number: int) -> bytearray:
        try:
            return self.images.read(number)
        except OSError as error:
            raise UsageError(f"{self.images.name(number)} cannot be read: {error.strerror or error}") from error

    def _finish(self, pending: "_Pending") -> Batch:
        numbers, room, bad = pending.numbers, pending.room, pending.bad()
        if bad:
            self._skip(bad, numbers)
            good = [place for place in range(len(numbers)) if place not in bad]
            numbers = numbers[good]
            room = room[good] if isinstance(room, Tensor) else [room[place] for place in good]
        images = room if isinstance(room, Tensor) else gathered(room)
        return Batch(images, self.labels[numbers % len(self)], numbers)

    def _skip(self, bad: dict[int, ValueError], numbers: Tensor) -> None:
        """Note what is left out of a batch, and say it once.

        Raises:
            ValueError: Nothing is to be skipped.
        """
        if self.on_bad_image == "raise":
            raise UsageError(
                f"{next(iter(bad.values()))}; `reslight data check` lists all such files, data.on_bad_image skip leaves them out"
            )
        for place, error in bad.items():
            number = int(self.numbers[numbers[place] % len(self)])
            if number not in self.bad:
                self.bad[number] = str(error)
                log.warning("skipped: %s", error)


_Room = Tensor | list[list[Tensor]]
"""uint8 `(N, C, H, W)`, or for each image its views."""


@dataclass(frozen=True)
class _Pending:
    """A batch under way."""

    numbers: Tensor
    room: _Room
    parts: list[Future[dict[int, ValueError]]]

    def bad(self) -> dict[int, ValueError]:
        """Wait until it is complete; what could not be read, by its place in the batch."""
        return {place: error for part in self.parts for place, error in part.result().items()}
