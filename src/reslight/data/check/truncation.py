"""Whether the file of an image is all there: decoders forgive the loss of an end."""

import re

_SEGMENT_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""JPEG's next marker after its pixels begin: neither a stuffed byte, nor a restart, nor padding."""
_END, _START_OF_SCAN, _ALONE = 0xD9, 0xDA, (0x01, *range(0xD0, 0xD9))
"""JPEG's markers; alone is what has no segment."""


def is_complete(data: bytearray) -> bool:
    """Whether a JPEG, PNG, GIF or WebP file has the end that its format asks for; True for all other formats.

    What follows the end, such as zeros or a second picture, does not matter.
    """
    if data.startswith(b"\xff\xd8"):
        return _jpeg_ends(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png_ends(data)
    if data.startswith((b"GIF87a", b"GIF89a")):
        return _gif_ends(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return len(data) >= 8 + int.from_bytes(data[4:8], "little")
    return True


def _jpeg_ends(data: bytearray) -> bool:
    """From marker to marker: within a segment, such as that of a thumbnail, an end does not count."""
    at = 2
    while at + 1 < len(data):
        if data[at] != 0xFF:  # between segments other bytes are passed over, as decoders do
            at = data.find(b"\xff", at)
            if at < 0:
                return False
            continue
        marker = data[at + 1]
        if marker == _END:
            return True
        if marker in (0x00, 0xFF):
            at += 1
        elif marker in _ALONE:
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4])
            if marker == _START_OF_SCAN:
                if (found := _SEGMENT_END.search(data, at)) is None:
                    return False
                at = found.start()
    return False


def _png_ends(data: bytearray) -> bool:
    at = 8
    while at + 12 <= len(data):
        if data[at + 4 : at + 8] == b"IEND":
            return True
        at += 12 + int.from_bytes(data[at : at + 4])
    return False


def _gif_ends(data: bytearray) -> bool:
    at = 13 + _colours(data, 10)
    while at < len(data):
        block = data[at]
        if block == 0x3B:
            return True
        if block == 0x2C:  # a picture: its place, perhaps colours, and a byte before its pixels
            at += 11 + _colours(data, at + 9)
        elif block == 0x21:
            at += 2
        else:  # between blocks other bytes are passed over, as decoders do
            at += 1
            continue
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
    return False


def _colours(data: bytearray, at: int) -> int:
    """The bytes of a GIF's table of colours, from the flags that stand at a place."""
    flags = data[at] if at < len(data) else 0
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0
