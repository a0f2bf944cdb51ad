"""A folder of images whose classes are in label files: which image has which row, and which splits and groups there are."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch

from reslight.data.image_folder.canonical import canonical_order
from reslight.data.image_folder.class_tree import Report, class_name, fingerprint_of
from reslight.data.image_folder.file_paths import FilePaths
from reslight.data.image_folder.label_files import LabelFiles, without_garbage_collection
from reslight.data.image_folder.label_sets import joined, multi_hot, shown
from reslight.data.image_folder.label_table import Fault, LabelTable
from reslight.data.image_folder.listed_images import ListedImages
from reslight.data.image_folder.splits import SPLIT_FOLDERS, SPLIT_OF, ImageSet, LabelledImages, SplitName, group_numbers
from reslight.data.loading.encoded import Files
from reslight.messages import UsageError, counted, did_you_mean, shortened, unprintable, visible

log = logging.getLogger(__name__)

_SHOWN = 5


class _Image(NamedTuple):
    """An image with a row."""

    path: str
    """Relative to the root, with `/` between the folders."""
    label: str
    """The name of its class; of several, their text, see `label_sets`."""
    split: SplitName
    group: str | None
    table: LabelTable
    row: int

    @property
    def where(self) -> str:
        """The image's row, for messages."""
        return self.table.where(self.row)


@dataclass
class LabelledFolder:
    """The images of a folder that have a row in a label file.

    Attributes:
        files: The label files.
        classes: Names of the classes with training images, sorted, in Unicode's composed form (NFC).
        splits: The images of each split that exists, in canonical order: class by class, as class folders have them.
        faults: Mistakes that training refuses.
        unlisted: Images without a row, relative to the root.
        unlabelled: Images without a row in the folder of test images, if no row is of that split: they are there to be predicted.
        repeated: Rows that repeat another one.
        shared_groups: Groups that are in more than one split.
        bases: For each label file the folder to which its paths are relative.
    """

    files: LabelFiles
    classes: tuple[str, ...] = ()
    splits: dict[SplitName, list[tuple[str, _Image]]] = field(default_factory=dict)
    """Beside each image its name as in class folders: the label, and the path below the label's folder."""
    faults: list[Fault] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)
    repeated: list[Fault] = field(default_factory=list)
    shared_groups: list[Fault] = field(default_factory=list)
    bases: list[Path] = field(default_factory=list)

    def classes_in(self, split: SplitName) -> set[str]:
        """Return the classes of the images of a split."""
        labels = {image.label for _, image in self.splits[split]}
        return {name for label in labels for name in self.files.classes_of(label)}

    def warnings(self) -> list[str]:
        """Return what the user should know, one line each."""
        files, found = self.files, []
        for rows, what in (
            ([one.path.partition(" of ")[0] for one in self.repeated], "rows that repeat another one, which are ignored"),
            ([one.path.removesuffix(f" of {files}") for one in self.shared_groups], "groups in more than one split"),
        ):
            if rows:
                found.append(f"{files} has {what}: {shortened(rows, _SHOWN)}")
        if not files.several and (combined := _combined(self.classes)):
            name, separator = combined
            how = f'data.labels_columns.separator to "{separator}"'
            found.append(f"{files} has the class {visible(name)}, whose parts are classes, too. If they are several labels, set {how}")
        if self.unlisted:
            names = shortened([visible(name) for name in self.unlisted], _SHOWN)
            found.append(f"{files.root} has images without a row in {files}, which are ignored: {names}")
        if self.unlabelled:
            number = counted(len(self.unlabelled), "image")
            found.append(f"{files.root} has {number} without labels in test, which only `reslight predict` uses")
        for split, images in self.splits.items():
            if without := sum(not image.label for _, image in images):
                found.append(f"{files} has {without:,} of {len(images):,} {split} images without a class")
            if split != "train" and (missing := sorted(set(self.classes) - self.classes_in(split))):
                found.append(f"{files} has no {split} images of {shortened(missing, _SHOWN)}")
        return found


def _combined(classes: Sequence[str]) -> tuple[str, str] | None:
    """Return a class whose name is that of other classes with a separator between, and the separator; None if there is none."""
    known = set(classes)
    pairs = ((name, separator) for name in classes for separator in "|;,+" if separator in name)
    return next(((name, one) for name, one in pairs if all(part.strip() in known for part in name.split(one))), None)


def read_labelled_folder(files: LabelFiles, report: Report | None = None, *, partial: bool = False) -> LabelledFolder:
    """Find the image of each row of the label files; no image is opened.

    Args:
        files: The label files.
        report: See `list_folder`.
        partial: Whether training images may be missing: then the classes are those of all splits, and may be few.

    Raises:
        OSError: a folder that cannot be opened, without `report`.
    """
    found, folder = LabelledFolder(files), ListedImages(files.root, report)
    images: dict[str, _Image] = {}
    for table, split in files.tables:
        faults = list(table.faults)
        found.bases.append(base := folder.base_of(table))
        for image in _images_of(table, split, folder, base, faults):
            if (first := images.setdefault(image.path, image)) is not image:
                _add_repeated(first, image, faults, found.repeated)
        found.faults += sorted(faults, key=lambda fault: fault.number)
    without = [name for name in folder.names if name not in images]
    is_test = {name: name.partition("/")[0] in SPLIT_FOLDERS["test"] for name in without}
    if not any(image.split == "test" for image in images.values()):
        found.unlabelled = [name for name in without if is_test[name]]
    found.unlisted = [name for name in without if not (found.unlabelled and is_test[name])]
    by_split: dict[SplitName, list[_Image]] = {}
    for image in images.values():
        by_split.setdefault(image.split, []).append(image)
    found.splits = {split: _in_canonical_order(by_split[split], several=files.several) for split in SPLIT_FOLDERS if split in by_split}
    _find_classes(found, partial=partial)
    _check_groups(found)
    return found


@without_garbage_collection()
def image_set_of_labels(files: LabelFiles, *, partial: bool = False) -> ImageSet:
    """Return the splits that label files give. Images without a row in the folder `test` are unlabelled, if no row is of this split.

    Args:
        files: The label files.
        partial: See `read_labelled_folder`.

    Raises:
        OSError: a folder that cannot be opened.
        UsageError: a mistake in a label file.
    """
    found, root = read_labelled_folder(files, partial=partial), files.root
    if found.faults:
        more = len(found.faults) - 1
        given = f" --labels {files}" if files.given else ""
        hint = f" {more:,} more problems: `reslight data check {root}{given}` lists all." if more else ""
        raise UsageError(f"{found.faults[0]}{hint}")
    for (table, _), base in zip(files.tables, found.bases, strict=True):
        log.info("labels: %s (%s; relative to %s)", table.file, _description(table), base)
    splits: dict[SplitName, LabelledImages] = {}
    for split, images in found.splits.items():
        paths = FilePaths.below(root, (image.path for _, image in images))
        sizes = paths.sizes().tolist()
        name = fingerprint_of(found.classes, zip((name for name, _ in images), sizes, strict=True))
        labels = _label_numbers([image.label for _, image in images], found.classes, several=files.several)
        names = FilePaths.below(Path(), (name for name, _ in images)).relative
        groups = [image.group for _, image in images if image.group is not None]
        found_groups = group_numbers(groups if len(groups) == len(images) else None)
        splits[split] = LabelledImages(Files(paths), labels, name, *found_groups, names)
    unlabelled = None
    if found.unlabelled:
        unlabelled = LabelledImages.unlabelled(Files(FilePaths.below(root, found.unlabelled)), found.unlabelled)
    return ImageSet(found.classes, splits, tuple(found.warnings()), files.columns, unlabelled)


def _label_numbers(labels: Sequence[str], classes: Sequence[str], *, several: bool) -> torch.Tensor:
    if several:
        return multi_hot(labels, classes)
    numbers = {name: number for number, name in enumerate(classes)}
    return torch.tensor([numbers[label] for label in labels], dtype=torch.int64)


def _images_of(table: LabelTable, split: SplitName | None, folder: ListedImages, base: Path, faults: list[Fault]) -> Iterator[_Image]:
    """Yield the image of each row; add a fault for a row that has none, or a split that does not exist."""
    find = folder.finder(base)
    for row, (path, label) in enumerate(zip(table.paths, table.labels, strict=True)):
        if (name := find(path)) is None:
            faults.append(table.fault(row, folder.missing(path, base)))
            continue
        of_row = split or folder.split_of.get(name.partition("/")[0], "train")
        if table.splits is not None and split is None:
            written = table.splits[row]
            if (known := SPLIT_OF.get(written.lower())) is None:
                allowed = ", ".join(SPLIT_OF)
                what = did_you_mean(written.lower(), SPLIT_OF, "Correct it.")
                faults.append(table.fault(row, f"has the split {visible(written)}: it must be one of {allowed}. {what.capitalize()}"))
                continue
            of_row = known
        yield _Image(name, label if table.several else class_name(label), of_row, table.groups[row] if table.groups else None, table, row)


def _add_repeated(first: _Image, other: _Image, faults: list[Fault], repeated: list[Fault]) -> None:
    """Add a fault if two rows of an image differ, and a repeated row if they do not."""
    name = visible(other.path, 200)
    for what in ("label", "split", "group"):
        one, two = getattr(first, what), getattr(other, what)
        if one != two:
            one, two = (shown(text) if what == "label" and other.table.several else visible(text) for text in (one, two))
            text = f"gives {name} the {what} {two}: {first.where} gives it {one}. Remove one."
            faults.append(other.table.fault(other.row, text))
            return
    repeated.append(other.table.fault(other.row, f"names {name} again, as {first.where} does, and is ignored. Remove one."))


def _in_canonical_order(images: Sequence[_Image], *, several: bool) -> list[tuple[str, _Image]]:
    """Return the images in the order of `canonical_order`, each with its name there."""
    ordered = canonical_order([image.path for image in images], [image.label for image in images], several=several)
    return [(name, images[number]) for number, name in ordered]


def _find_classes(found: LabelledFolder, *, partial: bool) -> None:
    """Find the classes; add faults of the dataset as a whole, after those of rows."""
    file, by_column = str(found.files), isinstance(found.files.columns.label, tuple)
    labels = {split: found.classes_in(split) for split in found.splits}
    all_classes = sorted(set().union(*labels.values()))
    found.classes = tuple(all_classes if partial else sorted(labels.get("train", ())))
    for name in unprintable(all_classes):
        found.faults.append(Fault(file, f"has the label {name}: it must be one line of printable text. Rename the class."))
    if found.faults or partial:
        return  # rows are missing, so that classes may be, too
    if "train" not in labels:
        found.faults.append(Fault(file, f"has images of {' and '.join(labels)}, but none of train. Add rows of train."))
    elif missing := sorted({joined([name]) for name in found.files.columns.names("label")} - labels["train"] if by_column else ()):
        found.faults.append(
            Fault(file, f"has no training image of {shortened(missing, _SHOWN)}. Leave these columns out of data.labels_columns.label.")
        )
    elif len(found.classes) < 2:
        has = f"one class, {found.classes[0]}" if found.classes else "no class"
        found.faults.append(Fault(file, f"has {has}: a classifier needs at least two. Add images of another class."))
    for split, used in labels.items():
        if "train" in labels and (unknown := sorted(used - labels["train"])):
            text = (
                f"has classes in {split} that are missing in train: {shortened(unknown, _SHOWN)}. Add training images, or remove the rows."
            )
            found.faults.append(Fault(file, text))


def _check_groups(found: LabelledFolder) -> None:
    """Find the groups that are in more than one split; add a fault where one file of a split has groups and another has none."""
    splits: dict[str, set[SplitName]] = {}
    for split, images in found.splits.items():
        if len(tables := {image.table.groups is None: image.table.file for _, image in images}) > 1:
            text = f"has no groups, and {tables[False]} has, for the same split {split}: all or none must. Add the column, or remove it."
            found.faults.append(Fault(str(tables[True]), text))
        for group in {image.group for _, image in images if image.group is not None}:
            splits.setdefault(group, set()).add(split)
    for group, used in splits.items():
        if len(used) > 1:
            names = " and ".join(split for split in SPLIT_FOLDERS if split in used)
            text = f"has images in {names}. Move them into one split."
            found.shared_groups.append(Fault(f"group {visible(group)} of {found.files}", text))


def _description(table: LabelTable) -> str:
    used = {"path": "paths", "label": "classes", "split": "splits", "group": "groups"}
    return ", ".join(
        f"{what} in {shortened([*map(visible, names)], _SHOWN)}" for kind, what in used.items() if (names := table.columns.names(kind))
    )
