"""Encode images anew: smaller, in another format, or as they are."""

import io
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, NamedTuple

from PIL import Image

from reslight.data.augment.crop import resized
from reslight.data.loading.decode import decode
from reslight.data.loading.encoded import Images
from reslight.messages import UsageError

Format = Literal["jpeg", "webp", "png", "webp-lossless"]
_AHEAD = 4
"""Images in progress for each thread."""
_GRAY = ("1", "L", "I", "I;16", "I;16B", "I;16L", "F")
"""Pillow's modes of one channel."""


@dataclass(frozen=True)
class Recipe:
    """How images are encoded."""

    size: int | None = None
    """Length of the short side in pixels of images that are larger; None to keep the size."""
    format: Format | None = None
    """The format of all images; None for JPEG where an image becomes smaller, and else the file as it is."""
    quality: int = 95
    """Quality of JPEG and WebP, 1 to 100."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            UsageError: a field that is out of range.
        """
        if self.size is not None and not 1 <= self.size <= 8192:
            raise UsageError(f"--size is {self.size}: it must be 1 to 8192 pixels. Use 256, or leave it out to keep the size.")
        if not 1 <= self.quality <= 100:
            raise UsageError(f"--quality is {self.quality}: it must be 1 to 100. Use 95, the default.")

    def encode(self, data: bytearray, name: str) -> bytes:
        """Return an image as this recipe has it: turned by its EXIF orientation and 8 bits per channel, unless it is kept as it is.

        Raises:
            UsageError: an image that cannot be read.
        """
        if self.size is None and self.format is None:
            return bytes(data)
        side, is_gray = _short_side(data)
        is_larger = self.size is not None and (side is None or side > self.size)
        if self.format is None and not is_larger:
            return bytes(data)
        image = decode(data, name, 1 if is_gray else 3)
        height, width = image.shape[-2:]
        if self.size is not None and min(height, width) > self.size:
            scale = self.size / min(height, width)
            image = resized(image, (max(self.size, round(height * scale)), max(self.size, round(width * scale))), "bicubic")
        pixels = image.permute(1, 2, 0).squeeze(-1).contiguous().numpy()
        sink = io.BytesIO()
        kind = self.format or "jpeg"
        if kind == "png":
            Image.fromarray(pixels).save(sink, "PNG")
        elif kind == "jpeg":
            Image.fromarray(pixels).save(sink, "JPEG", quality=self.quality)
        else:
            Image.fromarray(pixels).save(sink, "WEBP", quality=self.quality, lossless=kind == "webp-lossless")
        return sink.getvalue()


def _short_side(data: bytearray) -> tuple[int | None, bool]:
    """Return the short side of an image in pixels, None if Pillow cannot tell, and whether it has one channel."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return min(image.size), image.mode in _GRAY
    except Exception:  # decoding the image says what is wrong with it
        return None, False


class Encoded(NamedTuple):
    """The result for an image."""

    data: bytes
    problem: str | None
    """Why the image is kept as it is, if it cannot be read."""


def encode_all(images: Images, numbers: Sequence[int], recipe: Recipe, threads: int) -> Iterator[Encoded]:
    """Encode images in threads, and yield them in order.

    Raises:
        OSError: a file that is missing or cannot be opened.
    """

    def encode(number: int) -> Encoded:
        data = images.read(number)
        try:
            return Encoded(recipe.encode(data, images.name(number)), None)
        except UsageError as error:
            return Encoded(bytes(data), str(error))

    pool = ThreadPoolExecutor(threads, thread_name_prefix="reslight-pack")
    waiting: deque[Future[Encoded]] = deque()
    try:
        for number in numbers:
            waiting.append(pool.submit(encode, number))
            if len(waiting) > threads * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
