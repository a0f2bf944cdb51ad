"""Images in folders that are named after their classes: what is there, and what lies at the wrong place."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ENDINGS = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "avif", "gif", "bmp", "dib", "tif", "tiff"),
        *("jp2", "j2k", "ppm", "pgm", "pbm", "pnm", "qoi", "tga", "pcx", "ico"),
    )
)
"""Of the names of images: what Pillow reads, without documents, videos and vector graphics."""
_SYSTEM = ("__macosx", "thumbs.db", "desktop.ini")
"""What archives and file managers leave behind, beside all that begins with a dot."""


@dataclass(frozen=True)
class ClassTree:
    """A folder with a folder for each class.

    Attributes:
        root: The folder.
        classes: Names of the classes, sorted, as their folders are called; empty ones too.
        paths: The images, class by class, sorted by name, from folders below a class's as well.
        labels: For each image the number of its class.
        misplaced: Images outside of every class's folder.
        others: Files whose ending is not an image's.
    """

    root: Path
    classes: tuple[str, ...]
    paths: Sequence[Path]
    labels: Sequence[int]
    misplaced: Sequence[Path]
    others: Sequence[Path]

    @property
    def empty(self) -> list[str]:
        """Classes without an image."""
        there = set(self.labels)
        return [name for number, name in enumerate(self.classes) if number not in there]

    def fingerprint(self) -> str:
        """Names the set by its classes and the names and sizes of its images: none need be opened."""
        return fingerprint_of(self.classes, ((path.relative_to(self.root).as_posix(), size_of(path)) for path in self.paths))


def read_tree(root: Path) -> ClassTree:
    """Look through a folder of classes.

    Raises:
        OSError: It, or a folder in it, cannot be opened.
    """
    top = shown(root)
    folders = [entry for entry in top if entry.is_dir()]
    loose = [entry for entry in top if not entry.is_dir()]
    paths: list[Path] = []
    labels: list[int] = []
    others = [Path(entry.path) for entry in loose if not is_image(entry.name)]
    for number, folder in enumerate(folders):
        for entry in _below(folder.path):
            if is_image(entry.name):
                paths.append(Path(entry.path))
                labels.append(number)
            else:
                others.append(Path(entry.path))
    misplaced = [Path(entry.path) for entry in loose if is_image(entry.name)]
    return ClassTree(root, tuple(folder.name for folder in folders), paths, labels, misplaced, others)


def is_image(name: str) -> bool:
    """Whether a file is called as an image is."""
    return "." in name and f".{name.rpartition('.')[2].lower()}" in ENDINGS


def fingerprint_of(classes: Sequence[str], images: Iterable[tuple[str, int]]) -> str:
    """The sha256, in hexadecimal, over the classes and over each image's name and size."""
    digest = hashlib.sha256("\0".join(classes).encode("utf-8", "surrogateescape"))
    for name, size in images:
        digest.update(f"\n{name}\0{size}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def size_of(path: Path) -> int:
    """In bytes; -1 of what cannot be looked at, such as a link to nowhere, which is told when it is read."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _below(folder: str) -> Iterator[os.DirEntry[str]]:
    """All files, in folders below too, sorted; links to folders are followed, but none twice."""
    pending, seen = [folder], {os.path.realpath(folder)}
    while pending:
        inner = []
        for entry in shown(Path(pending.pop(0))):
            if not entry.is_dir():
                yield entry
            elif (real := os.path.realpath(entry.path)) not in seen:
                seen.add(real)
                inner.append(entry.path)
        pending = inner + pending


def shown(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, sorted by name, but for what systems hide there."""
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if not entry.name.startswith(".") and entry.name.lower() not in _SYSTEM]
    return sorted(found, key=lambda entry: entry.name)
