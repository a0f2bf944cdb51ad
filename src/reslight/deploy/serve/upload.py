"""Read the images of a request within limits, and refuse those that would take too long or too much memory to decode."""

import asyncio
import contextlib
import io
import logging
import sys
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import MARKER
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from reslight.deploy.serve.limits import Limits
from reslight.messages import visible

Image.init()  # registers the formats that Pillow otherwise finds out only when it opens such a file
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # what is wrong with a form is told to its sender

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
"""Formats, as Pillow calls them, of which neither opening nor decoding takes much longer than the pixels need. GIF is missing because
Pillow walks over all frames, a million of which may be in a few megabytes."""
_ALSO_TIFF = (*FORMATS, "TIFF")
"""For networks of many channels or 16 bits, whose images no other format holds."""
_RAW = ("", "application/octet-stream", "application/x-www-form-urlencoded")
"""Content types of a body that is one image, beside image/...: none, any bytes, and what `curl --data-binary` says."""
_SCANS = 100
"""Scans of a JPEG image. Cameras write at most a dozen; each is a pass over all pixels, and thousands fit into a small file."""
_CHUNKS = 10_000
"""Chunks of a PNG image. Writers make one for each 8 to 64 kilobytes."""
_SEGMENTS = 1_000
"""Segments of a JPEG image before its first scan, and bytes between them: Pillow reads them one by one. A color profile has 255 at most."""
_LINGER = 5
"""Seconds for which the rest of a refused request is read and thrown away: a client that still sends would not see the reason."""
_PIECE = 1 << 18


@dataclass(frozen=True)
class ImageFile:
    """An image as it was sent.

    Attributes:
        name: As the client calls it; empty for a body that is the image.
        data: The bytes of the file.
    """

    name: str
    data: bytes


class _InMemory(MultiPartParser):
    """Keeps files in memory: the whole request is there anyway, and the disk may be read-only."""

    spool_max_size = sys.maxsize


async def read_images(request: Request, limits: Limits) -> list[ImageFile]:
    """Read the images of a request: a body that is one image, or a form with several.

    Raises:
        HTTPException: with the status and the reason, a request that is not accepted.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not (kind in _RAW or kind.startswith("image/") or kind == "multipart/form-data"):
        reason = (
            f"Content-Type is {visible(kind)}: send the bytes of an image as image/... or application/octet-stream, or a form with files."
        )
        await _refuse(request, 415, reason)
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        await _refuse(request, 415, f"Content-Encoding is {visible(encoding)}: send images as they are.")
    body = await _read(request, limits)
    if kind == "multipart/form-data":
        return await _files(request, body, limits)
    if not body:
        raise HTTPException(422, "The body is empty: send the bytes of an image.")
    return [ImageFile("", body)]


async def _read(request: Request, limits: Limits) -> bytes:
    reason = f"The request is larger than {limits.max_mb:g} MB (--max-mb): send smaller images, or fewer."
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.nbytes:
        await _refuse(request, 413, reason)
    body = bytearray()
    try:
        async with asyncio.timeout(limits.timeout):
            async for piece in request.stream():
                body += piece
                if len(body) > limits.nbytes:
                    break
    except TimeoutError:
        reason = f"The request did not arrive within {limits.timeout:g} s (--timeout): send it faster."
        raise HTTPException(408, reason, {"Connection": "close"}) from None
    except ClientDisconnect:
        raise HTTPException(400, "The request was not sent completely.") from None
    if len(body) > limits.nbytes:
        body.clear()
        await _refuse(request, 413, reason)
    return bytes(body)


async def _refuse(request: Request, status: int, reason: str) -> None:
    """Read on for a while without keeping anything, and refuse the request.

    Raises:
        HTTPException: always.
    """
    if request.headers.get("expect", "").lower() != "100-continue":  # such a client waits for an answer before it sends
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER):
                while (message := await request.receive())["type"] == "http.request" and message.get("more_body"):
                    pass
    raise HTTPException(status, reason, {"Connection": "close"})


async def _files(request: Request, body: bytes, limits: Limits) -> list[ImageFile]:
    async def pieces() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(body), _PIECE):
            yield body[start : start + _PIECE]
            await asyncio.sleep(0)  # other requests have their turn

    try:
        form = await _InMemory(request.headers, pieces(), max_files=limits.max_files, max_fields=1, max_part_size=_PIECE).parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise HTTPException(413, f"The form has more than {limits.max_files} files (--max-files): send fewer.") from None
        raise HTTPException(422, f"The form cannot be read ({error.message.rstrip('.')}): send multipart/form-data.") from None
    except UnicodeError:  # the charset of Content-Type may be one that decodes nothing
        raise HTTPException(422, "The form cannot be read (its charset): send multipart/form-data.") from None
    images = []
    for field, value in form.multi_items():
        if not isinstance(value, UploadFile):
            raise HTTPException(422, f"The field {visible(field)} of the form is text: send files only, and options in the URL (?top=3).")
        images.append(ImageFile(visible(value.filename or field), await value.read()))
    if not images:
        raise HTTPException(422, "The form has no files: send at least one image.")
    return images


def check_images(images: Sequence[ImageFile], limits: Limits, *, tiff: bool = False) -> int:
    """Look at the headers of images, without decoding them.

    Args:
        images: The images.
        limits: What is accepted.
        tiff: Accept TIFF.

    Returns:
        Their pixels together.

    Raises:
        HTTPException: files that are not images, and images that are too large.
    """
    pixels = 0
    for image in images:
        pixels += _pixels(image, _ALSO_TIFF if tiff else FORMATS)
        if pixels > limits.pixels:
            reason = (
                f"The images have more than {limits.max_megapixels:g} million pixels (--max-megapixels): send smaller images, or fewer."
            )
            raise HTTPException(413, reason)
    return pixels


def _pixels(image: ImageFile, formats: tuple[str, ...]) -> int:
    name, data = image.name or "The image", image.data
    scans = data.count(b"\xff\xda") if data[:2] == b"\xff\xd8" else 0  # these bytes begin a scan, and are in no compressed data
    if scans > _SCANS:
        raise HTTPException(422, f"{name} has {scans:,} scans, at most {_SCANS} are decoded: save it again.")
    if data[:2] == b"\xff\xd8" and _has_many_segments(data):
        raise HTTPException(422, f"{name} has more than {_SEGMENTS:,} segments: save it again.")
    if data[:8] == b"\x89PNG\r\n\x1a\n" and (wrong := _wrong_chunks(data)):
        raise HTTPException(422, f"{name} has {wrong}: save it again.")
    if data[:2] == b"BM" and data[14:18] != b"\x0c\0\0\0" and data[30:34] in (b"\1\0\0\0", b"\2\0\0\0"):
        raise HTTPException(415, f"{name} is a compressed BMP image: send it as PNG.")  # Pillow decodes it in Python, run by run
    try:
        with Image.open(io.BytesIO(data), formats=formats) as opened:
            return opened.width * opened.height
    except UnidentifiedImageError:
        is_heic = data[4:8] == b"ftyp" and data[8:11] in (b"hei", b"hev", b"mif")
        found = "is HEIC, which phones write" if is_heic else "is not an image, or is damaged"
        raise HTTPException(415, f"{name} {found}: send {', '.join(formats[:-1])} or {formats[-1]}.") from None
    except Image.DecompressionBombError:
        raise HTTPException(413, f"{name} has more pixels than are ever decoded: send a smaller image.") from None
    except Exception:  # a damaged header can raise any error, depending on the format
        raise HTTPException(422, f"{name} is damaged: its header cannot be read.") from None


def _has_many_segments(data: bytes) -> bool:
    at = 2
    for _ in range(_SEGMENTS):
        start = data[at : at + 2]
        if start == b"\xff\xda" or len(start) < 2:
            return False
        *_, has_length = MARKER.get(int.from_bytes(start), ("", "", None))
        at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4])) if has_length else 1  # otherwise Pillow looks for the next marker
    return True


def _wrong_chunks(data: bytes) -> str:
    """Return what makes a PNG image slow to open, in words; empty for others."""
    at, profiles = 8, 0
    for _ in range(_CHUNKS):
        if at >= len(data):
            return ""
        profiles += data[at + 4 : at + 8] == b"iCCP"
        if profiles > 1:
            return "several color profiles"  # Pillow decompresses each
        at += 12 + int.from_bytes(data[at : at + 4])
    return f"more than {_CHUNKS:,} chunks"
