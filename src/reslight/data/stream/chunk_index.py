"""`ChunkIndex`: what litdata's `index.json` says of a split, and `Description`, which `reslight data pack` adds for the whole dataset."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reslight.messages import UsageError, shortened, unprintable, visible

INDEX = "index.json"
DESCRIPTION = "reslight.json"
IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "pixels", "0")
LABEL_NAMES = ("label", "labels", "fine_label", "class", "cls", "target", "1")
"""Usual names of the fields, of which the first is used; in a pair, the image is the first."""
ENCODED = ("jpeg", "image", "bytes", "tifffile", "file")
ARRAYS = ("pil", "numpy", "tensor")
LABELS = ("int", "str", "numpy", "tensor")
"""litdata's names of the formats that a field of images, or of labels, may have. No others are read: a pickled field could run code."""
_LOADER = "PyTreeLoader"
_DICTS, _LISTS = ("builtins.dict", "collections.OrderedDict"), ("builtins.list", "builtins.tuple")
"""Types of items. litdata imports any module that an index names in one of another type."""
_LARGEST = 2**40
"""Images, or bytes, of a chunk at most."""
_IN_CHUNKS = ("batch", "sample")
"""Levels of compression within a chunk, which litdata reads as it is."""


@dataclass(frozen=True)
class Field:
    """A field of an item."""

    key: str | int
    """Its key in the item, or its place if items are tuples."""
    kind: str
    """litdata's name of its format, without what follows a colon."""


@dataclass(frozen=True, eq=False)
class ChunkIndex:
    """The chunks of a split and the fields of its items."""

    filenames: Sequence[str]
    starts: np.ndarray
    """int64 `(chunks + 1,)`: number of each chunk's first image, and at the end the number of images."""
    sizes: Sequence[int]
    """Bytes of each chunk."""
    config: Mapping[str, Any]
    """How litdata wrote the chunks."""
    image: Field
    label: Field
    digest: str
    """The sha256 of the file."""

    def __len__(self) -> int:
        """Return the number of images."""
        return int(self.starts[-1])

    def chunks_of(self, numbers: np.ndarray) -> np.ndarray:
        """Return the chunk of each image."""
        return np.searchsorted(self.starts, numbers, side="right") - 1

    def fingerprint(self, classes: Sequence[str]) -> str:
        """Return the sha256, in hexadecimal, of the class names and of each chunk's name, images and bytes."""
        rows = [list(classes), *zip(self.filenames, np.diff(self.starts).tolist(), self.sizes, strict=True)]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


@dataclass(frozen=True)
class SplitDescription:
    """What the writer of a split knew of it."""

    counts: Sequence[int] | None = None
    """Images of each class."""
    fingerprint: str | None = None
    """The fingerprint of the images that were packed."""
    checksums: Mapping[str, str] = field(default_factory=dict)
    """The sha256 of each chunk, by its filename."""


@dataclass(frozen=True)
class Description:
    """What `reslight.json` says of a dataset; all of it is missing in datasets of others."""

    classes: tuple[str, ...]
    splits: Mapping[str, SplitDescription]


def parse_index(data: bytes, name: str, image: str | None = None, label: str | None = None) -> ChunkIndex:
    """Read and check an index.

    Args:
        data: The file.
        name: Its path or address, for messages.
        image: Name of the field with the image; if None, a usual name, or the only one of a suitable format.
        label: The same for the label.

    Raises:
        UsageError: a file that is damaged, chunks that are compressed or encrypted, or fields that hold no images and labels.
    """
    try:
        content = json.loads(data)
        config, chunks = content["config"], content["chunks"]
        formats = [str(one) for one in config["data_format"]]
        filenames, counts, sizes = ([chunk[key] for chunk in chunks] for key in ("filename", "chunk_size", "chunk_bytes"))
        keys = _keys(config["data_spec"], len(formats))
        if not all(isinstance(one, int) and 0 < one <= _LARGEST for one in (*counts, *sizes)) or not all(map(_is_filename, filenames)):
            raise ValueError("its list of chunks has other values than names and sizes")
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        reason = visible(f"no {error}" if isinstance(error, KeyError) else error, 200)
        raise UsageError(f"{name} is not an index of litdata ({reason}). Write the dataset again.") from error
    refused = [
        ("encryption", None),
        ("item_loader", _LOADER),
        *([] if config.get("compression_level") in _IN_CHUNKS else [("compression", None)]),
    ]
    for key, allowed in refused:
        if (value := config.get(key)) not in (allowed, None):
            raise UsageError(f"{name} has the {key} {visible(value)}: it must be {allowed or 'none'}. Write the dataset again without it.")
    if not filenames:
        raise UsageError(f"{name} has no images. Write the dataset again.")
    return ChunkIndex(
        filenames,
        np.cumsum([0, *counts], dtype=np.int64),
        sizes,
        config,
        _find(name, "image", image, IMAGE_NAMES, keys, formats, (*ENCODED, *ARRAYS)),
        _find(name, "label", label, LABEL_NAMES, keys, formats, LABELS),
        hashlib.sha256(data).hexdigest(),
    )


def parse_description(data: bytes, name: str) -> Description:
    """Read and check `reslight.json`.

    Raises:
        UsageError: a damaged file, or class names that are not printable.
    """
    try:
        content = json.loads(data)
        classes = tuple(map(str, content["classes"]))
        splits = {split: _split_description(one, len(classes)) for split, one in content["splits"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{name} is damaged ({visible(error)}). Write the dataset again.") from error
    if bad := unprintable(classes):
        raise UsageError(f"{name} has class names that are not printable text: {shortened(bad, 5)}. Write the dataset again.")
    return Description(classes, splits)


def _split_description(content: Any, classes: int) -> SplitDescription:
    """Check what a description says of a split.

    Raises:
        KeyError: a missing value.
        ValueError: a value of another type.
    """
    counts, fingerprint, checksums = (content[key] for key in ("counts", "fingerprint", "checksums"))
    has_counts = isinstance(counts, list) and len(counts) == classes and all(isinstance(one, int) and one >= 0 for one in counts)
    if not (counts is None or has_counts) or not isinstance(fingerprint, str | None) or not isinstance(checksums, dict):
        raise ValueError("a split has other values than counts, a fingerprint and checksums")
    return SplitDescription(counts, fingerprint, checksums)


def _is_filename(name: Any) -> bool:
    """Return whether a chunk's name stays in its folder."""
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\\0")


def _keys(spec: str, fields: int) -> list[str | int]:
    """Return the keys of the fields, or their places if the items are tuples or lists.

    Raises:
        ValueError: items within items, or of a type other than those of dictionaries, lists and tuples.
    """
    tree = json.loads(spec)[1]
    if any(child["children_spec"] or child["type"] for child in tree["children_spec"]) or len(tree["children_spec"]) != fields:
        raise ValueError("its items have items of their own")
    if tree["type"] in _LISTS:
        return list(range(fields))
    if tree["type"] not in _DICTS or len(keys := json.loads(tree["context"])) != fields:
        raise ValueError("its items are neither dictionaries nor tuples")
    return list(map(str, keys))


def _find(
    index: str,
    what: str,
    chosen: str | None,
    usual: Sequence[str],
    keys: Sequence[str | int],
    formats: Sequence[str],
    allowed: Sequence[str],
) -> Field:
    """Find a field by its name, or else by its format.

    Raises:
        UsageError: no such field, several, or one of another format.
    """
    kinds = {str(key): one.partition(":")[0] for key, one in zip(keys, formats, strict=True)}
    fitting = [name for name, kind in kinds.items() if kind in allowed]
    found = chosen or next((name for name in usual if name in kinds), None) or (fitting[0] if len(fitting) == 1 else None)
    listed = shortened([f"{visible(name)} ({visible(kind)})" for name, kind in kinds.items()], 20)
    if found not in kinds:
        value = visible(chosen) if chosen else "null"
        raise UsageError(f"data.{what}_field is {value}: it must be one of the fields of {index}, {listed}. Set it.")
    if found not in fitting:
        raise UsageError(
            f"data.{what}_field is {visible(found)}: {index} has the fields {listed}, and {what}s must be {', '.join(allowed)}. "
            "Set another one, or write the dataset again."
        )
    return Field(next(key for key in keys if str(key) == found), kinds[found])
