"""Label files: the class of each of ImageNet's validation images, which are published in one folder."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from reslight.data.image_folder.class_tree import is_image
from reslight.data.imagenet.synsets import known_synsets
from reslight.messages import UsageError, shortened, visible
from reslight.regular_file import read_regular

NAMES = (
    "ILSVRC2012_validation_ground_truth.txt",  # the devkit
    "imagenet_2012_validation_synset_labels.txt",  # TensorFlow
    "LOC_val_solution.csv",  # Kaggle
    "val.txt",  # Caffe
)
"""The usual names of label files, and who publishes them."""
META = "meta.mat"
"""The devkit's list of classes, beside its label file."""
_HEADER = "ImageId,PredictionString"
_LARGEST = 2**27
"""Bytes of a text file that are read at most; ImageNet's have at most 3 million."""
_SHOWN = 5


@dataclass(frozen=True)
class _Form:
    """A form of a label file's lines."""

    description: str
    line: re.Pattern[str]
    """Has the groups `image` and, for the class, `synset`, `number` (of the sorted synsets, from 0) or `devkit` (the devkit's number)."""


_FORMS = (
    _Form("the devkit's number of a class", re.compile(r"(?P<devkit>\d{1,9})")),
    _Form("a synset", re.compile(r"(?P<synset>n\d{8})")),
    _Form("an image and the number of its class", re.compile(r"(?P<image>\S+)\s+(?P<number>\d{1,9})")),
    _Form("an image and its synset", re.compile(r"(?P<image>[^\s,]+)[\s,]+(?P<synset>n\d{8})(\s.*)?")),
)


class Row(NamedTuple):
    """A line of a label file; fields that the line does not have are empty."""

    image: str
    synset: str
    number: str
    devkit: str


def find_label_file(folders: Sequence[Path], images: Sequence[Path]) -> Path:
    """Find the label file of images: one of `NAMES`, or another text file with a synset per line and a line per image.

    Args:
        folders: Folders that may have the file.
        images: The images, in one folder.

    Raises:
        UsageError: no label file.
    """
    for name in NAMES:
        for folder in folders:
            if (folder / name).is_file():
                return folder / name
    others = []
    for path in [path for folder in folders for path in sorted(folder.glob("*.txt")) if _begins_with_synset(path)]:
        lines = sum(bool(line.strip()) for line in _lines(path))
        if lines == len(images):
            return path
        others.append(f" ({path} has {lines:,} lines for {len(images):,} images)")
    raise UsageError(
        f"{images[0].parent} has images that are not in folders of classes: a label file must give their classes{''.join(others[:1])}. "
        f"Put {', '.join(NAMES)} or another .txt with a synset per line into one of {', '.join(map(str, folders))}."
    )


def read_label_file(path: Path, images: Sequence[Path], classes: Sequence[str]) -> list[int]:
    """Read the class of each image.

    Args:
        path: The label file.
        images: The images, sorted by name, which is the order of a label file without names.
        classes: The synsets of the training images, sorted.

    Returns:
        For each image the number of its class in `classes`.

    Raises:
        UsageError: a file of unknown form or of other images, or a class without training images.
    """
    rows = _rows(path)
    folder = images[0].parent
    if len(rows) != len(images):
        raise UsageError(f"{path} has {len(rows):,} lines: {folder} has {len(images):,} images. Get all images, and their label file.")
    if rows[0].image:
        rows = _in_order_of(images, rows, path)
    synsets = _synsets(rows, classes, path)
    numbers = {synset: number for number, synset in enumerate(classes)}
    if unknown := sorted(set(synsets) - numbers.keys()):
        raise UsageError(
            f"{path} has classes without a folder of training images: {shortened(unknown, _SHOWN)}. "
            f"Add the folders, or remove the images of these classes from {folder} and {path.name}."
        )
    return [numbers[synset] for synset in synsets]


def _rows(path: Path) -> list[Row]:
    """Read all lines.

    Raises:
        UsageError: a line of unknown form, or of another form than the first.
    """
    rows: list[Row] = []
    form: _Form | None = None
    for number, line in enumerate(_lines(path), 1):
        if not (text := line.strip()) or (number == 1 and text.startswith(_HEADER)):
            continue
        form = form or next((one for one in _FORMS if one.line.fullmatch(text)), None)
        found = form.line.fullmatch(text) if form else None
        if found is None:
            allowed = form.description if form else ", or ".join(one.description for one in _FORMS)
            raise UsageError(f"line {number} of {path} is {text[:60]!r}: it must be {allowed}. Correct it, or get the file again.")
        rows.append(Row(**{key: found.groupdict().get(key) or "" for key in Row._fields}))
    return rows


def _in_order_of(images: Sequence[Path], rows: Sequence[Row], path: Path) -> list[Row]:
    """Return the rows in the order of the images that they name.

    Raises:
        UsageError: an image that is named twice, is missing, or has no row.
    """
    by_name: dict[str, Row] = {}
    for row in rows:
        if (name := _stem(row.image)) in by_name:
            raise UsageError(f"{path} has two lines for the image {visible(row.image)}. Remove one.")
        by_name[name] = row
    stems = [_stem(image.name) for image in images]
    if missing := sorted(by_name.keys() - set(stems)):
        raise UsageError(
            f"{path} has a line for the image {visible(by_name[missing[0]].image)}: it is missing in {images[0].parent}. Put it there."
        )
    if unlisted := [image.name for image, stem in zip(images, stems, strict=True) if stem not in by_name]:
        raise UsageError(f"{path} has no line for the image {visible(unlisted[0])}. Add one.")
    return [by_name[stem] for stem in stems]


def _synsets(rows: Sequence[Row], classes: Sequence[str], path: Path) -> list[str]:
    """Return the synset of each row.

    Raises:
        UsageError: a number without a class.
    """
    if rows[0].synset:
        return [row.synset for row in rows]
    if rows[0].number:
        return _numbered([int(row.number) for row in rows], classes, path)
    known = _devkit_synsets(path)
    if unknown := [row.devkit for row in rows if int(row.devkit) not in known]:
        raise UsageError(f"{path} has the class number {unknown[0]}: {META} beside it does not list it. Get both files again.")
    return [known[int(row.devkit)] for row in rows]


def _numbered(numbers: Sequence[int], classes: Sequence[str], path: Path) -> list[str]:
    """Return the synsets of class numbers, which count all 1,000 sorted synsets or only the training classes.

    For a subset of ImageNet, numbers are official if all of their classes have training images. Otherwise they number the subset, if
    they cover it exactly. If both hold, both meanings are the same.

    Raises:
        UsageError: a number that is too high for either.
    """
    official = list(known_synsets())
    if max(numbers) < len(official) and {official[number] for number in numbers} <= set(classes):
        return [official[number] for number in numbers]
    if set(numbers) == set(range(len(classes))):
        return [classes[number] for number in numbers]
    if max(numbers) >= len(official):
        raise UsageError(f"{path} has the class number {max(numbers)}: it must be 0 to {len(official) - 1}. Get the file again.")
    return [official[number] for number in numbers]


def _devkit_synsets(path: Path) -> Mapping[int, str]:
    """Return the synset of each of the devkit's class numbers.

    Raises:
        UsageError: a missing or damaged meta.mat.
    """
    from scipy.io import loadmat

    meta = path.with_name(META)
    if not meta.is_file():
        raise UsageError(f"{path} has the devkit's class numbers: {META}, which lists the classes, is missing beside it. Put it there.")
    try:
        table = loadmat(meta, squeeze_me=True)["synsets"]
        return {int(number): str(synset) for number, synset in zip(table["ILSVRC2012_ID"], table["WNID"], strict=True)}
    except Exception as error:  # loadmat raises errors of many types for damaged files
        raise UsageError(f"{meta} cannot be read: {' '.join(str(error).split())[:120]}. Get it again.") from error


def _begins_with_synset(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        line = file.readline(200).strip()
    return any(form.line.fullmatch(line) for form in _FORMS if "synset" in form.line.groupindex)


def _lines(path: Path) -> list[str]:
    return read_regular(path, _LARGEST).decode("utf-8-sig", errors="replace").splitlines()


def _stem(name: str) -> str:
    """Return an image's name without folders and extension."""
    last = name.rpartition("/")[2]
    return last.rpartition(".")[0] if is_image(last) else last
