"""Truncated images that the decoders accept without an error.

torchvision and Pillow refuse an image when pixels are missing, which covers most truncated files: every JPEG, WebP, BMP, TIFF and PPM.
Both stop reading a PNG or GIF file after the pixels of its first frame, so that a file without its end, or without its other frames,
is decoded like a whole one. Only these two formats are checked here.
"""


def has_end(data: bytearray) -> bool:
    """Return whether a PNG or GIF file has its end marker; True for all other formats.

    Bytes after the end marker, such as zeros, are allowed, as decoders allow them.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png_has_end(data)
    if data.startswith((b"GIF87a", b"GIF89a")):
        return _gif_has_end(data)
    return True


def _png_has_end(data: bytearray) -> bool:
    at = 8
    while at + 12 <= len(data):
        if data[at + 4 : at + 8] == b"IEND":
            return True
        at += 12 + int.from_bytes(data[at : at + 4])
    return False


def _gif_has_end(data: bytearray) -> bool:
    at = 13 + _gif_color_table(data, 10)
    while at < len(data):
        block = data[at]
        if block == 0x3B:
            return True
        if block == 0x2C:  # a frame: its place, an optional color table, and a byte before the pixels
            at += 11 + _gif_color_table(data, at + 9)
        elif block == 0x21:  # an extension
            at += 2
        else:  # decoders skip unknown bytes between blocks
            at += 1
            continue
        while at < len(data) and data[at]:  # sub-blocks, each after its length
            at += 1 + data[at]
        at += 1
    return False


def _gif_color_table(data: bytearray, flags_at: int) -> int:
    """Return the size in bytes of the color table that the flags at a position announce."""
    flags = data[flags_at] if flags_at < len(data) else 0
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0
