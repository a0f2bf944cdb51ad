"""Near copies among many images: an image that was resized, compressed again or slightly cropped.

A perceptual hash (pHash, as in the library imagehash) of each image is compared with those of windows of the others, which a crop may
have left. Equal parts of hashes give candidates, so that the time grows with the number of images, not with that of pairs; the pixels of
candidates are then compared, at the windows in which they agree best.
"""

import math
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

SIDE = 32
"""Height and width of the gray images that are compared."""
WINDOWS = ((0.0, 1.0), (0.0, 0.95), (0.05, 1.0), (0.03, 0.97), (0.0, 0.91), (0.09, 1.0))
"""Parts of an axis that a crop may have left, for hashes."""
FINE_WINDOWS = tuple((start / 50, 1 - end / 50) for start in range(6) for end in range(6 - start))
"""Parts of an axis for the comparison of pixels: at most a tenth is missing."""
TABLES = 12
"""Choices of bits; images that have equal ones in one of them are candidates."""
MOST_BITS = 6
"""Bits of the hashes that differ at most in candidates."""
LEAST_CORRELATION = 0.92
"""Concordance correlation of the pixels of near copies."""
LEAST_CONTRAST = 4.0
"""Standard deviation of pixels below which an image shows nothing to compare."""
_HASH = 8
_CHUNK = 4096
_PAIRS = 256

Pixels = NDArray[np.uint8]


class NearCopy(NamedTuple):
    """Two images that look alike, by their numbers."""

    first: int
    second: int
    correlation: float


def thumbnail(image: Tensor) -> Pixels:
    """Return the gray image of 32 x 32 pixels of an image, uint8 `(C, H, W)`."""
    small = tvf.resize(image[:3], [SIDE, SIDE], antialias=True).float()
    weights = torch.tensor([0.299, 0.587, 0.114] if len(small) == 3 else [1 / len(small)] * len(small))
    gray: Pixels = torch.einsum("chw,c->hw", small, weights).round().clamp(0, 255).to(torch.uint8).numpy()
    return gray


def phash(thumbnails: Pixels, x: tuple[float, float] = (0.0, 1.0), y: tuple[float, float] = (0.0, 1.0)) -> NDArray[np.bool_]:
    """Return the perceptual hash of a window of each image: which of the 8 x 8 lowest frequencies are above their median.

    Args:
        thumbnails: uint8 `(N, 32, 32)`.
        x: Begin and end of the window, as fractions of the width.
        y: The same of the height.

    Returns:
        `(N, 64)`, row by row.
    """
    left, right = _COSINES @ _resampling(*y), (_COSINES @ _resampling(*x)).T
    result = np.empty((len(thumbnails), _HASH**2), np.bool_)
    for start in range(0, len(thumbnails), _CHUNK):
        frequencies = (left @ thumbnails[start : start + _CHUNK].astype(np.float32) @ right).reshape(-1, _HASH**2)
        result[start : start + _CHUNK] = frequencies > np.median(frequencies, axis=1, keepdims=True)
    return result


def near_copies(thumbnails: Pixels, groups: NDArray[np.int64]) -> list[NearCopy]:
    """Find pairs of near copies in different groups.

    Args:
        thumbnails: uint8 `(N, 32, 32)`, see `thumbnail`; may be a memory map.
        groups: int64 `(N,)`: the group of each image; below 0 for an image that is left out.

    Returns:
        Each pair once, the most similar first.
    """
    is_used = groups >= 0
    for start in range(0, len(groups), _CHUNK):
        is_used[start : start + _CHUNK] &= thumbnails[start : start + _CHUNK].std(axis=(1, 2)) >= LEAST_CONTRAST
    best: dict[tuple[int, int], float] = {}
    rows, columns = _candidates(thumbnails, np.where(is_used, groups, -1))
    for start in range(0, len(rows), _PAIRS):
        one, other = rows[start : start + _PAIRS], columns[start : start + _PAIRS]
        for first, second, value in zip(one.tolist(), other.tolist(), _correlation(thumbnails[one], thumbnails[other]), strict=True):
            pair = (min(first, second), max(first, second))
            best[pair] = max(best.get(pair, 0.0), float(value))
    found = [NearCopy(*pair, value) for pair, value in best.items() if value >= LEAST_CORRELATION]
    return sorted(found, key=lambda one: (-one.correlation, one.first, one.second))


def _candidates(thumbnails: Pixels, groups: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return pairs of images of different groups: the hash of the first is near that of a window of the second."""
    count = len(groups)
    width = min(24, max(8, math.ceil(math.log2(max(2, count))) + 1))  # about one image for each value of the chosen bits
    rng = np.random.default_rng(0)
    choices = [rng.choice(_HASH**2, width, replace=False) for _ in range(TABLES)]
    powers = 2.0 ** np.arange(width)
    numbers = np.flatnonzero(groups >= 0)
    hashes = phash(thumbnails)
    words = _words(hashes)
    tables = []
    for chosen in choices:
        keys = hashes[numbers][:, chosen] @ powers
        order = keys.argsort(kind="stable")
        tables.append((keys[order], numbers[order]))
    found = [np.zeros(0, np.int64)]
    for x, y in product(WINDOWS, WINDOWS):
        hashes = phash(thumbnails, x, y)
        of_window = _words(hashes)
        for chosen, (keys, owners) in zip(choices, tables, strict=True):
            wanted = hashes[numbers][:, chosen] @ powers
            first, end = np.searchsorted(keys, wanted), np.searchsorted(keys, wanted, "right")
            times = end - first
            columns = numbers.repeat(times)
            rows = owners[np.arange(len(columns)) - (times.cumsum() - times - first).repeat(times)]
            is_near = _ones(words[rows] ^ of_window[columns]) <= MOST_BITS
            is_near &= groups[rows] != groups[columns]
            found.append(rows[is_near] * count + columns[is_near])
        found = [np.unique(np.concatenate(found))]
    pairs = found[0]
    return pairs // count, pairs % count


def _words(hashes: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Return hashes as one integer each."""
    return np.packbits(hashes, axis=1).view(np.uint64)[:, 0]


def _ones(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the number of bits that are set; numpy has a function of its own from 2.0 on."""
    parts = _ONES[words.view(np.uint16)].reshape(-1, 4)
    result: NDArray[np.int64] = parts.sum(axis=1, dtype=np.int64)
    return result


def _correlation(targets: Pixels, sources: Pixels) -> NDArray[np.float32]:
    """Return the correlation of images with the windows of others that agree best with them, found along one axis after the other."""
    target, source = targets.astype(np.float32)[:, None], sources.astype(np.float32)[:, None]
    windows = np.stack([_resampling(*window) for window in FINE_WINDOWS])
    x, best = np.zeros(len(source), np.int64), np.zeros(len(source), np.float32)
    for _ in range(2):
        values = _correlations(windows @ (source @ windows[x].transpose(0, 2, 1)[:, None]), target)
        y = values.argmax(axis=1)
        values = _correlations(windows[y][:, None] @ source @ windows.transpose(0, 2, 1), target)
        x = values.argmax(axis=1)
        best = np.maximum(best, values.max(axis=1))
    return best


def _correlations(images: NDArray[np.float32], target: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return Lin's concordance correlation: another brightness or contrast makes it smaller, as copies have those of the image."""
    means = [values.mean(axis=(-2, -1)) for values in (images, target)]
    one, other = (values - mean[..., None, None] for values, mean in zip((images, target), means, strict=True))
    squares = (one * one).mean(axis=(-2, -1)) + (other * other).mean(axis=(-2, -1)) + (means[0] - means[1]) ** 2
    result: NDArray[np.float32] = 2 * (one * other).mean(axis=(-2, -1)) / np.maximum(squares, 1e-6)
    return result


def _resampling(start: float, end: float) -> NDArray[np.float32]:
    """Return the matrix `(32, 32)` that enlarges a part of an axis to the whole of it, linearly."""
    places = ((start + (end - start) * (np.arange(SIDE) + 0.5) / SIDE) * SIDE - 0.5).clip(0, SIDE - 1)
    lower = np.minimum(places.astype(np.int64), SIDE - 2)
    matrix = np.zeros((SIDE, SIDE), np.float32)
    matrix[np.arange(SIDE), lower] = 1 - (places - lower)
    matrix[np.arange(SIDE), lower + 1] = places - lower
    return matrix


_ONES = np.array([number.bit_count() for number in range(2**16)], np.uint8)
"""The number of bits that are set in each integer of 16 bits."""
_COSINES = np.cos(np.pi * np.arange(_HASH)[:, None] * (np.arange(SIDE) + 0.5) / SIDE).astype(np.float32)
"""The lowest frequencies of the cosine transform, `(8, 32)`."""
