"""Read a file of class names, which weight files of other libraries do not have."""

from pathlib import Path

from reslight.messages import UsageError
from reslight.regular_file import read_regular

_MAX_BYTES = 2**23


def read_labels(path: Path, classes: int) -> tuple[str, ...]:
    """Return the class names in a text file, one on each line, in the order of the network's logits.

    Args:
        path: The file, in UTF-8. Empty lines at its end are left out.
        classes: Number of classes of the network.

    Raises:
        FileNotFoundError: a missing file.
        UsageError: a file that is too large or not text, or another number of names.
    """
    if not path.exists():
        raise FileNotFoundError(f"--labels is {path}: there is no such file. Give a text file with a class name on each line.")
    try:
        text = read_regular(path, _MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"--labels is {path}: it is not text in UTF-8. Give a text file with a class name on each line.") from None
    labels = tuple(line.strip() for line in text.rstrip().split("\n"))
    if len(labels) != classes:
        raise UsageError(f"--labels is {path}: it has {len(labels):,} lines, and the network has {classes:,} classes. Give one for each.")
    if "" in labels:
        raise UsageError(f"--labels is {path}: line {labels.index('') + 1} is empty. Give a class name on each line.")
    return labels
