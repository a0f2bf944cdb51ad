"""From what a person calls a set of images to its parts."""

from pathlib import Path

from reslight.data.parquet import parts_in_shards
from reslight.data.parts import Parts, parts_of, trees_in
from reslight.data.remote import fetch, is_remote
from reslight.messages import UsageError


def find_parts(root: str) -> Parts:
    """The parts of a set: class folders or parquet shards in a folder, or the shards of a data set of the Hub.

    Args:
        root: The folder, or `OWNER/DATASET[@REVISION]`.

    Raises:
        OSError: There is none, or it cannot be opened.
        ValueError: It is no set to train with.
    """
    if is_remote(root):
        folder = fetch(root)
        if (found := parts_in_shards(folder)) is None:
            raise UsageError(f"{root} has parquet files, but none called after train, validation or test; it is no set to train on")
        return found
    folder = Path(root).expanduser()
    return parts_in_shards(folder) or parts_of(trees_in(folder))
