"""The order and the names that images have in folders of their classes, wherever their paths and labels come from."""

import posixpath
from collections.abc import Sequence
from operator import itemgetter
from unicodedata import normalize

from reslight.data.image_folder.class_tree import class_name


def canonical_order(paths: Sequence[str], labels: Sequence[str], *, several: bool) -> list[tuple[int, str]]:
    """Return the images in the order in which folders of their classes would have them: the number of each, and its name there.

    The folder of an image's class is one of the folders above it if there is one of that name, or else the innermost folder that has all
    images without one.

    Args:
        paths: The path of each image, with `/` between the folders.
        labels: The class of each image.
        several: Whether a label may stand for several classes: then a folder for all images of the same classes is assumed.
    """
    # Of each folder and label: the folders between that of the class and the image
    pairs = {(path.rpartition("/")[0], label) for path, label in zip(paths, labels, strict=True)}
    inner = {pair: None if several else _below_label(*pair) for pair in pairs}
    others = [folder for (folder, _), found in inner.items() if found is None]
    common = len(posixpath.commonpath(others)) if others and all(others) else 0
    prefixes = {}
    for (folder, label), found in inner.items():
        folders = (folder[common:] if found is None else found).strip("/")
        # In a folder, files come before folders. Names are compared in their composed form first. A zero byte ends each name.
        order = "".join(f"\1{normalize('NFC', one)}\0{one}\0" for one in folders.split("/") if one)
        prefixes[folder, label] = f"{label}/{folders}/" if folders else f"{label}/", f"{label}\0{order}\0"
    rows = []
    for number, (path, label) in enumerate(zip(paths, labels, strict=True)):
        folder, _, last = path.rpartition("/")
        name, order = prefixes[folder, label]
        rows.append((f"{order}{normalize('NFC', last)}\0{last}\0{path}", number, name + last))
    rows.sort(key=itemgetter(0))
    return [(number, name) for _, number, name in rows]


def _below_label(folder: str, label: str) -> str | None:
    """Return the part of a folder's path below the first folder in it that is named like a label; None if there is no such folder."""
    names = folder.split("/")
    return next(("/".join(names[place + 1 :]) for place, name in enumerate(names) if class_name(name) == label), None)
