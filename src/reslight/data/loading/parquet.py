"""Columns of parquet files with images, and their checks."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reslight.messages import MissingPackageError, UsageError, shortened, visible
from reslight.regular_file import regular_size

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("fine_label", "label", "labels")


def shards_in(folder: Path, name: str) -> list[Path]:
    """Return the shards of a split in a folder, sorted: `NAME.parquet` and `NAME-*.parquet`, or else `NAME/*.parquet`.

    Raises:
        UsageError: missing shards, or shards of two uploads.
    """
    # The second pattern is that of the Hub's branch refs/convert/parquet.
    files = sorted(folder.glob(f"{name}[-.]*parquet")) or sorted((folder / name).glob("*.parquet"))
    _check_complete(files)
    return files


def _check_complete(files: Sequence[Path]) -> None:
    """Check shards with names such as `train-00000-of-00002.parquet` or `train-00000-of-00002-0123abcd.parquet`."""
    totals: dict[str, str] = {}
    numbers: dict[str, set[int]] = {}
    for file in files:
        if found := re.fullmatch(r"(.+)-(\d+)-of-(\d+)(-[0-9a-f]+)?\.parquet", file.name):
            stem, number, total = found[1], int(found[2]), found[3]
            if totals.setdefault(stem, total) != total or number in numbers.setdefault(stem, set()):
                raise UsageError(f"{file.parent} has shards of {stem} from two uploads, {file.name} among them. Delete the older ones.")
            numbers[stem].add(number)
    for stem, total in totals.items():
        if missing := [f"{stem}-{number:0{len(total)}}-of-{total}" for number in range(int(total)) if number not in numbers[stem]]:
            verb = "are" if len(missing) > 1 else "is"
            raise UsageError(f"{files[0].parent} is incomplete: {shortened(missing)} {verb} missing. Add what is missing.")


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """Open a shard as pyarrow's ParquetFile; its errors are translated to one line.

    Raises:
        MissingPackageError: pyarrow.
        UsageError: a damaged shard, or a pipe or a device in its place.
    """
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"{file} needs the package pyarrow, which is not installed. Run `pip install pyarrow`.") from error
    try:
        regular_size(file)
        with parquet.ParquetFile(file, page_checksum_verification=True) as shard:
            yield shard
    except (arrow.ArrowException, OSError) as error:
        reason = visible(str(error).partition("\n")[0], 200)
        raise UsageError(f"{file} is damaged or cut short ({reason}). Delete it, and download it again.") from error


def column_of(file: Path | str, names: Sequence[str], candidates: Sequence[str]) -> str:
    """Return the first of the candidates that a shard has.

    Raises:
        UsageError: a shard without any of them.
    """
    found = [name for name in candidates if name in names]
    if not found:
        columns = shortened([visible(name) for name in names], 20)
        raise UsageError(f"{file} has the columns {columns}: one of them must be named {' or '.join(candidates)}. Rename it.")
    return found[0]


def column_of_kind(file: Path | str, schema: Any, candidates: Sequence[str], fits: Callable[[Any], bool], required: str) -> str:
    """Return the column with one of these names, or else the only column that fits.

    Args:
        file: The shard, for messages.
        schema: Arrow schema of the shard.
        candidates: The names.
        fits: Returns whether a column of an Arrow type fits.
        required: The required type, for messages.

    Raises:
        UsageError: a shard without such a column, or a column of such a name that does not fit.
    """
    fitting = [name for name, kind in zip(schema.names, schema.types, strict=True) if fits(kind)]
    if len(fitting) == 1 and not set(candidates) & set(schema.names):
        return str(fitting[0])
    name = column_of(file, schema.names, candidates)
    if name not in fitting:
        raise UsageError(f"{file} has {schema.field(name).type} in the column {name}: {required}.")
    return name


def holds_images(kind: Any) -> bool:
    """Return whether a column of this Arrow type has bytes, or the Hub's structs with bytes."""
    from pyarrow import types

    if types.is_struct(kind):
        place = kind.get_field_index("bytes")
        kind = kind.field(place).type if place >= 0 else kind
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def path_in_struct(kind: Any) -> bool:
    """Return whether a column of this Arrow type has the Hub's structs with the path of an image."""
    from pyarrow import types

    return bool(types.is_struct(kind) and kind.get_field_index("path") >= 0)


def has_only_paths(shard: Any) -> bool:
    """Return whether a shard, as `opened` yields it, has the paths of images instead of the images."""
    from pyarrow import types

    name = next((one for one in IMAGE_COLUMNS if one in shard.schema_arrow.names), None)
    if name is None or (holds_images(kind := shard.schema_arrow.field(name).type) and not path_in_struct(kind)):
        return False
    if not holds_images(kind):
        return bool(types.is_string(kind) or types.is_large_string(kind) or path_in_struct(kind))
    footer = shard.metadata
    leaf = next(place for place in range(footer.num_columns) if footer.schema.column(place).path == f"{name}.bytes")
    chunks = [footer.row_group(group).column(leaf) for group in range(footer.num_row_groups)]
    return footer.num_rows > 0 and all(one.statistics is not None and one.statistics.null_count == one.num_values for one in chunks)


def names_of(file: Path | str, metadata: dict[bytes, bytes], column: str) -> list[str] | None:
    """Return the names of the classes, or None if the shard's schema has none.

    Raises:
        UsageError: a schema with something else instead of names.
    """
    try:
        info = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {})
        feature = info.get("features", {}).get(column, {})
        feature = feature[0] if isinstance(feature, list) else feature.get("feature", feature)  # of a list of classes
        names = feature.get("names")
    except (ValueError, AttributeError, IndexError) as error:
        raise UsageError(f"{file} has a schema whose class names cannot be read ({visible(error)}). Download it again.") from error
    return list(map(str, names)) if names else None
