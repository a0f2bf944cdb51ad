"""Decoded images of a dataset's split, in its order, as a classifier's user has them: before they are resized."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from torch import Tensor

from reslight.cores import available_cores
from reslight.data.loading.split import Split
from reslight.deploy.images import all_pixels, decoded
from reslight.messages import UsageError, visible
from reslight.preprocess import Preprocess

log = logging.getLogger(__name__)

_AHEAD = 4
"""Images for each thread that are decoded before they are asked for; an image may have hundreds of megabytes."""


def pixels_of(split: Any, numbers: Iterable[int], preprocess: Preprocess, *, whole: bool = True, skip: bool = False) -> Iterator[Tensor]:
    """Yield images, uint8 or uint16 `(C, H, W)`.

    Args:
        split: A split of a data module of reslight.
        numbers: The images' numbers in the split.
        preprocess: Its channels and bits are those of the images.
        whole: Yield all pixels. Otherwise gray and RGB images of files are resized, but not cropped: that takes less memory.
        skip: Leave out images that cannot be read, with a line for each.

    Raises:
        UsageError: an image that cannot be read, unless it is skipped.
    """
    if isinstance(split, Split):
        yield from (split.images[number] for number in numbers)
        return

    def decode(number: int) -> Tensor | None:
        place = int(split.numbers[number])
        try:
            return all_pixels(decoded(split.images.read(place), preprocess, split.images.name(place), whole=whole).image)
        except (OSError, UsageError) as error:
            if not skip:
                raise
            log.warning("skipped: %s", visible(error, 1000))
            return None

    yield from (image for image in _ahead(decode, numbers) if image is not None)


def labels_of(split: Any, numbers: Tensor) -> Tensor:
    """Return the labels of images: int64 `(N,)`, or uint8 `(N, classes)` if an image may have several."""
    found: Tensor = split.labels[numbers] if isinstance(split, Split) else split.labels_of(numbers)
    return found


def _ahead(decode: Callable[[int], Tensor | None], numbers: Iterable[int]) -> Iterator[Tensor | None]:
    """Yield what `decode` returns for each number, in their order, decoded by threads."""
    waiting: deque[Future[Tensor | None]] = deque()
    threads = available_cores()
    with ThreadPoolExecutor(threads, thread_name_prefix="reslight-decode") as pool:
        for number in numbers:
            waiting.append(pool.submit(decode, number))
            if len(waiting) > _AHEAD * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
