"""Every kind of image file, against Pillow; and every kind of damage."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from torchvision.io import ImageReadMode, decode_jpeg

from reslight.data.loading import converted
from reslight.data.loading.decode import decode, decode_scaled, jpeg_size

DRAW = np.random.default_rng(0)
RGB = DRAW.integers(0, 256, (11, 17, 3), dtype=np.uint8)
GREY = DRAW.integers(0, 256, (11, 17), dtype=np.uint8)
DEEP = DRAW.integers(0, 65536, (11, 17), dtype=np.uint16)


def saved(image: Image.Image, kind: str, **settings) -> bytearray:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return bytearray(file.getvalue())


def tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)


def over_white(rgba: np.ndarray) -> np.ndarray:
    alpha = rgba[..., 3:].astype(np.float64) / 255
    return rgba[..., :3] * alpha + 255 * (1 - alpha)


RGBA = np.dstack((RGB, GREY))
PALETTE = Image.fromarray(np.where(GREY < 9, 9, GREY)).convert("P")  # index 3 is free, and shall be transparent
PALETTE.putpixel((4, 2), 3)
OVER_WHITE = np.array(PALETTE)
OVER_WHITE[2, 4] = 255
FIRST_IS_CLEAR = RGB.copy()
FIRST_IS_CLEAR[(RGB[0, 0] == RGB).all(axis=-1)] = 255
LOW = -GREY.astype(np.float32) * 3 + 7  # values that stand for nothing: their own least and greatest are black and white
KINDS = {
    "RGB": (saved(Image.fromarray(RGB), "PNG"), RGB),
    "grey": (saved(Image.fromarray(GREY), "PNG"), np.dstack([GREY] * 3)),
    "1 bit": (saved(Image.fromarray(GREY > 127), "PNG"), np.dstack([np.where(GREY > 127, 255, 0)] * 3)),
    "palette": (saved(Image.fromarray(GREY).convert("P"), "PNG"), np.dstack([GREY] * 3)),
    "BMP": (saved(Image.fromarray(RGB), "BMP"), RGB),
    "TIFF": (saved(Image.fromarray(RGB), "TIFF"), RGB),
    "16 bit PNG": (saved(Image.fromarray(DEEP), "PNG"), np.dstack([np.round(DEEP / 65535 * 255)] * 3)),
    "16 bit TIFF": (saved(Image.fromarray(DEEP), "TIFF"), np.dstack([np.round(DEEP / 65535 * 255)] * 3)),
    "float TIFF": (saved(Image.fromarray((GREY / 255).astype(np.float32)), "TIFF"), np.dstack([GREY] * 3)),
    "RGBA": (saved(Image.fromarray(RGBA), "PNG"), over_white(RGBA)),
    "grey and alpha": (
        saved(Image.merge("LA", (Image.fromarray(GREY), Image.fromarray(255 - GREY))), "PNG"),
        over_white(np.dstack([GREY] * 3 + [255 - GREY])),
    ),
    "animated GIF": (
        saved(Image.fromarray(GREY), "GIF", save_all=True, append_images=[Image.fromarray(255 - GREY)]),
        np.dstack([GREY] * 3),
    ),
    "animated WebP": (
        saved(Image.fromarray(RGB), "WEBP", lossless=True, save_all=True, append_images=[Image.fromarray(255 - RGB)]),
        RGB,
    ),
    "palette with a transparent color": (saved(PALETTE, "PNG", transparency=3), np.dstack([OVER_WHITE] * 3)),
    "palette with alpha": (saved(PALETTE, "PNG", transparency=bytes([255, 255, 255, 0])), np.dstack([OVER_WHITE] * 3)),
    "GIF with a transparent color": (saved(PALETTE, "GIF", transparency=3), np.dstack([OVER_WHITE] * 3)),
    "RGB with a transparent color": (saved(Image.fromarray(RGB), "PNG", transparency=tuple(RGB[0, 0].tolist())), FIRST_IS_CLEAR),
    "float TIFF to 255": (saved(Image.fromarray(GREY.astype(np.float32)), "TIFF"), np.dstack([GREY] * 3)),
    "float TIFF of anything": (
        saved(Image.fromarray(LOW), "TIFF"),
        np.dstack([np.round((LOW.astype(float) - LOW.min()) * 255 / np.ptp(LOW))] * 3),
    ),
    "32 bit TIFF": (saved(Image.fromarray(DEEP.astype(np.int32)), "TIFF"), np.dstack([np.round(DEEP / 65535 * 255)] * 3)),
    "one value": (saved(Image.fromarray(np.full((3, 2), 500, dtype=np.float32)), "TIFF"), np.zeros((3, 2, 3))),
    "one pixel": (saved(Image.new("RGB", (1, 1), (250, 3, 7)), "GIF"), np.array([[[250, 3, 7]]])),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_by_hand(name: str):
    data, expected = KINDS[name]
    got = decode(data, name)
    assert got.dtype == torch.uint8
    assert (got.double() - tensor(expected).double()).abs().max() <= (1 if "alpha" in name or name == "RGBA" else 0)
    grey = decode(data, name, channels=1)
    assert grey.shape == (1, *got.shape[1:])
    luma = (got.double() * torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64).view(3, 1, 1)).sum(0)
    assert (grey[0] - luma).abs().max() <= 1


@pytest.mark.parametrize("name", ["RGB", "grey", "1 bit", "palette", "BMP", "TIFF", "animated GIF", "animated WebP", "one pixel"])
@pytest.mark.parametrize(("channels", "mode"), [(3, "RGB"), (1, "L")])
def test_what_is_no_jpeg_is_pillows(name: str, channels: int, mode: str):
    data = KINDS[name][0]
    expected = np.atleast_3d(np.array(Image.open(io.BytesIO(data)).convert(mode)))
    assert torch.equal(decode(data, name, channels), tensor(expected))


@pytest.mark.parametrize("channels", [3, 1])
def test_large_images_are_converted_part_by_part(channels: int, monkeypatch: pytest.MonkeyPatch):
    whole = {name: decode(data, name, channels) for name, (data, _) in KINDS.items()}
    monkeypatch.setattr(converted, "_PART", 40)
    for name, (data, _) in KINDS.items():
        assert torch.equal(decode(data, name, channels), whole[name]), name


@pytest.mark.parametrize("settings", [{}, {"progressive": True}, {"quality": 30}, {"subsampling": 0}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_is_torchvisions(mode: str, settings):
    data = saved(Image.fromarray(RGB).convert(mode), "JPEG", **settings)
    assert jpeg_size(data) == (11, 17)
    assert torch.equal(decode(data, "x"), decode_jpeg(torch.frombuffer(data, dtype=torch.uint8), ImageReadMode.RGB))
    assert torch.equal(decode(data, "x", channels=1), decode_jpeg(torch.frombuffer(data, dtype=torch.uint8), ImageReadMode.GRAY))


def test_a_jpeg_of_four_inks_is_pillows():
    data = saved(Image.fromarray(RGB).convert("CMYK"), "JPEG")
    assert jpeg_size(data) is None
    assert torch.equal(decode(data, "x"), tensor(np.array(Image.open(io.BytesIO(data)).convert("RGB"))))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_as_its_exif_says(kind: str, orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    blocks = np.kron(np.array([[0, 80, 160], [240, 40, 200]], dtype=np.uint8), np.ones((16, 16), dtype=np.uint8))  # survives JPEG
    data = saved(Image.fromarray(np.dstack([blocks] * 3)), kind, exif=exif)
    got, grey = decode(data, "x")[0].numpy().astype(int), decode(data, "x", channels=1)[0].numpy().astype(int)
    turns = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: np.transpose,
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).T,
        8: np.rot90,
    }
    assert np.abs(got - turns[orientation](blocks)).max() <= (12 if kind != "PNG" else 0)
    assert np.abs(grey - turns[orientation](blocks)).max() <= (12 if kind != "PNG" else 0)


def bomb() -> bytearray:
    """A PNG that says it has 20,000 x 20,000 pixels, and has none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    return bytearray(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b""))


def large_jpeg() -> bytearray:
    data = saved(Image.fromarray(RGB), "JPEG")
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 40_000, 40_000)
    return data


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (bytearray(), "dir/a.jpg is empty"),
        (bytearray(b"%PDF-1.7 and more"), "dir/a.jpg is not an image that Pillow can read"),
        (saved(Image.fromarray(RGB), "JPEG")[:300], "dir/a.jpg cannot be read: "),
        (saved(Image.fromarray(RGB), "PNG")[:200], "dir/a.jpg cannot be read: "),
        (bytearray(b"\xff\xd8\xff"), "dir/a.jpg is not an image that Pillow can read"),
        (bomb(), "dir/a.jpg has more than 178,956,970 pixels: it may be a decompression bomb"),
        (large_jpeg(), "dir/a.jpg has more than 178,956,970 pixels"),
        (saved(Image.fromarray(np.full((4, 4), np.nan, dtype=np.float32)), "TIFF"), "it has values that are not numbers"),
    ],
)
def test_what_cannot_be_read_is_one_line(data: bytearray, says: str):
    with pytest.raises(ValueError, match=says) as caught:
        decode(data, "dir/a.jpg")
    assert "\n" not in str(caught.value)
    assert "/vision/" not in str(caught.value)


@pytest.mark.parametrize("data", [bomb(), large_jpeg()], ids=["PNG", "JPEG"])
def test_a_bomb_is_refused_by_its_header(data: bytearray, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    monkeypatch.setattr("torchvision.io.decode_jpeg", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="may be a decompression bomb"):
        decode(data, "a.jpg")


def decoded_or_said(data: bytearray) -> torch.Tensor | str:
    """The pixels, or the one line that is said of the file."""
    try:
        return decode(data, "dir/a.jpg")
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
def test_half_an_image_is_never_taken_for_a_whole_one(kind: str):
    data = saved(Image.fromarray(RGB), kind)
    whole = decode(data, "x")
    refused = 0
    for length in range(len(data)):
        got = decoded_or_said(data[:length])
        if isinstance(got, str):
            refused += 1
            assert got.startswith("dir/a.jpg ")
            assert "\n" not in got
        else:  # what comes after the last pixel may be missing: a checksum, the mark of the end
            assert torch.equal(got, whole), length
    assert refused >= len(data) - 24
    assert kind != "JPEG" or refused == len(data), "torchvision wants the mark of the end"


@pytest.mark.filterwarnings("ignore::UserWarning")  # what Pillow says of a damaged TIFF besides
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF"])
def test_damage_is_one_line_or_an_image(kind: str, capfd: pytest.CaptureFixture[str]):
    data = saved(Image.fromarray(RGB), kind)
    for place in range(0, len(data), 3):  # what decoders print themselves of it is kept back by capfd
        damaged = data.copy()
        damaged[place] ^= 0x55
        got = decoded_or_said(damaged)
        if isinstance(got, str):
            assert got.startswith("dir/a.jpg ")
            assert "\n" not in got
        else:
            assert (got.dtype, got.ndim, len(got)) == (torch.uint8, 3, 3)


def scaled(data: bytearray, factor: float, channels: int = 3):
    return decode_scaled(data, "x", channels, lambda height, width: factor, lambda height, width: factor)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("channels", [1, 3])
def test_a_reduced_image_is_the_same_of_both_decoders(orientation: int, channels: int, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("simplejpeg")
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth = Image.fromarray(RGB).resize((6, 5)).resize((61, 43), Image.Resampling.BICUBIC)
    for mode in ("RGB", "L"):
        data = saved(smooth.convert(mode), "JPEG", exif=exif, quality=95)
        whole = decode(data, "x", channels)
        for divisor in (2, 4, 8):
            with monkeypatch.context() as patch:
                found = scaled(data, divisor + 0.5, channels)
                patch.setattr("reslight.data.loading.decode.simplejpeg", None)
                assert np.array_equal(found.image, scaled(data, divisor, channels).image)
            assert (found.whole, found.divisor) == (tuple(whole.shape[1:]), divisor)
            assert found.image.size == tuple(-(-side // divisor) for side in (whole.shape[2], whole.shape[1]))
            # Where the image begins: a pixel in it has the mean of the pixels that it stands for.
            y, x = (round(divisor * start) for start in found.start)
            block = whole[:, divisor - y : 2 * divisor - y, divisor - x : 2 * divisor - x].double().mean((1, 2))
            assert np.abs(np.atleast_1d(np.array(found.image)[1, 1]) - block.numpy()).max() < 6


def test_what_is_not_reduced():
    data = saved(Image.fromarray(RGB), "JPEG")
    assert scaled(data, 1.9) is None
    assert scaled(saved(Image.fromarray(RGB), "PNG"), 8) is None
    assert scaled(saved(Image.fromarray(RGB).convert("CMYK"), "JPEG"), 8) is None
    with pytest.raises(ValueError, match="x cannot be read: "):
        scaled(data[:300], 8)
    with pytest.raises(ValueError, match="may be a decompression bomb"):
        scaled(large_jpeg(), 8)
