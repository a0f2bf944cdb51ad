"""Find images to predict: files, and images in folders at any depth, with or without folders of classes."""

import os
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reslight.data.image_folder.class_tree import class_name, files_below, is_image
from reslight.data.image_folder.file_paths import FilePaths
from reslight.messages import UsageError, shortened, visible

UNLABELLED = -1
"""The label of an image whose class is not known."""


def find_pictures(paths: Sequence[str | Path], classes: Sequence[str] = ()) -> tuple[FilePaths, Sequence[int], int]:
    """Find the images to predict.

    Args:
        paths: Files, which need no image extension, and folders, whose images are found at any depth.
        classes: Names of classes. An image in a folder that is named after one of them has its label; of several, the innermost.

    Returns:
        The images, in the order of `paths` and sorted within each folder; their labels, or `UNLABELLED`; and the number of files in the
        folders that have no image extension.

    Raises:
        FileNotFoundError: a missing file or folder.
        OSError: a folder that cannot be opened.
        UsageError: no images.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    names, labels, left_out = bytearray(), array("q"), 0
    for path in paths:
        if not Path(path).is_dir():
            if not os.path.lexists(path):
                raise FileNotFoundError(f"{visible(path, 1000)} is missing. Give image files, or folders of images.")
            names += os.fsencode(path) + b"\0"
            labels.append(UNLABELLED)
            continue
        for inner, files in files_below(Path(path), ".", None):
            images = [name for name in files if is_image(name)]
            left_out += len(files) - len(images)
            folder = Path(path, inner).as_posix()
            names += b"".join(os.fsencode(f"{folder}/{name}\0") for name in images)
            label = next((numbers[name] for one in reversed(inner.split("/")) if (name := class_name(one)) in numbers), UNLABELLED)
            labels.extend([label] * len(images))
    if not labels:
        raise UsageError(f"{shortened([visible(path, 1000) for path in paths])} has no images. Give image files, or folders of images.")
    return FilePaths(Path(), np.frombuffer(bytes(names), np.uint8)), labels, left_out
