"""The images in a folder, and which of them the row of a label file names."""

import posixpath
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from unicodedata import normalize

from reslight.data.image_folder.class_tree import Report, files_below, is_image
from reslight.data.image_folder.label_table import LabelTable
from reslight.data.image_folder.splits import SPLIT_FOLDERS, SPLIT_OF, SplitName
from reslight.messages import visible


class ListedImages:
    """The images in a folder, by their paths relative to it.

    Args:
        root: The folder.
        report: See `list_folder`.

    Attributes:
        root: The folder.
        names: The paths, as keys.

    Raises:
        OSError: a folder that cannot be opened, without `report`.
    """

    def __init__(self, root: Path, report: Report | None) -> None:
        self.root = root
        # A dict for its order; the folder itself is listed as "."
        self.names = {
            f"{inner}/{name}".removeprefix("./"): None
            for inner, names in files_below(root, ".", report)
            for name in names
            if is_image(name)
        }

    @cached_property
    def _alike(self) -> dict[str, str]:
        """The images by their paths in Unicode's composed form, with and without extension; not those that two images share."""
        found: dict[str, str] = {}
        for name in self.names:
            composed = normalize("NFC", name)
            for key in (composed, composed.rpartition(".")[0]):
                found[key] = "" if key in found else name
        return {key: name for key, name in found.items() if name}

    @cached_property
    def _by_last_name(self) -> dict[str, str]:
        return {name.rpartition("/")[2].rpartition(".")[0].lower(): name for name in self.names}

    @cached_property
    def split_of(self) -> Mapping[str, SplitName]:
        """The splits of the folders in it, by their names; none without a folder of training images."""
        return SPLIT_OF if any((self.root / name).is_dir() for name in SPLIT_FOLDERS["train"]) else {}

    def finder(self, base: Path, *, exact: bool = False) -> Callable[[str], str | None]:
        """Return a function that finds the image that a row names, relative to the folder; None if there is none.

        Args:
            base: The folder to which the paths of the rows are relative.
            exact: Whether a name must have its extension, its characters as on disk and no backslashes between folders.
        """
        root, start = (f"{posixpath.normpath(folder.absolute().as_posix())}/" for folder in (self.root, base))

        def find(path: str) -> str | None:
            if start == root and path in self.names:
                return path
            name = posixpath.normpath(posixpath.join(start, path)).removeprefix(root)
            if exact or name in self.names:
                return name if name in self.names else None
            name = posixpath.normpath(posixpath.join(start, path.replace("\\", "/"))).removeprefix(root)
            return self._alike.get(normalize("NFC", name))

        return find

    def base_of(self, table: LabelTable) -> Path:
        """Return the folder to which the paths of a table are relative: that which holds the first image.

        It is the folder of the file, the root or, as in datasets on Kaggle, the folder of training images in it.
        """
        folders = (self.root / name for name in SPLIT_FOLDERS["train"])
        bases = (table.file.parent, self.root, *(folder for folder in folders if folder.is_dir()))
        for exact in (True, False):
            finders = {base: self.finder(base, exact=exact) for base in bases}
            if base := next((base for path in table.paths for base, find in finders.items() if find(path)), None):
                return base
        return self.root

    def missing(self, path: str, base: Path) -> str:
        """Return what is wrong with a path that is not found, and what to do."""
        shown = visible(path, 200)
        if posixpath.isfile(base / path):  # unlike Path.is_file, it answers for names that no file can have
            if not is_image(path):
                return f"names {shown}, which has no image extension. Rename the file, or remove the row."
            return f"names {shown}, which is outside of {self.root}. Set data.root to a folder that has all images."
        last = path.replace("\\", "/").rpartition("/")[2]
        near = self._by_last_name.get((last.rpartition(".")[0] if is_image(last) else last).lower())
        what = "Add the image, or remove the row."
        if near:
            inner = next(
                (near.removesuffix(f"/{end}") for end in (path, f"{path}.{near.rpartition('.')[2]}") if near.endswith(f"/{end}")), ""
            )
            what = f"There is {visible(near, 200)}: {f'set data.root to {self.root / inner}' if inner else 'correct the path'}."
        return f"names {shown}: there is no such image in {base}. {what}"
