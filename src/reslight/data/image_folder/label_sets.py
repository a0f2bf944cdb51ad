"""Several labels of an image, as one text: its classes in order, with a separator between them."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from reslight.data.image_folder.class_tree import class_name
from reslight.messages import visible

_BETWEEN = "\x1f"
"""The unit separator of ASCII, which no printable name of a class has."""
_YES, _NO = ("1", "true", "1.0"), ("0", "false", "0.0", "")
CELLS = "0, 1, true, false or empty"
"""What a column of a class may have."""


def joined(names: Iterable[str]) -> str:
    """Return the text of these classes, in any order and possibly named twice; empty for an image without a class."""
    return _BETWEEN.join(sorted({class_name(name.strip()) for name in names if name.strip()}))


def names_in(text: str) -> tuple[str, ...]:
    """Return the classes in a text of `joined`, or the one class of another text."""
    return tuple(text.split(_BETWEEN)) if text else ()


def shown(text: str) -> str:
    """Return the text of `joined` for messages."""
    return " + ".join(map(visible, names_in(text))) or "none"


def is_yes(cell: Any) -> bool | None:
    """Return whether the cell of a class's column says that the image has the class; None for a cell that does not say so."""
    word = "" if cell is None or cell != cell else str(cell).strip().lower()  # NaN, which pandas writes, differs from itself
    return True if word in _YES else False if word in _NO else None


def multi_hot(texts: Sequence[str], classes: Sequence[str]) -> Tensor:
    """Return which classes each image has, uint8 `(N, num_classes)`.

    Args:
        texts: A text of `joined` for each image.
        classes: All classes.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    labels = torch.zeros(len(texts), len(classes), dtype=torch.uint8)
    pairs = [(row, numbers[name]) for row, text in enumerate(texts) for name in names_in(text)]
    if pairs:
        rows, columns = torch.tensor(pairs).unbind(dim=1)
        labels[rows, columns] = 1
    return labels
