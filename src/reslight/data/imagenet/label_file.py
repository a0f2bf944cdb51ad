"""Label files: which class each image is of, where ImageNet's validation images lie in one folder as they are published."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from reslight.data.image_folder.class_tree import is_image
from reslight.data.imagenet.synsets import known_synsets
from reslight.messages import UsageError

NAMES = (
    "ILSVRC2012_validation_ground_truth.txt",  # the devkit
    "imagenet_2012_validation_synset_labels.txt",  # TensorFlow
    "LOC_val_solution.csv",  # Kaggle
    "val.txt",  # Caffe
)
"""What label files are called."""
META = "meta.mat"
"""The devkit's file of classes, beside its label file."""
_HEADER = "ImageId,PredictionString"
_SHOWN = 5


@dataclass(frozen=True)
class _Form:
    """What a line may be."""

    says: str
    line: re.Pattern[str]
    """Its groups: `image`; and the class as `synset`, `number` (in sorted order, from 0) or `devkit` (the devkit's number)."""


_FORMS = (
    _Form("the devkit's number of a class", re.compile(r"(?P<devkit>\d{1,9})")),
    _Form("a synset", re.compile(r"(?P<synset>n\d{8})")),
    _Form("an image and the number of its class", re.compile(r"(?P<image>\S+)\s+(?P<number>\d{1,9})")),
    _Form("an image and its synset", re.compile(r"(?P<image>[^\s,]+)[\s,]+(?P<synset>n\d{8})(\s.*)?")),
)


class Row(NamedTuple):
    """A line of a label file; an empty text is what it does not say."""

    image: str
    synset: str
    number: str
    devkit: str


def find_label_file(places: Sequence[Path], images: Sequence[Path]) -> Path:
    """Look for the label file of images: one of `NAMES`, or any text with a synset a line and as many lines as images.

    Args:
        places: Where to look.
        images: The images, in one folder.

    Raises:
        ValueError: There is none.
    """
    for name in NAMES:
        for place in places:
            if (place / name).is_file():
                return place / name
    unfit = []
    for path in [path for place in places for path in sorted(place.glob("*.txt")) if _begins_with_synset(path)]:
        lines = sum(bool(line.strip()) for line in _lines(path))
        if lines == len(images):
            return path
        unfit.append(f"; {path} has {lines:,} lines for {len(images):,} images")
    raise UsageError(
        f"{images[0].parent} has images without folders of classes, and no label file: looked for {', '.join(NAMES)} or another .txt with "
        f"a synset a line in {', '.join(map(str, places))}{''.join(unfit[:1])}; put one there"
    )


def read_label_file(path: Path, images: Sequence[Path], classes: Sequence[str]) -> list[int]:
    """Read the class of each image.

    Args:
        path: The label file.
        images: The images, sorted by name: the order of a label file that names none.
        classes: The synsets that there are to train with, sorted.

    Returns:
        For each image the number of its class among `classes`.

    Raises:
        ValueError: The file is in no known form, is of other images, or gives a class that is not there.
    """
    rows = _rows(path)
    folder = images[0].parent
    if len(rows) != len(images):
        raise UsageError(f"{path} has {len(rows):,} lines, but {folder} has {len(images):,} images; put all images there, and their file")
    if rows[0].image:
        rows = _in_order_of(images, rows, path)
    synsets = _synsets(rows, classes, path)
    numbers = {synset: number for number, synset in enumerate(classes)}
    if unknown := sorted(set(synsets) - numbers.keys()):
        more = f" and {len(unknown) - _SHOWN:,} more" if len(unknown) > _SHOWN else ""
        raise UsageError(
            f"{path} gives classes that the training images have no folder of: {', '.join(unknown[:_SHOWN])}{more}; "
            f"put them there, or take their images out of {folder} and {path.name}"
        )
    return [numbers[synset] for synset in synsets]


def _rows(path: Path) -> list[Row]:
    """All lines, which must be of one form.

    Raises:
        ValueError: They are not.
    """
    rows: list[Row] = []
    form: _Form | None = None
    for number, line in enumerate(_lines(path), 1):
        if not (text := line.strip()) or (number == 1 and text.startswith(_HEADER)):
            continue
        form = form or next((one for one in _FORMS if one.line.fullmatch(text)), None)
        found = form.line.fullmatch(text) if form else None
        if found is None:
            allowed = form.says if form else " or ".join(one.says for one in _FORMS)
            raise UsageError(f"line {number} of {path} is {text[:60]!r}, must be {allowed}; mend it, or get the file again")
        rows.append(Row(**{key: found.groupdict().get(key) or "" for key in Row._fields}))
    return rows


def _in_order_of(images: Sequence[Path], rows: Sequence[Row], path: Path) -> list[Row]:
    """The rows in the order of the images that they name.

    Raises:
        ValueError: A row names an image twice, or one that is not there.
    """
    by_name: dict[str, Row] = {}
    for row in rows:
        if (name := _stem(row.image)) in by_name:
            raise UsageError(f"{path} names the image {row.image} twice; leave one of its lines")
        by_name[name] = row
    there = [_stem(image.name) for image in images]
    if strange := sorted(by_name.keys() - set(there)):
        raise UsageError(f"{path} names the image {by_name[strange[0]].image}, which is not in {images[0].parent}; put it there")
    if strange := [image.name for image, name in zip(images, there, strict=True) if name not in by_name]:
        raise UsageError(f"{path} has no line for the image {strange[0]}; add it")
    return [by_name[name] for name in there]


def _synsets(rows: Sequence[Row], classes: Sequence[str], path: Path) -> list[str]:
    """The class of each row.

    Raises:
        ValueError: A number stands for none.
    """
    if rows[0].synset:
        return [row.synset for row in rows]
    if rows[0].number:
        return _numbered([int(row.number) for row in rows], classes, path)
    known = _devkit_synsets(path)
    if strange := [row.devkit for row in rows if int(row.devkit) not in known]:
        raise UsageError(f"{path} has the number {strange[0]}, which {META} beside it does not have; get both files again")
    return [known[int(row.devkit)] for row in rows]


def _numbered(numbers: Sequence[int], classes: Sequence[str], path: Path) -> list[str]:
    """The classes of numbers in sorted order: the official order, or that of the classes that there are to train with.

    The numbers of a part of ImageNet are official ones where all their classes are there. They were counted anew where they
    are not, and each of the classes that are there has an image. If both hold, the numbers mean the same.

    Raises:
        ValueError: A number is too high for either.
    """
    official = list(known_synsets())
    if max(numbers) < len(official) and {official[number] for number in numbers} <= set(classes):
        return [official[number] for number in numbers]
    if set(numbers) == set(range(len(classes))):
        return [classes[number] for number in numbers]
    if max(numbers) >= len(official):
        raise UsageError(f"{path} has the class number {max(numbers)}, must be from 0 to {len(official) - 1}; get the file again")
    return [official[number] for number in numbers]


def _devkit_synsets(path: Path) -> Mapping[int, str]:
    """The synset of each of the devkit's numbers.

    Raises:
        ValueError: meta.mat is not there or is damaged.
    """
    from scipy.io import loadmat

    meta = path.with_name(META)
    if not meta.is_file():
        raise UsageError(f"{path} has the devkit's numbers, whose classes stand in {META}, which is not beside it; put it there too")
    try:
        table = loadmat(meta, squeeze_me=True)["synsets"]
        return {int(number): str(synset) for number, synset in zip(table["ILSVRC2012_ID"], table["WNID"], strict=True)}
    except Exception as error:  # of a damaged file it raises whatever it stumbles over
        raise UsageError(f"{meta} cannot be read ({' '.join(str(error).split())[:120]}); get it again") from error


def _begins_with_synset(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        line = file.readline(200).strip()
    return any(form.line.fullmatch(line) for form in _FORMS if "synset" in form.line.groupindex)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8-sig", errors="replace").splitlines()


def _stem(name: str) -> str:
    """An image's name without folders and ending."""
    last = name.rpartition("/")[2]
    return last.rpartition(".")[0] if is_image(last) else last
