"""The half of `check` that opens no image: which images a dataset has, and which problems its folders have."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from torch import Tensor

from reslight.data.check.problems import Problem
from reslight.data.image_folder.class_tree import ClassTree, class_name, is_foreign, is_image, list_folder, read_tree
from reslight.data.image_folder.file_paths import FilePaths
from reslight.data.image_folder.hub_dataset import is_remote
from reslight.data.image_folder.image_set import find_image_set
from reslight.data.image_folder.label_files import find_label_files
from reslight.data.image_folder.label_sets import joined, names_in, shown
from reslight.data.image_folder.label_table import LabelColumns
from reslight.data.image_folder.labelled_folder import read_labelled_folder
from reslight.data.image_folder.saved_dataset import is_saved
from reslight.data.image_folder.shards import label_files_of_shards
from reslight.data.image_folder.splits import SPLIT_FOLDERS, SplitName, without_unlabelled
from reslight.data.imagenet.imagenet import KAGGLE, Layout, label_folders, tree_from_label_file
from reslight.data.imagenet.label_file import META, NAMES
from reslight.data.imagenet.synsets import SYNSET
from reslight.data.loading.encoded import Files, Images
from reslight.messages import UsageError, data_root_called, is_label

_SHARDS = ("*.parquet", "*/*.parquet", "*/*/*.parquet")


@dataclass(frozen=True)
class Group:
    """The images of a split."""

    split: SplitName
    images: Images
    classes: Sequence[str]
    labels: Sequence[int]
    """The class number of each image; -1 where it is unknown."""
    several: bool = False
    """Whether an image may have several classes: each of `classes` is then the text of all classes of an image, see `label_sets`."""

    @classmethod
    def of_hot(cls, split: SplitName, images: Images, names: Sequence[str], labels: Tensor) -> Self:
        """Return the images of a split with several classes each.

        Args:
            split: The split.
            images: The images.
            names: Name of each class.
            labels: uint8 `(N, num_classes)`, see `loading.labels`.
        """
        texts = [joined(names[number] for number in row.nonzero().flatten().tolist()) for row in labels]
        classes = sorted(set(texts))
        numbers = {text: number for number, text in enumerate(classes)}
        return cls(split, images, classes, [numbers[text] for text in texts], several=True)

    def per_class(self) -> Counter[str]:
        """Return the number of images of each class; empty if no class is known."""
        counts = Counter(number for number in self.labels if number >= 0)
        if not self.several:
            return Counter({name: counts[number] for number, name in enumerate(self.classes)}) if counts else Counter()
        found: Counter[str] = Counter()
        for number, text in enumerate(self.classes):
            found.update(dict.fromkeys(names_in(text), counts[number]))
        return Counter(dict(sorted(found.items())))

    def class_of(self, number: int) -> str | None:
        """Return the class of an image, or its classes in words; None if it is unknown."""
        label = self.labels[number]
        return None if label < 0 else shown(self.classes[label]) if self.several else self.classes[label]


class Survey:
    """The images of a dataset, and the problems of its folders.

    Attributes:
        groups: The images, by split.
        problems: The problems of folders.
        label_problems: The problems of label files, in their order.
    """

    def __init__(self, root: str, labels: str | None = None, columns: LabelColumns = LabelColumns()) -> None:
        """Read the folders of a dataset; no image is opened.

        Args:
            root: Folder of the images, or anything else that `Folder` reads.
            labels: The label file; None for `metadata.csv` and the like, if there is one.
            columns: The columns of the label file, where their names are not the usual ones.

        Raises:
            OSError: a missing dataset or label file.
            UsageError: an empty root, or a dataset of the Hub that cannot be used.
        """
        self.groups: list[Group] = []
        self.problems: list[Problem] = []
        self.label_problems: list[Problem] = []
        if not root.strip():
            raise UsageError("ROOT is empty: it must be the folder of your images, or OWNER/DATASET on the Hub. Set it.")
        self._root = Path(root).expanduser()
        if not self._root.is_dir():
            if not is_remote(root):
                raise FileNotFoundError(f"ROOT is {root}: there is no such folder. Set it to the folder of your images.")
            self._add_shards(root)
            return
        if any(next(self._root.glob(f"{inner}index.json"), None) and next(self._root.glob(f"{inner}*.bin"), None) for inner in ("", "*/")):
            raise UsageError(f"ROOT is {root}: it has chunks of litdata, which are not checked. Give the images that they were made from.")
        if self._has_label_files(labels, columns):
            return
        base, folders = (self._root, {}) if is_saved(self._root) else self._split_folders()
        if folders:
            self._add_folders(base, folders)
        elif is_saved(self._root) or any(next(self._root.glob(pattern), None) for pattern in _SHARDS):
            try:
                self._add_shards(root)
            except (OSError, UsageError) as error:
                own = f"ROOT is {root}: it "
                text = str(error).replace("Set it to", "Give")
                self._add_problem("layout", root, text.removeprefix(own) if text.startswith(own) else f"cannot be used: {error}")
        else:
            self._add_folders(self._root, {"train": self._root})
        if not self.groups and not self.problems:
            self._add_problem("layout", root, "has no images in folders of classes. Put CLASS/IMAGE there.")

    def _has_label_files(self, labels: str | None, columns: LabelColumns) -> bool:
        """Add the images and the problems of label files; return whether there are any."""
        try:
            with data_root_called("ROOT"):
                files = find_label_files(self._root, labels, columns)
        except UsageError as error:
            self.label_problems.append(Problem("labels", "", str(error).replace("data.labels_columns.", "--columns ")))
            return True
        except FileNotFoundError as error:
            raise FileNotFoundError(str(error).replace("data.labels is", "--labels is")) from error
        if files is None:
            with suppress(UsageError):  # what is wrong with the shards is found when they are read
                files = label_files_of_shards(self._root, columns)
        if files is None:
            return False
        found = read_labelled_folder(files, self._report)
        if len(found.faults) > 1 and not found.splits:  # one mistake, such as another folder, would be as many lines as there are rows
            first = found.faults[0]
            text = first.text.replace("set data.root to", "give the folder").replace("Set data.root to", "Give")
            self.label_problems.append(
                Problem("labels", first.path, f"{text} None of the other {len(found.faults) - 1:,} rows fits, either.")
            )
            return True
        self.label_problems += [Problem("labels", fault.path, fault.text) for fault in (*found.faults, *found.repeated)]
        self.label_problems += [Problem("group", fault.path, fault.text) for fault in found.shared_groups]
        for name in found.unlisted:
            self._add_problem("unlisted", self._root / name, f"has no row in {files} and is ignored. Add one, or remove the image.")
        if found.unlabelled:
            self.groups.append(Group("test", Files(FilePaths.below(self._root, found.unlabelled)), (), [-1] * len(found.unlabelled)))
        classes = sorted({image.label for images in found.splits.values() for _, image in images})
        numbers = {name: number for number, name in enumerate(classes)}
        for split, images in found.splits.items():
            paths = FilePaths.below(self._root, (image.path for _, image in images))
            of_images = [numbers[image.label] for _, image in images]
            self.groups.append(Group(split, Files(paths), classes, of_images, several=files.several))
        return True

    def _add_problem(self, kind: str, path: str | Path, text: str) -> None:
        self.problems.append(Problem(kind, str(path), text))

    def _split_folders(self) -> tuple[Path, dict[SplitName, Path]]:
        """Find the folders of the splits and the folder that has them; no splits where they hold shards."""
        for base in (self._root, self._root / KAGGLE):
            found: dict[SplitName, Path] = {}
            for split, names in SPLIT_FOLDERS.items():
                if folder := next((base / name for name in names if (base / name).is_dir()), None):
                    found[split] = folder
            if found and not any(next(folder.glob("*.parquet"), None) for folder in found.values()):
                return base, found
        return self._root, {}

    def _add_shards(self, root: str) -> None:
        with data_root_called("ROOT"):
            found = find_image_set(root)
        for split in SPLIT_FOLDERS:
            if split in found.splits:
                images, labels = found.splits[split].images, found.splits[split].labels
                if labels.ndim == 2:
                    self.groups.append(Group.of_hot(split, images, found.classes, labels))
                else:
                    self.groups.append(Group(split, images, found.classes, labels.tolist()))

    def _add_folders(self, base: Path, folders: Mapping[SplitName, Path]) -> None:
        trees = {split: self._read(folder) for split, folder in folders.items()}
        classes = trees["train"].classes if "train" in trees else ()
        is_imagenet = any(SYNSET.fullmatch(name) for name in classes)
        if not is_imagenet:
            labelled, unlabelled = without_unlabelled(trees)
            if unlabelled:
                self._add_ignored([], trees["test"].others)
                trees = dict(labelled)
                self.groups.append(Group("test", unlabelled.images, classes, unlabelled.labels.tolist()))
        for split, tree in trees.items():
            if is_imagenet and split != "train" and tree.misplaced and not tree.paths:
                self._add_unsorted(split, Layout(folders["train"], tree.root, label_folders(self._root, tree.root)), tree, classes)
                continue
            if split != "train" and classes:
                self._compare(tree, trees["train"])
            self._add_ignored(tree.misplaced, tree.others)
            if tree.paths:
                self.groups.append(Group(split, Files(tree.paths), tree.classes, tree.labels))
        if base not in folders.values():
            self._add_ignored([Path(entry.path) for entry in list_folder(base, self._report)[1] if is_image(entry.name)], [])

    def _read(self, folder: Path) -> ClassTree:
        """Read a folder of classes, and report its problems."""
        tree = read_tree(folder, self._report)
        reported = [Path(problem.path) for problem in self.problems if problem.kind in ("folder", "link")]
        for name in tree.classes:
            if not is_label(name):
                self._add_problem("name", _folder_of(tree, name), "must be one line of printable text. Rename the folder.")
        for name in tree.empty:
            path = _folder_of(tree, name)
            if not any(other.is_relative_to(path) for other in reported):  # its images may be behind that problem
                self._add_problem("empty class", path, "has no images. Add some, or remove the folder.")
        return tree

    def _report(self, path: Path, error: OSError | None) -> None:
        if error:
            self._add_problem("folder", path, f"cannot be opened: {error.strerror or error}. Change its permissions.")
        elif path.is_symlink() and not path.exists():
            self._add_problem("link", path, "links to a missing file. Correct the link, or remove it.")
        else:
            self._add_problem("special", path, "is neither a file nor a folder. Remove it.")

    def _add_unsorted(self, split: SplitName, layout: Layout, tree: ClassTree, classes: Sequence[str]) -> None:
        """Add ImageNet's validation images, which have a label file, or its test images, which have no labels."""
        labels: Sequence[int] = [-1] * len(tree.misplaced)
        label_files = {*NAMES, META} if split == "val" else set()
        if split == "val":
            try:
                found = tree_from_label_file(layout, tree.misplaced, classes)
            except (OSError, UsageError) as error:
                self._add_problem("labels", tree.root, f"has images without a class: {error}")
            else:
                labels = found.labels
                label_files.add(found.others[0].name)
        self._add_ignored([], [path for path in tree.others if path.name not in label_files])
        self.groups.append(Group(split, Files(tree.misplaced), classes, labels))

    def _compare(self, tree: ClassTree, train: ClassTree) -> None:
        """Compare the classes of a split with those of training."""
        if not tree.classes:
            self._add_problem("layout", tree.root, "has no folders of classes. Put CLASS/IMAGE there.")
            return
        for name in set(tree.classes) - set(train.classes):
            text = f"is a class that is missing in {train.root}. Add its images there, or remove the folder."
            self._add_problem("unknown class", _folder_of(tree, name), text)
        for name in set(train.classes) - set(tree.classes):
            self._add_problem(
                "empty class", tree.root / name, f"is missing, but {_folder_of(train, name)} exists. Add images of this class."
            )

    def _add_ignored(self, images: Sequence[Path], others: Sequence[Path]) -> None:
        for path in images:
            self._add_problem("misplaced", path, "is not in the folder of a class and is ignored. Move it there.")
        for path in others:
            if is_foreign(path.name):
                self._add_problem("other", path, "has a format that Pillow does not read, and is ignored. Convert it to JPEG.")
            elif path.parent == self._root and path.suffix.lower() in (".csv", ".tsv", ".jsonl"):
                self._add_problem("other", path, f"is no image and is ignored. If it has the labels, give --labels {path}; or remove it.")
            else:
                self._add_problem("other", path, "has no image extension and is ignored. Rename or remove it.")


def _folder_of(tree: ClassTree, name: str) -> Path:
    """Return the folder of a class by its name on disk, whose accents may be decomposed."""
    return next(Path(entry.path) for entry in list_folder(tree.root)[0] if class_name(entry.name) == name)
