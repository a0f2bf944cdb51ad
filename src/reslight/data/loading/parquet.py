"""Columns of parquet files that hold images, and their checks."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reslight.messages import UsageError

IMAGE_COLUMNS = ("img", "image")


LABEL_COLUMNS = ("fine_label", "label", "labels")


def check_numbers(files: Sequence[Path]) -> None:
    """All of `train-00000-of-00002.parquet` and its like."""
    for file in files:
        if found := re.fullmatch(r"(.+)-(\d+)-of-(\d+)\.parquet", file.name):
            names = [f"{found[1]}-{number:0{len(found[2])}}-of-{found[3]}.parquet" for number in range(int(found[3]))]
            if missing := [name for name in names if not (file.parent / name).is_file()]:
                raise UsageError(f"{file.parent} lacks {', '.join(missing)}; put what is missing there too")


def check_one_set(files: Sequence[Path]) -> None:
    """All of `train-00000-of-00002-0123456789abcdef.parquet` and its like too, and each once: what an older upload left is no more of it.

    Raises:
        ValueError: One is missing, or they are of two sets.
    """
    totals: dict[str, str] = {}
    there: dict[str, set[int]] = {}
    for file in files:
        if found := re.fullmatch(r"(.+)-(\d+)-of-(\d+)(-[0-9a-f]+)?\.parquet", file.name):
            stem, number, total = found[1], int(found[2]), found[3]
            if totals.setdefault(stem, total) != total or number in there.setdefault(stem, set()):
                raise UsageError(f"{file} and others of {stem} there are of two sets of shards; delete the older ones")
            there[stem].add(number)
    for stem, total in totals.items():
        if missing := [f"{stem}-{number:0{len(total)}}-of-{total}" for number in range(int(total)) if number not in there[stem]]:
            raise UsageError(f"{files[0].parent} lacks {', '.join(missing)}; put what is missing there too")


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """A shard as pyarrow's ParquetFile; whatever goes wrong with it inside comes out as a line.

    Raises:
        ValueError: It is damaged, or there is nothing to read it with.
    """
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise UsageError(f"{file} needs pyarrow to be read; `pip install pyarrow`") from error
    try:
        with parquet.ParquetFile(file) as shard:
            yield shard
    except (arrow.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"{file} is damaged or was cut short ({reason}); delete it, and get it again") from error


def column_of(file: Path, names: Sequence[str], candidates: Sequence[str]) -> str:
    """The first of the candidates that a shard has.

    Raises:
        ValueError: It has none.
    """
    found = [name for name in candidates if name in names]
    if not found:
        raise UsageError(f"{file} has the columns {', '.join(names)}; one of them must be called {' or '.join(candidates)}")
    return found[0]


def column_of_kind(file: Path, schema: Any, called: Sequence[str], fits: Callable[[Any], bool], must: str) -> str:
    """The column of one of these names, or else the only one that fits.

    Args:
        file: The shard, for messages.
        schema: Its Arrow schema.
        called: The names.
        fits: Whether a column of this Arrow type does.
        must: What it has to be, for messages.

    Raises:
        ValueError: There is none, or what is called so does not fit.
    """
    fitting = [name for name, kind in zip(schema.names, schema.types, strict=True) if fits(kind)]
    if len(fitting) == 1 and not set(called) & set(schema.names):
        return str(fitting[0])
    name = column_of(file, schema.names, called)
    if name not in fitting:
        raise UsageError(f"{file} has {schema.field(name).type} in the column {name}; {must}")
    return name


def holds_images(kind: Any) -> bool:
    """Whether a column of this Arrow type is of bytes, or of the Hub's structs with bytes."""
    from pyarrow import types

    if types.is_struct(kind):
        place = kind.get_field_index("bytes")
        kind = kind.field(place).type if place >= 0 else kind
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def names_of(file: Path, metadata: dict[bytes, bytes], column: str) -> list[str] | None:
    """Names of the classes, where a shard's schema has them.

    Raises:
        ValueError: It has something else in their place.
    """
    try:
        info = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {})
        names = info.get("features", {}).get(column, {}).get("names")
    except (ValueError, AttributeError) as error:
        raise UsageError(f"{file} has a schema whose class names cannot be read ({error}); get it again") from error
    return list(map(str, names)) if names else None
