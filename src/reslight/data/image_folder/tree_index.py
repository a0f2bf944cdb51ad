"""Index of large folders of classes, in the cache: a start opens no folder that has not changed since it was listed.

The index is memory-mapped, so that the processes of a machine share it. A folder's time changes when a file in it is added, removed or
renamed, but not when a file's content is replaced in place: then the index has the size that the file had.
"""

import hashlib
import json
import logging
import os
import time
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from reslight.atomic import write_files
from reslight.data.image_folder.class_tree import IMAGE_EXTENSIONS, ClassTree, read_tree
from reslight.data.image_folder.file_paths import FilePaths
from reslight.data.loading.cache import cache_folder, remove_unfinished, writing_to

log = logging.getLogger(__name__)

_FORMAT = json.dumps([1, sorted(IMAGE_EXTENSIONS)])
"""Changes with the meaning of an index."""
_FEWEST = 20_000
"""Images of a folder that is worth an index; fewer are listed in a tenth of a second."""
_SETTLED = 2_000_000_000
"""Nanoseconds that a folder must be unchanged when it is listed: a change that follows at once may have the same time."""


def indexed_tree(root: Path) -> ClassTree:
    """Find the images in a folder of classes as `read_tree` does, or in its index if no folder has changed.

    Raises:
        OSError: a folder that cannot be opened.
    """
    path = _path_of(root)
    if (tree := _load(path, root)) is not None:
        about = (f"{len(tree.paths):,}", root, path)
        log.info("images: %s in %s, none of whose folders has changed since they were listed; delete %s to list them again", *about)
        return tree
    start = time.time_ns()
    tree = read_tree(root)
    if len(tree.paths) < _FEWEST:
        return tree
    try:
        states = _states(root, tree.folders)
    except OSError:
        return tree
    if states[:, 0].max() < start - _SETTLED:
        _store(path, tree, states)
    return tree


def _path_of(root: Path) -> Path:
    return cache_folder() / "folders" / f"{hashlib.sha256(os.fsencode(root.absolute())).hexdigest()[:24]}.safetensors"


def _states(root: Path, folders: Sequence[str]) -> np.ndarray:
    """Return the time of the last change and the inode of each folder, int64 `(F, 2)`.

    Raises:
        OSError: a missing folder.
    """
    states = [(root / folder).stat() for folder in folders]
    return np.array([(state.st_mtime_ns, state.st_ino & (2**63 - 1)) for state in states], dtype=np.int64)


def _load(path: Path, root: Path) -> ClassTree | None:
    """Return the folder of classes in an index; None if there is no index, or if it is damaged or out of date."""
    if not path.is_file():  # a pipe would be waited for
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, the file is no dict
        if metadata.get("format") != _FORMAT or metadata.get("digest") != _digest(metadata["classes"], tensors):
            return None
        found = {name: tensor.numpy() for name, tensor in tensors.items()}
        folders = list(FilePaths(root, found["folders"]).relative())
        if not np.array_equal(_states(root, folders), found["states"]):
            return None
    except (OSError, SafetensorError, KeyError):
        return None
    return ClassTree(
        root,
        tuple(json.loads(metadata["classes"])),
        FilePaths(root, found["paths"], found["sizes"]),
        array("q", found["labels"].tobytes()),
        FilePaths(root, found["misplaced"]),
        FilePaths(root, found["others"]),
        folders,
    )


def _store(path: Path, tree: ClassTree, states: np.ndarray) -> None:
    """Write an index; a cache that cannot be written is reported."""
    names = {"paths": tree.paths, "misplaced": tree.misplaced, "others": tree.others, "folders": FilePaths.below(tree.root, tree.folders)}
    arrays = {name: paths.names for name, paths in names.items()}
    arrays |= {"sizes": tree.paths.sizes(), "labels": np.array(tree.labels), "states": states}
    tensors = {name: torch.from_numpy(values.copy()) for name, values in arrays.items()}
    classes = json.dumps(tree.classes)
    content = save(tensors, metadata={"format": _FORMAT, "classes": classes, "digest": _digest(classes, tensors)})
    remove_unfinished(path.parent)
    try:
        with writing_to(path.parent):
            write_files({path: content})
    except OSError as error:
        log.warning("%s Until then, each start lists the images again. RESLIGHT_CACHE sets the folder.", error)


def _digest(classes: str, tensors: dict[str, Tensor]) -> str:
    """Return the sha256 of an index, so that a damaged file is noticed."""
    digest = hashlib.sha256(classes.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].numpy().data)
    return digest.hexdigest()
