"""`EncodedSplit`: images that stay encoded; threads decode a few batches ahead of the device.

Threads, not processes: decoder and resizer release Python's lock, no pixel is copied between processes, no memory is
doubled, and an error of a bad file arrives unchanged. The images of a batch and the crop of each are chosen before any
thread runs, so the number of threads changes no result.
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
from reslight.data.augment.views import MultiScale, TenCrop, group_by_shape
from reslight.data.loading.content import END, sampled_content
from reslight.data.loading.decode import LARGEST_FILE, decode, decode_scaled
from reslight.data.loading.split import Batch
from reslight.data.rng import permutation
from reslight.messages import MissingPackageError, UsageError, visible
from reslight.regular_file import read_ends, read_regular

log = logging.getLogger(__name__)

OnBadImage = Literal["raise", "skip"]
_AHEAD = 2
"""Batches in progress besides the one that is waited for."""
_CHUNKS = 4
"""Chunks per thread. More balance the load better; fewer have less overhead."""
_LONGEST = 1000
"""Characters of a path in a message."""


class Images(Protocol):
    """Encoded images, by number."""

    def __len__(self) -> int:
        """Return the number of images."""

    def read(self, number: int) -> bytearray:
        """Return the bytes of an image."""

    def name(self, number: int) -> str:
        """Return an image's name for messages, without control characters."""

    def content(self) -> str:
        """Return a sha256, in hexadecimal, that changes when many images are replaced by others of the same names and sizes."""


@dataclass(frozen=True)
class Files:
    """Images in files of their own."""

    paths: Sequence[Path]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def read(self, number: int) -> bytearray:
        """Return the bytes of a file.

        Raises:
            UsageError: a pipe, a device, or a file that is too large.
        """
        return read_regular(self.paths[number], LARGEST_FILE)

    def name(self, number: int) -> str:
        """Return a file's path."""
        return visible(self.paths[number], _LONGEST)

    def content(self) -> str:
        """Return a sha256 over a sample of the files, see `sampled_content`."""
        return sampled_content(len(self.paths), lambda number: read_ends(self.paths[number], END))


@dataclass(frozen=True, eq=False)
class EncodedSplit:
    """Encoded images with their labels, decoded and resized batch by batch: the counterpart of `Split`."""

    images: Images
    """All images of the dataset's split."""
    numbers: Tensor
    """int64 `(N,)`: which of `images` belong to the split, in its order."""
    labels: Tensor
    """int64 `(N,)`, or uint8 `(N, num_classes)`, see `loading.labels`."""
    fingerprint: str
    """Identifies the split."""
    geometry: Geometry
    """The crop of each image, and its size."""
    channels: int
    """Channels of each image, see `decode`."""
    threads: int
    seed: int = 0
    on_bad_image: OnBadImage = "raise"
    bits: int = 8
    """8, or 16 for images with values of 16 bits."""
    scaled_decode: bool = False
    """Whether JPEG images are decoded at a half, a quarter or an eighth of each side if the crop is so many times as large."""
    views: TenCrop | MultiScale | None = None
    """Several views of each image, instead of `geometry`."""
    bad: dict[int, str] = field(default_factory=dict)
    """Errors of skipped images, by their number in `images`."""
    content: str | None = None
    """Identifies the contents of `images`, see `Images.content`; None if it is not known."""

    device = torch.device("cpu")

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @property
    def skipped(self) -> int:
        """Number of images that could not be read so far and were skipped."""
        return int(torch.isin(self.numbers, torch.tensor(list(self.bad), dtype=torch.int64)).sum())

    def info(self) -> dict[str, Any]:
        """Return the size, the fingerprint, the content and the number of skipped images, if any, for checkpoints and model cards."""
        content = {"content": self.content} if self.content else {}
        skipped = {"skipped": self.skipped} if self.skipped else {}
        return {"size": len(self), "fingerprint": self.fingerprint} | content | skipped

    def order(self, seed: int, epoch: int) -> Tensor:
        """Return the random order of the images in an epoch, int64 `(N,)` on the split's device."""
        return permutation(len(self), seed, epoch, device=self.device)

    def labels_of(self, rows: Tensor) -> Tensor:
        """Return the labels of rows, whose images have been read."""
        return self.labels[rows]

    def rows_of(self, numbers: Tensor) -> Tensor:
        """Return the rows of `labels` for `numbers` of `batches`: with N images, row i and its copies i + N, i + 2N, ... are one image."""
        return numbers % len(self)

    def subset(self, indices: Tensor) -> Self:
        """Return the split of the images at `indices`, in that order."""
        numbers = self.numbers[indices]
        name = hashlib.sha256(self.fingerprint.encode() + numbers.numpy().astype("<i8").tobytes()).hexdigest()
        return replace(self, numbers=numbers, labels=self.labels[indices], fingerprint=name)

    def readable(self) -> Self:
        """Return the split without the images that were skipped so far; it keeps its fingerprint."""
        keep = ~torch.isin(self.numbers, torch.tensor(list(self.bad), dtype=torch.int64))
        return replace(self, numbers=self.numbers[keep], labels=self.labels[keep]) if self.skipped else self

    def batches(self, numbers: Iterable[Tensor], epoch: int) -> Iterator[Batch]:
        """Decode the images of each batch.

        Args:
            numbers: For each batch the numbers of its images, int64 `(n,)`, see `rows_of`; each copy of an image has random
                numbers of its own.
            epoch: Epoch, counted from 0.

        Raises:
            UsageError: an image that cannot be read, unless it may be skipped.
        """
        in_flight: deque[_BatchInFlight] = deque()
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="reslight-decode")
        try:
            for batch in numbers:
                in_flight.append(self._begin(pool, batch, epoch))
                if len(in_flight) > _AHEAD:
                    yield self._finish(in_flight.popleft())
            while in_flight:
                yield self._finish(in_flight.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _begin(self, pool: ThreadPoolExecutor, numbers: Tensor, epoch: int) -> "_BatchInFlight":
        drawn = self.geometry.draw(numbers, self.seed, epoch)
        rows, buffer = self.rows_of(numbers), self._buffer(len(numbers))
        images = self.numbers[rows].tolist()
        step = max(1, math.ceil(len(images) / (self.threads * _CHUNKS)))
        chunks = [range(start, min(start + step, len(images))) for start in range(0, len(images), step)]
        return _BatchInFlight(numbers, rows, buffer, [pool.submit(self._decode, chunk, images, drawn, buffer) for chunk in chunks])

    def _buffer(self, count: int) -> "_Buffer":
        """Return the memory for the decoded images of a batch."""
        if self.views:
            return [[]] * count
        # (N, H, W, C) in memory, as decoders write and convolutions read
        shape, dtype = (count, self.channels, *self.geometry.shape), torch.uint8 if self.bits == 8 else torch.uint16
        # Inference mode is a property of this thread, and other threads will write to the tensor.
        with torch.inference_mode(False):
            return torch.empty(shape, dtype=dtype, pin_memory=torch.cuda.is_available(), memory_format=torch.channels_last)

    def _decode(self, places: range, images: list[int], drawn: Tensor, buffer: "_Buffer") -> dict[int, ValueError]:
        """Fill these places of a batch; return the errors of images that cannot be read, by place."""
        bad = {}
        for place in places:
            number = images[place]
            try:
                buffer[place] = self._processed(self._read(number), self.images.name(number), drawn[place])
            except MissingPackageError:
                raise  # not the fault of this image
            except ValueError as error:
                bad[place] = error
        return bad

    def _processed(self, data: bytearray, name: str, drawn: Tensor) -> Any:
        """Return the crop of an image, or its views."""
        if self.views:
            return self.views(decode(data, name, self.channels, self.bits))
        if self.scaled_decode and self.channels in (1, 3) and self.bits == 8:
            geometry = self.geometry
            if smaller := decode_scaled(
                data, name, self.channels, lambda height, width: geometry.reduction(height, width, drawn), geometry.largest_reduction
            ):
                return geometry.of_reduced(*smaller, drawn)
        return self.geometry(decode(data, name, self.channels, self.bits), drawn)

    def _read(self, number: int) -> bytearray:
        try:
            return self.images.read(number)
        except OSError as error:
            raise UsageError(f"{self.images.name(number)} cannot be read: {error.strerror or error}. Replace or remove it.") from error

    def _finish(self, batch: "_BatchInFlight") -> Batch:
        numbers, rows, buffer, bad = batch.numbers, batch.rows, batch.buffer, batch.wait()
        if bad:
            self._skip(bad, rows)
            good = [place for place in range(len(numbers)) if place not in bad]
            numbers, rows = numbers[good], rows[good]
            buffer = buffer[good] if isinstance(buffer, Tensor) else [buffer[place] for place in good]
        images = buffer if isinstance(buffer, Tensor) else group_by_shape(buffer)
        return Batch(images, _as_pinned(self.labels_of(rows)), _as_pinned(numbers))

    def _skip(self, bad: dict[int, ValueError], rows: Tensor) -> None:
        """Record the images of a batch that cannot be read, with one warning for each image.

        Raises:
            UsageError: `on_bad_image` is not `skip`.
        """
        if self.on_bad_image == "raise":
            hint = "Run `reslight data check` to list all such files, or set data.on_bad_image to skip."
            raise UsageError(f"{next(iter(bad.values()))} {hint}")
        for place, error in bad.items():
            number = int(self.numbers[rows[place]])
            if number not in self.bad:
                self.bad[number] = str(error)
                log.warning("skipped: %s", error)


def _as_pinned(values: Tensor) -> Tensor:
    """Return values in memory that a GPU copies from without the host waiting for its earlier work."""
    return values.pin_memory() if torch.cuda.is_available() else values


_Buffer = Tensor | list[list[Tensor]]
"""uint8 `(N, C, H, W)`, or the views of each image."""


@dataclass(frozen=True)
class _BatchInFlight:
    """A batch that threads are decoding."""

    numbers: Tensor
    rows: Tensor
    buffer: _Buffer
    chunks: list[Future[dict[int, ValueError]]]

    def wait(self) -> dict[int, ValueError]:
        """Wait until all images are decoded; return the errors of images that cannot be read, by place in the batch."""
        return {place: error for chunk in self.chunks for place, error in chunk.result().items()}
