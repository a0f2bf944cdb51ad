"""Decoded images of a dataset's split, in its order, as a classifier's user has them: before they are resized."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from torch import Tensor

from reslight.cores import available_cores
from reslight.data.loading.split import Split
from reslight.deploy.images import all_pixels, decoded
from reslight.preprocess import Preprocess

_AHEAD = 4
"""Images for each thread that are decoded before they are asked for; an image may have hundreds of megabytes."""


def pixels_of(split: Any, numbers: Iterable[int], preprocess: Preprocess, *, whole: bool = True) -> Iterator[Tensor]:
    """Yield images, uint8 or uint16 `(C, H, W)`.

    Args:
        split: A split of a data module of reslight.
        numbers: The images' numbers in the split.
        preprocess: Its channels and bits are those of the images.
        whole: Yield all pixels. Otherwise gray and RGB images of files are resized, but not cropped: that takes less memory.

    Raises:
        UsageError: an image that cannot be read.
    """
    if isinstance(split, Split):
        yield from (split.images[number] for number in numbers)
        return

    def decode(number: int) -> Tensor:
        place = int(split.numbers[number])
        return all_pixels(decoded(split.images.read(place), preprocess, split.images.name(place), whole=whole).image)

    waiting: deque[Any] = deque()
    threads = available_cores()
    with ThreadPoolExecutor(threads, thread_name_prefix="reslight-decode") as pool:
        for number in numbers:
            waiting.append(pool.submit(decode, number))
            if len(waiting) > _AHEAD * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
