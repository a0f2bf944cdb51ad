"""`check`: opens every image of a set, and says which files are not what training takes them for."""

import hashlib
import os
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate, chain
from typing import NamedTuple

import numpy as np

from reslight.data.check.problems import Problem
from reslight.data.check.survey import Group, Survey
from reslight.data.check.truncation import is_complete
from reslight.data.loading.decode import decode
from reslight.data.loading.encoded import Images
from reslight.messages import UsageError

_CHUNK = 32
"""Images that a thread opens at a time."""
_AHEAD = 4
"""Chunks under way for each thread."""
_DIGEST = hashlib.sha256().digest_size


@dataclass
class Summary:
    """How far a check is, and in the end what there is."""

    images: int = 0
    """All there are to open."""
    opened: int = 0
    bytes: int = 0
    """Of the images opened so far."""
    parts: dict[str, int] = field(default_factory=dict)
    """Images of each part."""
    classes: int = 0
    """Classes of the training images."""
    kinds: Counter[str] = field(default_factory=Counter)
    """Problems so far, of each kind."""


class _Opened(NamedTuple):
    """An image that was opened."""

    size: int
    """In bytes."""
    digest: bytes
    problem: Problem | None


def check(
    root: str, threads: int | None = None, summary: Summary | None = None, progress: Callable[[Summary], object] | None = None
) -> Iterator[Problem]:
    """Look for all that is wrong with a set of images: `Folder`'s, `ImageNet`'s, or shards.

    A JPEG whose pixels are damaged somewhere in the middle decodes to something, and is not found.

    Args:
        root: Folder of the images, or what else `Folder` takes.
        threads: Threads that open images; the machine's cores when left out.
        summary: Is kept up to date as the problems are asked for.
        progress: Called with the summary, now and again.

    Returns:
        The problems as they are found: those of folders, then those of images, then copies; each sorted, images by part first.

    Raises:
        OSError: There is no such set.
        ValueError: `threads` is out of range, or a set that is no folder cannot be used.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads is {threads}, must be at least 1, or left out for the machine's cores")
    survey, summary = Survey(root), summary or Summary()
    summary.parts = {group.part: len(group.images) for group in survey.groups}
    summary.images = sum(summary.parts.values())
    summary.classes = max((len(group.classes) for group in survey.groups), default=0)
    return _checked(survey, threads or _cores(), summary, progress or (lambda _: None))


def _checked(survey: Survey, threads: int, summary: Summary, progress: Callable[[Summary], object]) -> Iterator[Problem]:
    digests = bytearray()
    noted = sorted(survey.problems, key=lambda problem: (problem.path, problem.kind, problem.text))
    for found in chain([noted], _opened(survey.groups, threads, digests, summary), _copies(survey.groups, digests)):
        for problem in found:
            summary.kinds[problem.kind] += 1
            yield problem
        progress(summary)


def _opened(groups: Sequence[Group], threads: int, digests: bytearray, summary: Summary) -> Iterator[list[Problem]]:
    """Open all images, some at a time; for each, `digests` gets that of its bytes, or zeros where something is wrong with it."""
    waiting: deque[Future[list[_Opened]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="reslight-check")
    try:
        for group in groups:
            for start in range(0, len(group.images), _CHUNK):
                waiting.append(pool.submit(_open, group.images, range(start, min(start + _CHUNK, len(group.images)))))
                if len(waiting) > threads * _AHEAD:
                    yield _noted(waiting.popleft().result(), digests, summary)
        while waiting:
            yield _noted(waiting.popleft().result(), digests, summary)
    finally:
        pool.shutdown(cancel_futures=True)


def _noted(opened: list[_Opened], digests: bytearray, summary: Summary) -> list[Problem]:
    for one in opened:
        digests += one.digest
    summary.opened += len(opened)
    summary.bytes += sum(one.size for one in opened)
    return [one.problem for one in opened if one.problem]


def _open(images: Images, numbers: range) -> list[_Opened]:
    return [_open_one(images, number) for number in numbers]


def _open_one(images: Images, number: int) -> _Opened:
    name, data = images.name(number), bytearray()
    try:
        data = images.read(number)
        wrong = _wrong_with(data, name)
    except OSError as error:
        wrong = "unreadable", f"cannot be read: {error.strerror or error}"
    except Exception as error:  # a check that stops at the first strange file would be none
        wrong = "unreadable", f"cannot be read: {' '.join(f'{type(error).__name__} {error}'.split())[:160]}"
    digest = bytes(_DIGEST) if wrong else hashlib.sha256(data).digest()
    return _Opened(len(data), digest, Problem(wrong[0], name, wrong[1]) if wrong else None)


def _wrong_with(data: bytearray, name: str) -> tuple[str, str] | None:
    """The kind of problem that an image has, and what it is; None where it is sound."""
    if not data:
        return "empty", "is empty"
    try:
        decode(data, name)
    except ValueError as error:
        text = str(error).removeprefix(name).strip()
        if "decompression bomb" in text:
            return "bomb", text
        if is_complete(data) and "truncated" not in text.lower():
            return "unreadable", text
    else:
        if is_complete(data):
            return None
    return "truncated", f"ends too early, after {len(data):,} bytes; get it again"


def _copies(groups: Sequence[Group], digests: bytearray) -> Iterator[list[Problem]]:
    """Images whose bytes are those of an image of an earlier part, or of one of another class."""
    starts = list(accumulate((len(group.images) for group in groups), initial=0))
    found = []
    for first, *others in _alike(digests):
        for other in others:
            found += [(other, problem) for problem in _comparison(*(_place(number, groups, starts) for number in (first, other)))]
    yield [problem for _, problem in sorted(found, key=lambda pair: pair[0])]


def _comparison(one: tuple[Group, int], other: tuple[Group, int]) -> Iterator[Problem]:
    """What is wrong with the second of two equal images."""
    names = [group.images.name(number) for group, number in (one, other)]
    if one[0].part != other[0].part:
        yield Problem("leak", names[1], f"is a copy of {names[0]}, an image of {one[0].part}; keep one of them")
    classes = [group.classes[group.labels[number]] if group.labels[number] >= 0 else None for group, number in (one, other)]
    if None not in classes and classes[0] != classes[1]:
        yield Problem("contradiction", names[1], f"is a copy of {names[0]}, which is of class {classes[0]}; keep one of them")


def _alike(digests: bytearray) -> Iterator[list[int]]:
    """The numbers of equal images, ascending, for each image that there is more than once."""
    words = np.frombuffer(digests, dtype=np.uint64).reshape(-1, _DIGEST // 8)
    order = np.lexsort(words.T)  # stable
    order = order[words[order].any(axis=1)]
    new = (words[order][1:] != words[order][:-1]).any(axis=1)
    starts = np.flatnonzero(np.concatenate(([True], new)))[: len(order)]
    lengths = np.diff(starts, append=len(order))
    return (order[start : start + length].tolist() for start, length in zip(starts, lengths, strict=True) if length > 1)


def _place(number: int, groups: Sequence[Group], starts: Sequence[int]) -> tuple[Group, int]:
    """The group of an image, and its number there."""
    which = bisect_right(starts, number) - 1
    return groups[which], number - starts[which]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
