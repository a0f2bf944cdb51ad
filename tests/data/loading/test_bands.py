"""Images with any number of channels, and with 16 bits: the values of the file, in each way to write it."""

import io
import struct
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from reslight.data.loading import bands
from reslight.data.loading.decode import decode
from reslight.messages import MissingPackageError, UsageError

tifffile = pytest.importorskip("tifffile")
DRAW = np.random.default_rng(0)
DEEP = DRAW.integers(0, 65536, (5, 6, 13), dtype=np.uint16)
BYTES = (DEEP >> 8).astype(np.uint8)
PLANAR = {"planarconfig": "separate", "photometric": "minisblack"}


def png16(values: np.ndarray) -> bytearray:
    """A PNG file of 16 bits, by hand: Pillow writes gray ones only."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return bytearray(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def tiff(values: np.ndarray, **settings) -> bytearray:
    file = io.BytesIO()
    if settings.get("planarconfig") == "separate":
        values = np.moveaxis(values, 2, 0).copy()
    tifffile.imwrite(file, values, **({"photometric": "minisblack", "planarconfig": "contig"} | settings))
    return bytearray(file.getvalue())


def pillow(image: Image.Image, kind: str, **settings) -> bytearray:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return bytearray(file.getvalue())


def pixels(data: bytearray, channels: int, bits: int = 8) -> np.ndarray:
    return decode(data, "x", channels, bits).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("channels", [2, 3, 4, 5, 7, 13])
def test_every_tiff_is_what_was_written(channels: int):
    deep, few = DEEP[..., :channels], BYTES[..., :channels]
    for settings in ({}, PLANAR, {"compression": "zlib"}, {"byteorder": ">"}):
        assert np.array_equal(pixels(tiff(few, **settings), channels), few)
        assert np.array_equal(pixels(tiff(deep, **settings), channels, 16), deep)
        if channels != 3:  # of RGB, Pillow takes the upper 8 bits
            assert np.array_equal(pixels(tiff(deep, **settings), channels), np.round(deep / 257))
    fractions = (deep / 65535).astype(np.float32)
    assert np.array_equal(pixels(tiff(fractions), channels), np.round(fractions.astype(float) * 255))
    if channels > 4:  # pages are channels
        assert np.array_equal(pixels(tiff(np.moveaxis(few, 2, 0).copy(), planarconfig=None, metadata=None), channels), few)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_keeps_16_bits(channels: int):
    values = DEEP[..., :channels]
    assert np.array_equal(pixels(png16(values), channels, 16), values)
    if channels in (2, 4):
        assert np.array_equal(pixels(png16(values), channels), np.round(values / 257))


def test_four_channels_are_data():
    values = BYTES[..., :4].copy()
    image = Image.fromarray(values)
    for data in (pillow(image, "PNG"), pillow(image, "TIFF"), pillow(image, "WEBP", lossless=True, exact=True)):
        assert np.array_equal(pixels(data, 4), values)
    assert np.array_equal(pixels(tiff(values, photometric="rgb", extrasamples=["assocalpha"]), 4), values)
    inks = Image.frombytes("CMYK", (6, 5), values.tobytes())
    assert np.array_equal(pixels(pillow(inks, "TIFF"), 4), values)
    assert not np.array_equal(pixels(pillow(image, "PNG"), 3), values[..., :3]), "RGB of it is over white, as ever"


def test_8_bits_become_16():
    rgb = Image.fromarray(BYTES[..., :3].copy())
    for kind in ("PNG", "TIFF", "JPEG"):
        data = pillow(rgb, kind)
        for channels in (1, 3):
            assert np.array_equal(pixels(data, channels, 16), pixels(data, channels).astype(int) * 257)
    gray = Image.fromarray(DEEP[..., 0].copy())
    for kind in ("PNG", "TIFF"):
        assert np.array_equal(pixels(pillow(gray, kind), 1, 16)[..., 0], DEEP[..., 0])
        assert np.array_equal(pixels(pillow(gray, kind), 3, 16), np.dstack([DEEP[..., 0]] * 3))


def test_rgb_of_16_bits_from_four_channels():
    values = DEEP[..., :4].astype(float)
    alpha = values[..., 3:] / 65535
    assert np.abs(pixels(png16(DEEP[..., :4]), 3, 16) - (values[..., :3] * alpha + 65535 * (1 - alpha))).max() <= 0.5
    luma = pixels(png16(DEEP[..., :3]), 1, 16)[..., 0] - values[..., :3] @ [0.299, 0.587, 0.114]
    assert np.abs(luma).max() <= 0.5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_channels_are_turned_alike(orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    five = BYTES[..., :5]
    expected = pixels(pillow(Image.fromarray(five[..., :3].copy()), "PNG", exif=exif), 3)
    assert np.array_equal(pixels(pillow(Image.fromarray(five[..., :4].copy()), "PNG", exif=exif), 4)[..., :3], expected)
    assert np.array_equal(pixels(tiff(five, extratags=[(274, 3, 1, orientation, True)]), 5)[..., :3], expected)


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize(
    ("data", "channels", "message"),
    [
        (pillow(Image.fromarray(BYTES[..., :3].copy()), "PNG"), 4, "a/b.tif has 3 channels: the network takes 4 .*set both to 3 numbers"),
        (pillow(Image.fromarray(BYTES[..., :3].copy()), "JPEG"), 2, "a/b.tif has 3 channels: the network takes 2 "),
        (pillow(Image.fromarray(DEEP[..., 0].copy()), "TIFF"), 4, "a/b.tif has 1 channel: the network takes 4 "),
        (tiff(BYTES[..., :5]), 4, "a/b.tif has 5 channels: the network takes 4 "),
        (tiff(BYTES[..., :7]), 3, "a/b.tif has 7 channels: the network takes 3 "),
        (tiff(np.full((5, 6, 5), np.nan, dtype=np.float32)), 5, "it has values that are not numbers"),
        (tiff(np.zeros((2, 2, 5, 6), np.uint8), planarconfig=None), 5, "it has the dimensions .*: they must be height, width and channels"),
        (tiff(BYTES[..., :5])[:200], 5, "a/b.tif cannot be read: "),
        (png16(DEEP[..., :4])[:90], 4, "a/b.tif cannot be read: "),
        (bytearray(b"text"), 5, "a/b.tif is not an image that Pillow can read"),
    ],
)
def test_what_does_not_fit_is_one_line(data: bytearray, channels: int, message: str):
    with pytest.raises(UsageError, match=message) as caught:
        decode(data, "a/b.tif", channels)
    assert "\n" not in str(caught.value)
    assert "Replace or remove it" in str(caught.value)


def test_a_bomb_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for data, channels in ((tiff(BYTES[..., :5]), 5), (png16(DEEP[..., :4]), 4)):
        with pytest.raises(UsageError, match="may be a decompression bomb"):
            decode(data, "x", channels)


def test_without_tifffile_it_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(MissingPackageError, match=r"tifffile is not installed: x needs it. Run pip install 'reslight\[tiff\]'"):
        decode(tiff(BYTES[..., :5]), "x", 5)
    with pytest.raises(UsageError, match=r"x cannot be read by Pillow. Replace or remove it, or run pip install") as caught:
        decode(tiff(DEEP[..., :3].astype(np.float32)), "x", 3)
    assert not isinstance(caught.value, MissingPackageError)


def test_values_are_scaled():
    signed = np.array([[-5, 0, 10]], dtype=np.int16)[..., None]
    assert bands.to_bits(signed, 8).tolist() == [[[0], [85], [255]]]
    assert bands.to_bits(np.array([[[0, 257, 65535]]], dtype=np.int32), 8).tolist() == [[[0, 1, 255]]]
    assert bands.to_bits(np.array([[[0.0, 1.0, 255.0]]]), 16).tolist() == [[[0, 257, 65535]]]
    assert bands.to_bits(np.array([[[True, False]]]), 8).tolist() == [[[255, 0]]]
    assert torch.from_numpy(bands.to_bits(DEEP, 16)).dtype == torch.uint16
