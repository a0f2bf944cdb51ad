"""`check`: open every image of a dataset, and list the problems of files and folders."""

import hashlib
import tempfile
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate, chain
from typing import IO, NamedTuple

import numpy as np
from torch import Tensor

from reslight.cores import available_cores
from reslight.data.check.near_copies import SIDE, near_copies, thumbnail
from reslight.data.check.problems import Problem
from reslight.data.check.survey import Group, Survey
from reslight.data.check.truncation import has_end
from reslight.data.image_folder.label_table import LabelColumns
from reslight.data.loading.decode import decode
from reslight.data.loading.encoded import Images
from reslight.messages import UsageError

_CHUNK = 32
"""Images in one task of a thread."""
_AHEAD = 4
"""Tasks that are submitted ahead, for each thread. They bound the memory that results take."""
_REPLACE = "Replace or remove it."
_DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Lookalikes:
    """Two images of different splits that look alike: one is a near copy of the other."""

    images: tuple[Images, Images]
    """The images of both splits."""
    numbers: tuple[int, int]
    """The number of each image in its split."""
    splits: tuple[str, str]
    correlation: float
    """Correlation of their pixels."""
    channels: int = 3
    """Channels of both images."""

    @property
    def names(self) -> tuple[str, str]:
        """The name of each image for messages."""
        return self.images[0].name(self.numbers[0]), self.images[1].name(self.numbers[1])

    def decoded(self) -> tuple[Tensor, Tensor]:
        """Return both images, uint8 `(C, H, W)`."""
        pairs = zip(self.images, self.numbers, self.names, strict=True)
        one, other = (decode(images.read(number), name, self.channels) for images, number, name in pairs)
        return one, other


@dataclass
class Summary:
    """The progress of a check and, at its end, the totals."""

    images: int = 0
    """Images of the dataset."""
    opened: int = 0
    """Images opened so far."""
    bytes: int = 0
    """Total size of the images opened so far."""
    splits: dict[str, int] = field(default_factory=dict)
    """Images of each split."""
    per_class: dict[str, Counter[str]] = field(default_factory=dict)
    """Images of each class, in each split whose images have labels."""
    classes: int = 0
    """Classes of the dataset."""
    kinds: Counter[str] = field(default_factory=Counter)
    """Problems of each kind found so far."""
    lookalikes: list[Lookalikes] = field(default_factory=list)
    """Near copies in different splits, the most similar first; known when all problems are. They are no problems, since burst shots and
    frames of a video are near copies, too."""


class _Opened(NamedTuple):
    """The result of opening an image."""

    size: int
    """Size of the file in bytes."""
    digest: bytes
    """The sha256 of the file; zeros if the image has a problem."""
    problem: Problem | None
    thumbnail: bytes
    """See `near_copies.thumbnail`; zeros if the image has a problem, empty if there is one split."""


def check(
    root: str,
    threads: int | None = None,
    summary: Summary | None = None,
    progress: Callable[[Summary], object] | None = None,
    *,
    labels: str | None = None,
    columns: LabelColumns = LabelColumns(),
    channels: int = 3,
) -> Iterator[Problem]:
    """Find the problems of a dataset that `Folder` or `ImageNet` reads.

    A JPEG file that is damaged in the middle usually decodes to wrong pixels without an error, and is not found.

    Args:
        root: Folder of the images, or anything else that `Folder` reads.
        threads: Threads that open images; as many as the machine has cores if None.
        summary: Updated while the problems are iterated.
        progress: Called with the summary from time to time.
        labels: The label file; None for `metadata.csv` and the like, if there is one.
        columns: The columns of the label file, where their names are not the usual ones.
        channels: Channels that an image must have, if not 1 or 3, which any image is converted to.

    Returns:
        The problems in the order in which they are found: first those of folders, sorted by path; then those of label files, row by row;
        then those of images, split by split; then copies.

    Raises:
        OSError: a missing dataset or label file.
        UsageError: `threads` is below 1, or a dataset of the Hub cannot be used.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"--threads is {threads}: it must be at least 1. Leave it out to use all cores.")
    if channels < 1:
        raise UsageError(f"--channels is {channels}: it must be at least 1. Leave it out for gray and RGB images.")
    survey, summary = Survey(root, labels, columns), summary or Summary()
    summary.splits = {group.split: len(group.images) for group in survey.groups}
    summary.per_class = {group.split: counts for group in survey.groups if (counts := group.per_class())}
    summary.images = sum(summary.splits.values())
    summary.classes = max((len(group.per_class() if group.several else group.classes) for group in survey.groups), default=0)
    return _find(survey, threads or available_cores(), summary, progress or (lambda _: None), channels)


def _find(survey: Survey, threads: int, summary: Summary, progress: Callable[[Summary], object], channels: int) -> Iterator[Problem]:
    if len(survey.groups) < 2:
        yield from _find_problems(survey, threads, summary, progress, None, channels)
        return
    with tempfile.TemporaryFile() as thumbnails:  # a kilobyte for each image
        digests = yield from _find_problems(survey, threads, summary, progress, thumbnails, channels)
        thumbnails.flush()
        summary.lookalikes = _lookalikes(survey.groups, digests, thumbnails, channels) if summary.opened else []


def _find_problems(
    survey: Survey,
    threads: int,
    summary: Summary,
    progress: Callable[[Summary], object],
    thumbnails: IO[bytes] | None,
    channels: int,
) -> Generator[Problem, None, bytearray]:
    """Yield all problems, and return the digest of each image; its thumbnail is written to a file."""
    digests = bytearray()
    of_folders = sorted(survey.problems, key=lambda problem: (problem.path, problem.kind, problem.text))
    listed = [*of_folders, *survey.label_problems]
    opened = _open_all(survey.groups, threads, digests, summary, thumbnails, channels)
    for found in chain([listed], opened, _copies(survey.groups, digests)):
        for problem in found:
            summary.kinds[problem.kind] += 1
            yield problem
        progress(summary)
    return digests


def _open_all(
    groups: Sequence[Group], threads: int, digests: bytearray, summary: Summary, thumbnails: IO[bytes] | None, channels: int
) -> Iterator[list[Problem]]:
    """Open all images in threads; yield the problems. Append the digest and the thumbnail of each image, in the order of the images."""
    waiting: deque[Future[list[_Opened]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="reslight-check")
    try:
        for group in groups:
            for start in range(0, len(group.images), _CHUNK):
                numbers = range(start, min(start + _CHUNK, len(group.images)))
                waiting.append(pool.submit(_open, group.images, numbers, looks=thumbnails is not None, channels=channels))
                if len(waiting) > threads * _AHEAD:
                    yield _recorded(waiting.popleft().result(), digests, summary, thumbnails)
        while waiting:
            yield _recorded(waiting.popleft().result(), digests, summary, thumbnails)
    finally:
        pool.shutdown(cancel_futures=True)


def _recorded(opened: list[_Opened], digests: bytearray, summary: Summary, thumbnails: IO[bytes] | None) -> list[Problem]:
    """Add results to the digests, the thumbnails and the summary, and return their problems."""
    for one in opened:
        digests += one.digest
        if thumbnails:
            thumbnails.write(one.thumbnail)
    summary.opened += len(opened)
    summary.bytes += sum(one.size for one in opened)
    return [one.problem for one in opened if one.problem]


def _open(images: Images, numbers: range, *, looks: bool, channels: int) -> list[_Opened]:
    return [_open_one(images, number, looks=looks, channels=channels) for number in numbers]


def _open_one(images: Images, number: int, *, looks: bool, channels: int) -> _Opened:
    name, data, shown = images.name(number), bytearray(), bytes(SIDE**2 if looks else 0)
    problem: tuple[str, str] | None
    try:
        data = images.read(number)
        problem, image = _decoded(data, name, channels)
        if looks and image is not None:
            shown = thumbnail(image).tobytes()
    except OSError as error:
        problem = "unreadable", f"cannot be read: {error.strerror or error}. {_REPLACE}"
    except Exception as error:  # a check must not stop at the first image that a decoder fails on
        reason = " ".join(f"{type(error).__name__} {error}".split())[:160]
        problem = "unreadable", f"cannot be read: {reason}. {_REPLACE}"
    digest = bytes(_DIGEST) if problem else hashlib.sha256(data).digest()
    return _Opened(len(data), digest, Problem(problem[0], name, problem[1]) if problem else None, shown)


def _decoded(data: bytearray, name: str, channels: int) -> tuple[tuple[str, str] | None, Tensor | None]:
    """Return the kind of problem that an image has and its text, or a sound image."""
    if not data:
        return ("empty", f"is empty. {_REPLACE}"), None
    try:
        image = decode(data, name, channels)
    except UsageError as error:
        text = str(error).removeprefix(name).strip()
        if "decompression bomb" in text:
            return ("bomb", text), None
        if has_end(data) and "truncated" not in text.lower():
            return ("unreadable", text), None
    else:
        if has_end(data):
            return None, image
    return ("truncated", f"ends too early, after {len(data):,} bytes. {_REPLACE}"), None


def _lookalikes(groups: Sequence[Group], digests: bytearray, thumbnails: IO[bytes], channels: int) -> list[Lookalikes]:
    """Return the near copies in different splits that are no copies byte for byte."""
    sizes = [len(group.images) for group in groups]
    starts = list(accumulate(sizes, initial=0))
    words = np.frombuffer(digests, np.uint8).reshape(-1, _DIGEST)
    pixels = np.memmap(thumbnails, np.uint8, "r", shape=(len(words), SIDE, SIDE))
    result = []
    for first, second, correlation in near_copies(pixels, np.repeat(np.arange(len(groups)), sizes)):
        if (words[first] != words[second]).any():
            (one, number), (other, place) = (_place(row, groups, starts) for row in (first, second))
            result.append(Lookalikes((one.images, other.images), (number, place), (one.split, other.split), correlation, channels))
    return result


def _copies(groups: Sequence[Group], digests: bytearray) -> Iterator[list[Problem]]:
    """Yield the images with the same bytes as an image of an earlier split or of another class."""
    starts = list(accumulate((len(group.images) for group in groups), initial=0))
    found = []
    for first, *others in _equal_images(digests):
        for other in others:
            found += [(other, problem) for problem in _comparison(*(_place(number, groups, starts) for number in (first, other)))]
    yield [problem for _, problem in sorted(found, key=lambda pair: pair[0])]


def _comparison(one: tuple[Group, int], other: tuple[Group, int]) -> Iterator[Problem]:
    """Yield the problems of the second of two equal images."""
    names = [group.images.name(number) for group, number in (one, other)]
    if one[0].split != other[0].split:
        yield Problem("leak", names[1], f"is a copy of {names[0]}, an image of {one[0].split}. Keep one of them.")
    classes = [group.class_of(number) for group, number in (one, other)]
    if None not in classes and classes[0] != classes[1]:
        yield Problem("contradiction", names[1], f"is a copy of {names[0]}, which is in class {classes[0]}. Keep one of them.")


def _equal_images(digests: bytearray) -> Iterator[list[int]]:
    """Yield the numbers of equal images, ascending, for each image that occurs more than once."""
    words = np.frombuffer(digests, dtype=np.uint64).reshape(-1, _DIGEST // 8)
    order = np.lexsort(words.T)  # stable, so that equal images stay in ascending order
    order = order[words[order].any(axis=1)]
    is_first = (words[order][1:] != words[order][:-1]).any(axis=1)
    starts = np.flatnonzero(np.concatenate(([True], is_first)))[: len(order)]
    lengths = np.diff(starts, append=len(order))
    return (order[start : start + length].tolist() for start, length in zip(starts, lengths, strict=True) if length > 1)


def _place(number: int, groups: Sequence[Group], starts: Sequence[int]) -> tuple[Group, int]:
    """Return the group of an image and its number in the group."""
    which = bisect_right(starts, number) - 1
    return groups[which], number - starts[which]
