"""Datasets that `save_to_disk` of the Hugging Face library `datasets` wrote: Arrow files, which pyarrow reads. No code of theirs is run."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from reslight.data.image_folder.row_columns import find_columns, numbered, row_info
from reslight.data.image_folder.rows import Rows, image_set_of_rows, known_splits
from reslight.data.image_folder.splits import ImageSet, SplitName
from reslight.data.loading.content import ends_of, sampled_content
from reslight.messages import MissingPackageError, UsageError, visible
from reslight.regular_file import read_regular, regular_size

_DICT, _STATE, _INFO = "dataset_dict.json", "state.json", "dataset_info.json"
_LARGEST = 2**24
"""Bytes of a JSON file that are read at most."""


@dataclass(frozen=True, eq=False)
class SavedImages:
    """The images in Arrow files, which are memory-mapped."""

    files: Sequence[Path]
    column: str
    """The column of the images."""

    @cached_property
    def cells(self) -> Any:
        """The bytes of the images, an Arrow ChunkedArray."""
        from pyarrow import compute, types

        column = _table(self.files, [self.column]).column(0)
        return compute.struct_field(column, "bytes") if types.is_struct(column.type) else column

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum([0, *map(len, self.cells.chunks)])

    def __reduce__(self) -> tuple[type["SavedImages"], tuple[Sequence[Path], str]]:
        """Send the paths alone to another process, which maps the files itself."""
        return type(self), (self.files, self.column)

    def __len__(self) -> int:
        """Return the number of images."""
        return int(self._starts[-1])

    def read(self, number: int) -> bytearray:
        """Return the bytes of an image; empty if its row has none."""
        chunk = int(np.searchsorted(self._starts, number, side="right")) - 1
        data = self.cells.chunk(chunk)[int(number - self._starts[chunk])].as_buffer()
        return bytearray() if data is None else bytearray(data)

    def name(self, number: int) -> str:
        """Return the name of an image in messages: its row."""
        return f"row {number} of {visible(self.files[0].parent, 1000)}"

    def content(self) -> str:
        """Return a sha256 over a sample of the images, see `sampled_content`."""
        return sampled_content(len(self), lambda number: ends_of(self.read(number)))


def is_saved(root: Path) -> bool:
    """Return whether a folder is a dataset that `save_to_disk` wrote."""
    return (root / _DICT).is_file() or ((root / _STATE).is_file() and (root / _INFO).is_file())


def image_set_saved(root: Path, *, partial: bool = False) -> ImageSet:
    """Return the images of a saved Dataset, or of the splits of a saved DatasetDict.

    Args:
        root: The folder.
        partial: Whether training images may be missing: then the classes may be few.

    Raises:
        MissingPackageError: pyarrow.
        OSError: a file that cannot be read.
        UsageError: a folder that is damaged, or columns that do not fit.
    """
    folders = {"train": root}
    if (root / _DICT).is_file():
        folders = {name: root / name for name in _names(root / _DICT, _json(root / _DICT).get("splits"))}
    warnings, known = known_splits(folders, str(root))
    files = {split: _files_of(folder) for split, (_, folder) in known.items()}
    columns = {split: find_columns(known[split][1], _table(of_split, None).schema, texts=True) for split, of_split in files.items()}
    tables = {split: _table(files[split], [one for one in (used.label, used.group) if one]) for split, used in columns.items()}
    names, labels = numbered({split: tables[split][used.label] for split, used in columns.items()}, str(root), partial=partial)
    splits: dict[SplitName, Rows] = {}
    for split, used in columns.items():
        folder, images = str(known[split][1]), SavedImages(files[split], used.image)
        paths = _paths(images) if used.has_paths else None
        if images.cells.null_count == len(images) and paths is not None and paths.null_count < len(images):
            raise UsageError(f"{folder} has the paths of images, but not the images. Load it with `datasets`, and save it again.")
        groups = tables[split][used.group] if used.group else None
        info = row_info(folder, replace(used, names=used.names or names), labels[split], paths, groups)
        splits[split] = Rows(images, info, _sizes(images), folder)
    found = image_set_of_rows(splits, str(root), partial=partial)
    return replace(found, warnings=(*warnings, *found.warnings))


def _paths(images: SavedImages) -> Any:
    from pyarrow import compute

    return compute.struct_field(_table(images.files, [images.column]).column(0), "path")


def _sizes(images: SavedImages) -> np.ndarray:
    from pyarrow import compute

    return np.asarray(compute.binary_length(images.cells).fill_null(0).to_numpy(), dtype=np.int64)


def _files_of(folder: Path) -> list[Path]:
    """Return the Arrow files of a saved dataset.

    Raises:
        OSError: a file that cannot be read.
        UsageError: a damaged folder.
    """
    listed = _json(folder / _STATE).get("_data_files")
    named = [one.get("filename") if isinstance(one, dict) else None for one in listed] if isinstance(listed, list) else None
    return [folder / name for name in _names(folder / _STATE, named)]


def _names(file: Path, names: Any) -> list[str]:
    """Check names of files or folders that a file lists: they must be in its folder.

    Raises:
        UsageError: no names, or others.
    """
    if not isinstance(names, list) or not names or not all(isinstance(one, str) and one == Path(one).name for one in names):
        raise UsageError(f"{file} is damaged: it must list names in its folder. Save the dataset again.")
    return names


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(bytes(read_regular(file, _LARGEST)))
    except FileNotFoundError:
        raise UsageError(f"{file.parent} is incomplete: {file.name} is missing. Save the dataset again.") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} is damaged ({visible(error)}). Save the dataset again.") from error
    return content if isinstance(content, dict) else {}


def _table(files: Sequence[Path], columns: Sequence[str] | None) -> Any:
    """Return the rows of Arrow files, memory-mapped: these columns, every offset of which is checked; or all, unchecked, if None.

    Raises:
        MissingPackageError: pyarrow.
        UsageError: a file that is missing or damaged.
    """
    try:
        import pyarrow as arrow
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"{files[0]} needs the package pyarrow, which is not installed. Run `pip install pyarrow`.") from error
    tables = []
    for file in files:
        try:
            regular_size(file)
            table = arrow.ipc.open_stream(arrow.memory_map(str(file))).read_all()
            if columns is not None:
                table = table.select(columns)
                table.validate(full=True)  # the offsets in a damaged file may point anywhere
        except FileNotFoundError:
            raise UsageError(f"{file.parent} is incomplete: {file.name} is missing. Save the dataset again.") from None
        except (arrow.ArrowException, OSError, KeyError) as error:
            reason = visible(str(error).partition("\n")[0], 200)
            raise UsageError(f"{file} is damaged or cut short ({reason}). Save the dataset again.") from error
        tables.append(table)
    try:
        return arrow.concat_tables(tables)
    except arrow.ArrowException as error:
        raise UsageError(f"{files[0].parent} has files with different columns. Save the dataset again.") from error
