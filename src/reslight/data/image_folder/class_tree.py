"""Folders that are named after their classes: which images they have, and which files are in the wrong place."""

import hashlib
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from unicodedata import normalize

import numpy as np

from reslight.data.image_folder.file_paths import FilePaths
from reslight.messages import counted, shortened, visible

IMAGE_EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "avif", "gif", "bmp", "dib", "tif", "tiff"),
        *("jp2", "j2k", "ppm", "pgm", "pbm", "pnm", "qoi", "tga", "pcx", "ico"),
    )
)
"""The extensions that Pillow reads, without those of documents, videos and vector graphics."""
FOREIGN_EXTENSIONS = frozenset(
    f".{name}" for name in ("heic", "heif", "jxl", "dng", "cr2", "cr3", "nef", "arw", "raf", "orf", "rw2", "psd", "svg")
)
"""Extensions of images that Pillow does not read: of phones and cameras, and of drawings."""
_SYSTEM_FILES = ("__macosx", "thumbs.db", "desktop.ini")
"""Files of archives and file managers, in lower case. Names that begin with a dot are ignored, too."""

_ROWS = 1024
"""Images whose names are hashed together; one by one takes twice as long."""

Report = Callable[[Path, OSError | None], object]
"""Called with a folder that cannot be opened and its error, or with an entry that is neither a file nor a folder and None."""


@dataclass(frozen=True)
class ClassTree:
    """A folder with a folder for each class.

    Attributes:
        root: The folder.
        classes: Names of the classes, sorted, in Unicode's composed form (NFC); those without images, too.
        paths: The images, class by class, sorted by name. Images in subfolders of a class are included.
        labels: The class number of each image.
        misplaced: Images outside the folders of classes.
        others: Files without an image extension.
        folders: The folders that were listed, relative to `root`; empty if the images come from elsewhere.
    """

    root: Path
    classes: tuple[str, ...]
    paths: FilePaths
    labels: Sequence[int]
    misplaced: FilePaths
    others: FilePaths
    folders: Sequence[str] = ()

    @property
    def empty(self) -> list[str]:
        """The classes without images."""
        used = set(self.labels)
        return [name for number, name in enumerate(self.classes) if number not in used]


def read_tree(root: Path, report: Report | None = None) -> ClassTree:
    """Find the images in a folder of classes; no image is opened.

    Args:
        root: The folder.
        report: See `list_folder`.

    Raises:
        OSError: a folder that cannot be opened, without `report`.
    """
    folders, loose = list_folder(root, report)
    classes = sorted({class_name(folder.name) for folder in folders})
    numbers = {name: number for number, name in enumerate(classes)}
    names = {True: bytearray(), False: bytearray()}  # of images and of others, as FilePaths keeps them: there may be millions
    labels, listed = array("q"), ["."]
    misplaced = [entry.name for entry in loose if is_image(entry.name)]
    names[False] += _joined("", [entry.name for entry in loose if not is_image(entry.name)])
    for folder in folders:
        number = numbers[class_name(folder.name)]
        for inner, files in files_below(root, folder.name, report):
            listed.append(inner)
            images = [name for name in files if is_image(name)]
            names[True] += _joined(f"{inner}/", images)
            labels.extend([number] * len(images))
            if len(images) < len(files):
                names[False] += _joined(f"{inner}/", [name for name in files if not is_image(name)])
    paths, others = (FilePaths(root, np.frombuffer(bytes(names[kind]), np.uint8)) for kind in (True, False))
    return ClassTree(root, tuple(classes), paths, labels, FilePaths.below(root, misplaced), others, listed)


def _joined(folder: str, names: Sequence[str]) -> bytes:
    return os.fsencode("".join([f"{folder}{name}\0" for name in names]))


def class_name(name: str) -> str:
    """Return the name of a class, as a folder or a shard spells it, in Unicode's composed form (NFC).

    macOS may decompose accents (NFD), other systems keep what was typed (mostly NFC): both spellings mean the same class.
    """
    return normalize("NFC", name)


def is_image(name: str) -> bool:
    """Return whether a file name has an image extension."""
    return "." in name and f".{name.rpartition('.')[2].lower()}" in IMAGE_EXTENSIONS


def is_foreign(name: str) -> bool:
    """Return whether a file name has the extension of an image that Pillow does not read."""
    return "." in name and f".{name.rpartition('.')[2].lower()}" in FOREIGN_EXTENSIONS


def foreign_warning(root: Path, others: FilePaths) -> str:
    """Return a sentence about images that Pillow does not read among other files; empty if there are none."""
    names = [name.rpartition("/")[2] for name in others.relative() if is_foreign(name)]
    if not names:
        return ""
    images = counted(len(names), "image")
    return f"{root} has {images} in formats that Pillow does not read: {shortened([*map(visible, names)])}. Convert them to JPEG"


def fingerprint_of(classes: Sequence[str], images: Iterable[tuple[str, int]]) -> str:
    """Return the sha256, in hexadecimal, of the class names and of each image's name and size in bytes."""
    digest = hashlib.sha256("\0".join(classes).encode("utf-8", "surrogateescape"))
    rows = iter(images)
    while text := "".join([f"\n{name}\0{size}" for name, size in islice(rows, _ROWS)]):
        # The characters between the names compose with nothing, so the names may be normalized together.
        digest.update(normalize("NFC", text).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def list_folder(folder: Path, report: Report | None = None) -> tuple[list[os.DirEntry[str]], list[os.DirEntry[str]]]:
    """List the folders and the files in a folder, sorted by name, without hidden and system files.

    Args:
        folder: The folder.
        report: Called with what is left out: a folder that cannot be opened, or an entry that is neither a folder nor a file,
            such as a broken link. Without it, the error is raised, and such an entry counts as a file.

    Raises:
        OSError: the folder cannot be opened, without `report`.
    """
    try:
        with os.scandir(folder) as entries:
            found = {entry.name: entry for entry in entries if not (entry.name[0] == "." or entry.name.lower() in _SYSTEM_FILES)}
    except OSError as error:
        if report is None:
            raise
        report(Path(folder), error)
        return [], []
    folders, files = [], []
    for name in _sorted(found):
        entry = found[name]
        if _is(entry, os.DirEntry.is_dir):
            folders.append(entry)
        elif report is None or _is(entry, os.DirEntry.is_file):
            files.append(entry)
        else:
            report(Path(entry.path), None)
    return folders, files


def _sorted(names: Iterable[str]) -> list[str]:
    """Return names sorted by their composed form, and equal ones as they are spelled."""
    ordered = sorted(names)
    return ordered if "".join(ordered).isascii() else sorted(ordered, key=lambda name: normalize("NFC", name))


def files_below(root: Path, folder: str, report: Report | None) -> Iterator[tuple[str, list[str]]]:
    """Yield the folder and its subfolders, relative to `root`, with the sorted names of the files in each.

    Links to folders are followed, but no folder is listed twice.
    """
    pending, seen = [folder], {os.path.realpath(root / folder)}
    while pending:
        folder = pending.pop(0)
        folders, files = list_folder(root / folder, report)
        yield folder, [entry.name for entry in files]
        inner = []
        for entry in folders:
            if (real := os.path.realpath(entry.path)) not in seen:
                seen.add(real)
                inner.append(f"{folder}/{entry.name}")
        pending = inner + pending


def _is(entry: os.DirEntry[str], kind: Callable[[os.DirEntry[str]], bool]) -> bool:
    try:
        return kind(entry)
    except OSError:  # a link that leads to itself
        return False
