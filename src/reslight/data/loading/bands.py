"""Decode images with other channels than gray or RGB, or with 16 bits per channel, such as satellite images.

Channels are taken as they are in the file: an alpha channel is data like any other one if four channels are wanted. TIFF files that Pillow
does not read, or not with all of their channels, need the package tifffile.
"""

import io
import logging
import math
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from reslight.messages import MissingPackageError, UsageError, counted

for library in ("tifffile", "PIL.TiffImagePlugin"):
    logging.getLogger(library).setLevel(logging.CRITICAL)  # what is wrong with a file is in the error

Values = np.ndarray[Any, np.dtype[Any]]

_BITS, _SAMPLES, _ORIENTATION, _EXTRA = 258, 277, 274, 338
"""Tags of TIFF files; the last one says whether a channel is an alpha channel by which the others are multiplied."""
_RAW_MODES = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "RGBX": 4, "CMYK": 4}
"""Pillow's modes whose channels are those of the file, and their number."""
_PNG = b"\x89PNG\r\n\x1a\n"
_LUMA = (0.299, 0.587, 0.114)
_DEPTH = 24
"""Byte of a PNG file that says how many bits a value has."""


def is_tiff(data: bytearray) -> bool:
    """Return whether a file is a TIFF file."""
    return bytes(data[:4]) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def decode_bands(data: bytearray, name: str, channels: int, bits: int = 8) -> Tensor | None:
    """Decode an image with all of its channels.

    Args:
        data: The file.
        name: The image's name in an error.
        channels: Channels of the result. 1 and 3 are converted to from gray, RGB and alpha; any other number must be that of the image.
        bits: 8 or 16, see `to_bits`.

    Returns:
        uint8 or uint16 `(channels, H, W)`; None if gray or RGB is wanted of an image with 8 bits or less, which is converted as always.

    Raises:
        MissingPackageError: tifffile is not installed, and the image needs it.
        UsageError: an image with other channels.
    """
    orientation = None
    values: Values
    try:
        with Image.open(io.BytesIO(data)) as image:  # which refuses images that are too large
            if channels in (1, 3) and (bits == 8 or not _is_deep(image, data)):
                return None
            found = _with_pillow(image, data, name, channels)
    except UnidentifiedImageError:
        if not is_tiff(data):
            raise
        found = None
    if found is not None:
        values, orientation = found
    elif is_tiff(data):
        values, orientation = _with_tifffile(data, name, channels)
    else:
        from torchvision.io import decode_png  # takes as long to import as torch

        values = decode_png(torch.frombuffer(data, dtype=torch.uint8)).permute(1, 2, 0).numpy()
    result = _turned(to_bits(_with_channels(values, name, channels), bits), orientation)
    return torch.from_numpy(np.require(result, requirements=("C", "W"))).permute(2, 0, 1)


def to_bits(values: Values, bits: int) -> Values:
    """Scale the values of an image to 0 to 255 or 65535.

    Black and white are 0 and 65535 of whole numbers, 0 and 1 or 0 and 255 of fractions, if all values are in this range; else the least and
    the greatest value.

    Raises:
        UsageError: values that are not numbers.
    """
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * 255
    if values.dtype == (np.uint8, np.uint16)[bits == 16]:
        return values
    white = 255 if bits == 8 else 65535
    low, high = 0.0, {"uint8": 255.0, "uint16": 65535.0}.get(values.dtype.name)
    if high is None:
        least, most = float(values.min()), float(values.max())
        if not np.isfinite(most - least):
            raise UsageError("it has values that are not numbers")
        usual = (1.0, 255.0) if values.dtype.kind == "f" else (65535.0,)
        high = next((one for one in usual if least >= 0 and most <= one), None)
        low, high = (0.0, high) if high else (least, most)
    scaled = (values.astype(np.float64) - low) * (white / (high - low or 1))
    return np.round(scaled).astype((np.uint8, np.uint16)[bits == 16])


def _is_deep(image: Image.Image, data: bytearray) -> bool:
    """Return whether the values of a file have more than 8 bits; Pillow's image may have 8."""
    if data.startswith(_PNG):
        return data[_DEPTH] == 16
    if is_tiff(data):
        return bool(max(_tag(image, _BITS, (1,))) > 8)
    return image.mode.startswith("I;16")


def _tag(image: Image.Image, number: int, default: Any) -> Any:
    return getattr(image, "tag_v2", {}).get(number, default)


def _with_pillow(image: Image.Image, data: bytearray, name: str, channels: int) -> tuple[Values, int | None] | None:
    """Return the values and the orientation of an image if Pillow decodes its channels as they are, else None.

    Raises:
        UsageError: an image with other channels.
    """
    bands = len(image.getbands())
    if is_deep_gray := image.mode.startswith("I;16") and _tag(image, _SAMPLES, 1) == 1:
        is_raw = channels in (1, 3)
    elif image.format == "TIFF":  # Pillow drops the fifth channel, and divides by an alpha channel
        bits, samples, extra = _tag(image, _BITS, (1,)), _tag(image, _SAMPLES, 1), _tag(image, _EXTRA, ())
        is_raw = image.mode in _RAW_MODES and bands == samples == channels and set(bits) == {8} and 1 not in extra
    elif data.startswith(_PNG) and data[_DEPTH] == 16:  # Pillow drops the low 8 bits
        return None
    elif channels == 4 and image.mode in ("P", "RGB") and image.has_transparency_data:
        image, is_raw = image.convert("RGBA"), True
    else:
        is_raw = image.mode in _RAW_MODES and bands == channels
    if is_raw:
        values = np.asarray(image)
        return (values if values.ndim == 3 else values[..., None]), image.getexif().get(_ORIENTATION)
    if image.format == "TIFF":
        return None
    raise _other_channels(name, 1 if is_deep_gray else bands, channels)


def _with_tifffile(data: bytearray, name: str, channels: int) -> tuple[Values, int | None]:
    """Return the values `(H, W, C)` and the orientation of a TIFF file; of several pages of one size, each is a channel."""
    try:
        import tifffile
    except ImportError:
        if channels in (1, 3):  # one file of another kind, perhaps damaged
            raise UsageError(f"{name} cannot be read by Pillow. Replace or remove it, or run pip install 'reslight[tiff]'.") from None
        raise MissingPackageError(f"tifffile is not installed: {name} needs it. Run pip install 'reslight[tiff]'.") from None
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        series, tag = file.series[0], file.pages.first.tags.get(_ORIENTATION)
        axes, shape = series.axes, series.shape
        if len(axes) > 3 or not {"X", "Y"} <= set(axes):
            raise UsageError(f"it has the dimensions {axes}: they must be height, width and channels")
        sides = {axis: side for axis, side in zip(axes, shape, strict=True) if axis in "XY"}
        found = math.prod(shape) // max(1, math.prod(sides.values()))
        if Image.MAX_IMAGE_PIXELS and math.prod(sides.values()) > 2 * Image.MAX_IMAGE_PIXELS:
            raise Image.DecompressionBombError
        if found != channels and (channels not in (1, 3) or found > 4):
            raise _other_channels(name, found, channels)
        values = series.asarray()
    values = np.moveaxis(values, (axes.index("Y"), axes.index("X")), (0, 1))
    return (values if values.ndim == 3 else values[..., None]), tag.value if tag else None


def _with_channels(values: Values, name: str, channels: int) -> Values:
    """Return values with the channels that are wanted: gray or RGB are converted, and alpha is over white, as of images with 8 bits."""
    found = values.shape[2]
    if found == channels:
        return values
    if channels not in (1, 3) or found > 4:
        raise _other_channels(name, found, channels)
    exact = values.astype(np.float64)
    if found in (2, 4):
        white = np.iinfo(values.dtype).max if values.dtype.kind in "ui" else 1.0
        alpha = exact[..., -1:] / white
        exact = exact[..., :-1] * alpha + white * (1 - alpha)
    if channels == 1 and exact.shape[2] == 3:
        exact = exact @ np.array(_LUMA)[:, None]
    rounded = np.round(exact).astype(values.dtype) if values.dtype.kind in "ui" else exact
    return np.broadcast_to(rounded, (*rounded.shape[:2], channels))


def _turned(values: Values, orientation: int | None) -> Values:
    """Return an image `(H, W, C)` turned by its orientation."""
    if orientation in (5, 6, 7, 8):  # rows become columns
        values = values.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values[::-1] if orientation in (3, 4, 7, 8) else values


def _other_channels(name: str, found: int, wanted: int) -> UsageError:
    lengths = f"the network takes {wanted} (the length of preprocess.mean and std)"
    return UsageError(
        f"{name} has {counted(found, 'channel')}: {lengths}. Replace or remove it; or, in training, set both to {found} numbers."
    )
