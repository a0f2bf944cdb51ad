"""The label files of a folder of images: the one that the user names, or those that are found beside the images."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reslight.data.image_folder.label_sets import names_in
from reslight.data.image_folder.label_table import LabelColumns, LabelTable, has_usual_columns, read_label_table
from reslight.data.image_folder.splits import SPLIT_OF, SplitName
from reslight.messages import UsageError, shortened

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Names of label files that are found beside the images, as in the Hub's ImageFolder."""


@dataclass(frozen=True)
class LabelFiles:
    """The label files of a folder.

    Attributes:
        root: The folder of the images.
        tables: The files that were read; beside each the split of its images, if its place determines it.
        given: Whether the user named the file.
    """

    root: Path
    tables: Sequence[tuple[LabelTable, SplitName | None]]
    given: bool = False

    @property
    def columns(self) -> LabelColumns:
        """The names of the columns of the first file."""
        return self.tables[0][0].columns

    @property
    def several(self) -> bool:
        """Whether an image may have several classes, or none."""
        return any(table.several for table, _ in self.tables)

    def classes_of(self, label: str) -> tuple[str, ...]:
        """Return the classes of an image."""
        return names_in(label) if self.several else (label,)

    def __str__(self) -> str:
        """Return the paths of the files, for messages."""
        return shortened([table.file for table, _ in self.tables])


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Have Python collect no garbage: it would look at all rows that were read again and again, half of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@without_garbage_collection()
def find_label_files(root: Path, labels: str | None, columns: LabelColumns = LabelColumns()) -> LabelFiles | None:
    """Read the label files of a folder: the given one, or those named `metadata` in the folder or in the folders of its splits.

    Args:
        root: The folder of the images.
        labels: The file, in the current folder or in `root`; None for those that are found.
        columns: The names of its columns, where they are not the usual ones.

    Returns:
        The files; None if none is given and none is found.

    Raises:
        OSError: a file that is missing or cannot be read.
        UsageError: a file that is no label file.
    """
    if labels is not None:
        if not labels.strip():
            raise UsageError("data.labels is empty: it must be a label file, such as labels.csv. Set it, or use null.")
        if not root.is_dir():
            raise FileNotFoundError(f"data.root is {root}: there is no such folder. Set it to the folder of your images.")
        path = Path(labels).expanduser()
        found = next((one for one in (path, root / path) if one.exists()), None)
        if found is None:
            raise FileNotFoundError(f"data.labels is {labels}: there is no such file, and none in {root}. Set it to your label file.")
        return LabelFiles(root, [(read_label_table(found, columns), None)], given=True)
    if not root.is_dir():
        return None
    folders: dict[str, SplitName | None] = {"": None, **SPLIT_OF}
    tables = [
        (read_label_table(file, columns), split)
        for name, split in folders.items()
        if (file := next((one for kind in METADATA if (one := root / name / kind).is_file()), None)) and has_usual_columns(file, columns)
    ]
    return LabelFiles(root, tables) if tables else None
