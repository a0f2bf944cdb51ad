"""`Converted`: a decoded image as networks take it, turned, without transparency, 8 bits per channel, gray or RGB.

An image may have 179 million pixels, and each step of the conversion makes another image, in gigabytes for 16 bits. So large images are
converted part by part: beside the decoded image there is only the result.
"""

import math
from collections.abc import Iterator

import numpy as np
from PIL import Image

from reslight.messages import UsageError

_DEEP = ("I", "I;16", "I;16B", "I;16L", "F")
"""Pillow's modes of more than 8 bits a channel."""
_SCALES = {"F": ((0, 1), (0, 255))}
"""Values of black and white in each mode, the first range that holds all values of the image; else its least and greatest value."""
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How an image is turned for each value of its EXIF orientation."""
_PART = 2**20
"""Pixels that are converted at a time."""


class Converted:
    """An image of mode L or RGB, converted when it is asked for.

    Attributes:
        steps: What is done to the image, in words.
        orientation: Of the image's EXIF, 1 to 8; None without one.
        width: In pixels, after turning.
        height: In pixels, after turning.
    """

    def __init__(self, image: Image.Image, channels: int) -> None:
        """Find out what has to be done.

        Args:
            image: A decoded image.
            channels: 3 for RGB, 1 for gray.

        Raises:
            UsageError: an image with values that are not numbers.
        """
        self.steps: list[str] = []
        self._image, self._mode = image, "L" if channels == 1 else "RGB"
        self.orientation = image.getexif().get(_ORIENTATION)
        self.width, self.height = image.size if self.orientation not in (5, 6, 7, 8) else image.size[::-1]
        if self.orientation in _TURNS:
            self.steps.append("rotated by its EXIF orientation")
        mode = image.mode
        if mode in _DEEP:
            self._black, self._white = self._range()
            self.steps.append(f"values {self._black:g} to {self._white:g} scaled to 0 to 255")
            mode = "L"
        elif image.has_transparency_data:
            self.steps.append("transparent parts over white")
            mode = "RGB"
        if mode != self._mode:
            self.steps.append(f"to {'gray' if channels == 1 else 'RGB'}")

    def whole(self) -> Image.Image:
        """Return the whole image."""
        if self._image.mode == self._mode and not self.steps:
            return self._image  # no copy, since it may have hundreds of megabytes
        if self.width * self.height <= _PART:
            return self.part(0, 0, self.width, self.height)
        image = Image.new(self._mode, (self.width, self.height))
        for top, bottom in self.strips(self.width, self.height):
            image.paste(self.part(0, top, self.width, bottom), (0, top))
        return image

    def part(self, left: int, top: int, right: int, bottom: int) -> Image.Image:
        """Return a part of the image."""
        box = self._stored(left, top, right, bottom)
        image = self._image if box == (0, 0, *self._image.size) else self._image.crop(box)
        if self.orientation in _TURNS:
            image = image.transpose(_TURNS[self.orientation])
        if image.mode in _DEEP:
            values = np.asarray(image, dtype=np.float64)  # Pillow does not convert all of these modes
            scaled = (values - self._black) * (255 / (self._white - self._black or 1))
            image = Image.fromarray(np.round(scaled).astype(np.uint8))
        elif image.has_transparency_data:
            above = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", above.size, "white"), above).convert("RGB")
        return image if image.mode == self._mode else image.convert(self._mode)

    @staticmethod
    def strips(width: int, height: int) -> Iterator[tuple[int, int]]:
        """Yield the first row of each strip of an image, and the row behind its last one."""
        rows = max(1, _PART // width)
        return ((top, min(top + rows, height)) for top in range(0, height, rows))

    def _stored(self, left: int, top: int, right: int, bottom: int) -> tuple[int, int, int, int]:
        """Return the part of the stored image that becomes this part when it is turned."""
        width, height = self._image.size
        if self.orientation in (5, 6, 7, 8):  # rows become columns
            left, top, right, bottom = top, left, bottom, right
        if self.orientation in (2, 3, 7, 8):
            left, right = width - right, width - left
        if self.orientation in (3, 4, 6, 7):
            top, bottom = height - bottom, height - top
        return left, top, right, bottom

    def _range(self) -> tuple[float, float]:
        """Return the values of black and white.

        Raises:
            UsageError: a value that is not a number.
        """
        width, height = self._image.size
        low, high = math.inf, -math.inf
        for top, bottom in self.strips(width, height):
            values = np.asarray(self._image.crop((0, top, width, bottom)))
            low, high = float(np.minimum(low, values.min())), float(np.maximum(high, values.max()))  # NaN stays NaN
        if not math.isfinite(high - low):
            raise UsageError("it has values that are not numbers")
        fitting = [limits for limits in _SCALES.get(self._image.mode, ((0, 65535),)) if limits[0] <= low and high <= limits[1]]
        return fitting[0] if fitting else (low, high)
