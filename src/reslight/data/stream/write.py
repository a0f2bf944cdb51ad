"""Write the images of a dataset as litdata's chunks, which `Stream` and litdata's StreamingDataset read."""

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from reslight.atomic import write_files
from reslight.data.datamodule import SPLIT_SEED
from reslight.data.image_folder.splits import LabelledImages
from reslight.data.loading.encoded import Images
from reslight.data.loading.labels import class_counts
from reslight.data.rng import Draw, permutation
from reslight.data.stream.chunk_index import DESCRIPTION, INDEX
from reslight.data.stream.items import check_installed
from reslight.messages import UsageError, visible

CHUNK_BYTES = 2**26
"""Bytes of a chunk, as litdata's own."""


def write_chunks(
    classes: Sequence[str],
    splits: Mapping[Any, LabelledImages],
    target: Path,
    *,
    chunk_bytes: int = CHUNK_BYTES,
    encode: Callable[[Images, Sequence[int]], Iterable[bytes]] | None = None,
    report: Callable[[int], object] = lambda count: None,
) -> None:
    """Write a dataset.

    Training images are written in a random order, since a step gets images of a few chunks only; the others in theirs.

    Args:
        classes: Names of the classes.
        splits: The images of each split.
        target: A folder that is empty or missing. `reslight.json`, the last file to be written, makes it a dataset.
        chunk_bytes: Bytes of a chunk, at most, unless an image has more.
        encode: Returns the images with these numbers, encoded again; None to copy files as they are.
        report: Called with the number of images that were written.

    Raises:
        MissingPackageError: litdata is not installed.
        OSError: an image that cannot be read, or a file that cannot be written.
        UsageError: a folder that is not empty, several labels of an image, or an image that cannot be read.
    """
    check_installed("--format litdata")
    if target.exists() and any(target.iterdir()):
        raise UsageError(f"OUT is {visible(target)}: it has other files. Give a new or an empty folder.")
    described, written = {}, 0
    for split, found in splits.items():
        if found.labels.ndim != 1:
            raise UsageError(
                f"{split} has several labels for an image: chunks have one. Use `reslight data pack` without --format litdata."
            )
        count = len(found.labels)
        order = permutation(count, SPLIT_SEED, 0, Draw.CHUNK_ORDER) if split == "train" else torch.arange(count)
        writer = _writer(target / split, chunk_bytes)
        numbers, labels = order.tolist(), found.labels[order].tolist()
        encoded = encode(found.images, numbers) if encode else (bytes(found.images.read(number)) for number in numbers)
        for place, item in enumerate(zip(encoded, labels, strict=True)):
            writer[place] = item  # a pair: litdata writes dictionaries in a layout that earlier versions do not read
            written += 1
            report(written)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            writer.done()
            writer.merge()
        chunks = [chunk["filename"] for chunk in json.loads((target / split / INDEX).read_bytes())["chunks"]]
        described[split] = {
            "counts": class_counts(found.labels, len(classes)).tolist(),
            "fingerprint": None if encode else found.fingerprint,  # of other bytes, the chunks have a fingerprint of their own
            "checksums": {name: _checksum(target / split / name) for name in chunks},
        }
    text = json.dumps({"classes": list(classes), "splits": described}, ensure_ascii=False)
    write_files({target / DESCRIPTION: text.encode()})


def _writer(folder: Path, chunk_bytes: int) -> Any:
    from litdata.streaming import Cache

    folder.mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Cache(os.fspath(folder), chunk_bytes=chunk_bytes)


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
