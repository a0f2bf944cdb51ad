"""What lies in the folders of a set of images, whatever state it is in: the half of `check` that opens no image."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reslight.data.check.problems import Problem
from reslight.data.image_folder.class_tree import is_image, shown
from reslight.data.image_folder.hub_dataset import is_remote
from reslight.data.image_folder.splits import SPLIT_FOLDERS, SplitName
from reslight.data.imagenet.imagenet import KAGGLE, Layout, label_places, labelled
from reslight.data.imagenet.label_file import META, NAMES
from reslight.data.imagenet.synsets import SYNSET
from reslight.data.loading.encoded import Files, Images
from reslight.messages import UsageError

_SHARDS = ("*.parquet", "*/*.parquet", "*/*/*.parquet")


@dataclass(frozen=True)
class Group:
    """The images of a part."""

    part: SplitName
    images: Images
    classes: Sequence[str]
    labels: Sequence[int]
    """For each image the number of its class among `classes`; -1 where it is not known."""


@dataclass(frozen=True)
class _Found:
    """What a folder holds: for each class its images; and beside them images, and what is none."""

    classes: Mapping[str, Sequence[str]]
    loose: Sequence[str]
    others: Sequence[str]

    @property
    def has_images(self) -> bool:
        """Whether any class has one."""
        return any(self.classes.values())


class Survey:
    """What there is, and what is wrong with it.

    Attributes:
        groups: The images, by part.
        problems: What is wrong.
    """

    def __init__(self, root: str) -> None:
        """Look through a set; no image is opened.

        Args:
            root: Folder of the images, or what else `Folder` takes.

        Raises:
            OSError: There is none.
            ValueError: A set that is no folder cannot be used.
        """
        self.groups: list[Group] = []
        self.problems: list[Problem] = []
        if not root.strip():
            raise UsageError("the root is empty; give the folder of your images")
        self._root = Path(root).expanduser()
        if not self._root.is_dir():
            if not is_remote(root):
                raise FileNotFoundError(f"there is no folder {root}; give the folder of your images")
            self._add_shards(root)
            return
        base, folders = self._parts()
        if folders:
            self._add_folders(base, folders)
        elif any(next(self._root.glob(form), None) for form in _SHARDS):
            try:
                self._add_shards(root)
            except (OSError, ValueError) as error:
                self._note("layout", root, f"cannot be used: {error}")
        else:
            self._add_folders(self._root, {"train": self._root})
        if not self.groups and not self.problems:
            self._note("layout", root, "holds no images in folders of classes")

    def _note(self, kind: str, path: str | Path, text: str) -> None:
        self.problems.append(Problem(kind, str(path), text))

    def _parts(self) -> tuple[Path, dict[SplitName, Path]]:
        """Where the folders of the parts are, and which; none where they hold shards."""
        for base in (self._root, self._root / KAGGLE):
            there: dict[SplitName, Path] = {}
            for part, names in SPLIT_FOLDERS.items():
                if folder := next((base / name for name in names if (base / name).is_dir()), None):
                    there[part] = folder
            if there and not any(next(folder.glob("*.parquet"), None) for folder in there.values()):
                return base, there
        return self._root, {}

    def _add_shards(self, root: str) -> None:
        from reslight.data.image_folder.folder import find_image_set

        found = find_image_set(root)
        for part in (part for part in SPLIT_FOLDERS if part in found.splits):
            self.groups.append(Group(part, found.splits[part].images, found.classes, found.splits[part].labels.tolist()))

    def _add_folders(self, base: Path, folders: Mapping[SplitName, Path]) -> None:
        found = {part: self._look(folder) for part, folder in folders.items()}
        classes = sorted(found["train"].classes) if "train" in found else []
        published = any(SYNSET.fullmatch(name) for name in classes)
        for part, folder in folders.items():
            here = found[part]
            if published and part != "train" and here.loose and not here.has_images:
                self._add_published(part, Layout(folders["train"], folder, label_places(self._root, folder)), here, classes)
                continue
            if part != "train" and classes:
                self._compare(folder, here, classes, folders["train"])
            self._note_beside(here.loose, here.others)
            self._add_classes(part, here)
        if base not in folders.values():
            self._note_beside([file.path for file in self._open(base)[1] if is_image(file.name)], [])

    def _add_classes(self, part: SplitName, found: _Found) -> None:
        names = sorted(found.classes)
        rows = sorted((path, number) for number, name in enumerate(names) for path in found.classes[name])
        if rows:
            self.groups.append(Group(part, Files([Path(path) for path, _ in rows]), names, [number for _, number in rows]))

    def _add_published(self, part: SplitName, layout: Layout, found: _Found, classes: Sequence[str]) -> None:
        """ImageNet's validation images in one folder, with a label file; or its test images, which have none."""
        images = [Path(path) for path in found.loose]
        labels: Sequence[int] = [-1] * len(images)
        of_labels = {*NAMES, META} if part == "val" else set()
        if part == "val":
            try:
                tree = labelled(layout, images, classes)
            except (OSError, ValueError) as error:
                self._note("labels", images[0].parent, f"has images without a class: {error}")
            else:
                labels = tree.labels
                of_labels.add(tree.others[0].name)
        self._note_beside([], [path for path in found.others if Path(path).name not in of_labels])
        self.groups.append(Group(part, Files(images), classes, labels))

    def _compare(self, folder: Path, found: _Found, classes: Sequence[str], train: Path) -> None:
        """The classes of a part with those of the training images."""
        if not found.classes:
            self._note("layout", folder, "holds no folders of classes")
            return
        for name in found.classes.keys() - set(classes):
            self._note("unknown class", folder / name, f"is a class that {train} has not")
        for name in set(classes) - found.classes.keys():
            self._note("empty class", folder / name, f"is not there, though {train / name} is")

    def _note_beside(self, images: Sequence[str], others: Sequence[str]) -> None:
        for path in images:
            self._note("misplaced", path, "is in no class's folder, and left out")
        for path in others:
            self._note("other", path, "is not called as an image is, and left out")

    def _look(self, folder: Path) -> _Found:
        """Look through a folder of classes."""
        folders, beside = self._open(folder)
        classes: dict[str, list[str]] = {}
        for entry in folders:
            noted = len(self.problems)
            files = list(self._files_below(entry.path))
            classes[entry.name] = [file.path for file in files if is_image(file.name)]
            sure = not any(problem.kind in ("folder", "link") for problem in self.problems[noted:])
            if not classes[entry.name] and sure:
                self._note("empty class", entry.path, "has no image")
            self._note_beside([], [file.path for file in files if not is_image(file.name)])
        loose = [file.path for file in beside if is_image(file.name)]
        return _Found(classes, loose, [file.path for file in beside if not is_image(file.name)])

    def _files_below(self, folder: str) -> Iterator[os.DirEntry[str]]:
        """All files, in folders below too; links to folders are followed, but none twice."""
        pending, seen = [folder], {os.path.realpath(folder)}
        while pending:
            folders, files = self._open(pending.pop())
            yield from files
            for entry in folders:
                if (real := os.path.realpath(entry.path)) not in seen:
                    seen.add(real)
                    pending.append(entry.path)

    def _open(self, folder: str | Path) -> tuple[list[os.DirEntry[str]], list[os.DirEntry[str]]]:
        """The folders and the files in a folder; what is neither is noted."""
        folders, files = [], []
        try:
            entries = shown(Path(folder))
        except OSError as error:
            self._note("folder", folder, f"cannot be opened: {error.strerror or error}")
            return [], []
        for entry in entries:
            if _is(entry, os.DirEntry.is_dir):
                folders.append(entry)
            elif _is(entry, os.DirEntry.is_file):
                files.append(entry)
            elif entry.is_symlink():
                self._note("link", entry.path, "links to what is not there")
            else:
                self._note("other", entry.path, "is neither file nor folder, and cannot be read")
        return folders, files


def _is(entry: os.DirEntry[str], what: Callable[[os.DirEntry[str]], bool]) -> bool:
    try:
        return what(entry)
    except OSError:  # links that go round in a circle
        return False
