"""A sample of the contents of many images: enough to notice that a set was replaced, and fast for a set of any size."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from reslight.messages import UsageError

END = 2**15
"""Bytes at the beginning and at the end of each image of the sample."""
_SAMPLE, _READERS = 1024, 16
"""Images of a sample, and threads that read them: a disk in a network answers late."""


def ends_of(data: bytes | bytearray) -> bytes:
    """Return the first and the last `END` bytes of an image; all of one that has fewer than both."""
    return bytes(data) if len(data) <= 2 * END else bytes(data[:END] + data[-END:])


def sampled_content(count: int, read_ends: Callable[[int], bytes]) -> str:
    """Return a sha256, in hexadecimal, over the first and the last bytes of at most 1,024 images, spread evenly.

    Args:
        count: Number of images.
        read_ends: Returns the first and the last `END` bytes of an image; all of an image that has fewer than both.
    """

    def digest_of(number: int) -> bytes:
        try:
            return hashlib.sha256(read_ends(number)).digest()
        except (OSError, UsageError):
            return bytes(hashlib.sha256().digest_size)  # an image that cannot be read is an error when it is used

    chosen = min(_SAMPLE, count)
    digest = hashlib.sha256()
    with ThreadPoolExecutor(_READERS, thread_name_prefix="reslight-sample") as pool:
        for part in pool.map(digest_of, (place * count // chosen for place in range(chosen))):
            digest.update(part)
    return digest.hexdigest()
