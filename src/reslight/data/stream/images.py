"""`StreamImages` and `StreamSplit`: encoded images out of chunks, in an order that reads a few chunks at a time."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from reslight.data.loading.encoded import EncodedSplit
from reslight.data.loading.split import Batch
from reslight.data.rng import Draw, permutation
from reslight.data.stream.chunk_store import DOWNLOADS, ChunkStore
from reslight.data.stream.items import image_file
from reslight.messages import UsageError, visible

UNKNOWN = -1
"""The label of an image that has not been read."""


@dataclass(frozen=True, eq=False)
class StreamImages:
    """The images of a split and their labels, by number."""

    store: ChunkStore
    classes: Sequence[str]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.store.index)

    def read(self, number: int) -> bytearray:
        """Return the bytes of an image file; arrays of pixels become one.

        Raises:
            OSError: a chunk that cannot be downloaded or read.
            UsageError: a damaged chunk, or an array that is no image.
        """
        chunk, item = self._locate(number)
        try:
            return image_file(self.store.items(chunk).images[item])
        except (ValueError, TypeError) as error:
            raise UsageError(f"{self.name(number)} is no image of 8 bits ({visible(error)}). Write the dataset again.") from error

    def label(self, number: int) -> int:
        """Return the number of an image's class.

        Raises:
            OSError: a chunk that cannot be downloaded or read.
            UsageError: a label that is not one of the classes.
        """
        chunk, item = self._locate(number)
        label = self.store.items(chunk).labels[item]
        if (place := self._places.get(label, UNKNOWN)) == UNKNOWN:
            allowed = "a name in data.classes" if isinstance(label, str) else f"0 to {len(self.classes) - 1}"
            raise UsageError(f"{self.name(number)} has the label {visible(label)}: it must be {allowed}. Change data.classes.")
        return place

    def name(self, number: int) -> str:
        """Return the name of an image in messages: its place in its chunk."""
        chunk, item = self._locate(number)
        where = self.store.bucket.url if self.store.bucket else self.store.folder
        return f"item {item} of {visible(f'{where}/{self.store.index.filenames[chunk]}', 1000)}"

    def content(self) -> str:
        """Return the sha256 of the index, which changes when the dataset is written again."""
        return self.store.index.digest

    @cached_property
    def _places(self) -> dict[int | str, int]:
        """The number of each class, by its number and by its name."""
        return {name: place for place, one in enumerate(self.classes) for name in (place, one)}

    def _locate(self, number: int) -> tuple[int, int]:
        chunk = int(self.store.index.chunks_of(np.array(number)))
        return chunk, number - int(self.store.index.starts[chunk])


@dataclass(frozen=True, eq=False)
class StreamSplit(EncodedSplit):
    """A split in chunks: labels are known when their images are read, and a random order has few chunks at a time."""

    window: int = 8
    """Chunks whose images are shuffled together."""
    distance: int = DOWNLOADS
    """Chunks in memory at a time."""

    def order(self, seed: int, epoch: int) -> Tensor:
        """Return the random order of an epoch, int64: the chunks in random order, and the images of each `window` of them, too.

        With as many chunks or fewer, it is the order of any other dataset of so many images.
        """
        index = self._store.index
        chunks = len(index.filenames)
        place = torch.empty(chunks, dtype=torch.int64)
        place[permutation(chunks, seed, epoch, Draw.CHUNK_ORDER)] = torch.arange(chunks)
        window_of = (place // self.window).repeat_interleave(torch.from_numpy(np.diff(index.starts)))
        order = permutation(len(self), seed, epoch)
        return order[window_of[order].argsort(stable=True)]

    def labels_of(self, rows: Tensor) -> Tensor:
        """Return the labels of rows, whose images have been read, int64 `(n,)`."""
        assert isinstance(self.images, StreamImages)
        return torch.tensor([self.images.label(number) for number in self.numbers[rows].tolist()], dtype=torch.int64)

    def batches(self, numbers: Iterable[Tensor], epoch: int) -> Iterator[Batch]:
        """Decode the images of each batch; the chunks of the next batches are downloaded meanwhile.

        Raises:
            OSError: a chunk that cannot be downloaded; it is never skipped as a bad image.
            UsageError: a damaged chunk, or an image that cannot be read, unless it may be skipped.
        """
        batches = list(numbers)
        index = self._store.index
        chunks = [np.unique(index.chunks_of(self.numbers[self.rows_of(batch)].numpy())) for batch in batches]
        with self._store.ahead_of(chunks, self.distance) as reading:
            yield from super().batches(reading.ready(batches), epoch)

    @property
    def _store(self) -> ChunkStore:
        assert isinstance(self.images, StreamImages)
        return self.images.store
