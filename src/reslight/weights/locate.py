"""From what a person calls some weights to the folder that holds them."""

import os
from pathlib import Path

from reslight.messages import UsageError, nearest
from reslight.weights.catalog import CATALOG, bundled


def locate(source: str | os.PathLike[str], *, whole: bool = False) -> Path:
    """The folder of `source`: a folder that is here, a published weight's, or that of a repository of the Hub in the Hub's cache.

    Args:
        source: What a person calls it.
        whole: Take golden logits and card from the Hub, too; loading does without.

    Raises:
        OSError: It is none of them (the nearest names are offered), or the Hub's cannot be had.
        ValueError: What the Hub has is not what it says.
    """
    path = Path(source)
    if path.is_dir():
        return path
    name = str(source)
    if name in CATALOG:
        row = CATALOG[name]
        return bundled(name) if row.repository is None else _fetch(f"{row.repository}@{row.revision}", whole)
    if path.is_file():
        raise UsageError(f"{name} is a file; give the folder that it lies in")
    if name.partition("@")[0].count("/") == 1 and not name.startswith((".", "/", "~")) and not name.endswith("/"):
        try:
            return _fetch(name, whole)
        except (ConnectionError, FileNotFoundError) as error:
            raise type(error)(f"there is no folder {name[:200]}, and on the Hub: {error}") from error
    similar = nearest(name, CATALOG)
    hint = f"did you mean {' or '.join(similar)}?" if similar else "`reslight weights` lists the published ones"
    raise FileNotFoundError(f"there is no folder and no published weight {name[:200]}; {hint}")


def _fetch(name: str, whole: bool) -> Path:
    from reslight.hub.repo import Repository
    from reslight.weights.pull import EVERYTHING, TO_LOAD, fetch  # the Hub's client takes half a second to import

    return fetch(Repository.parse(name), EVERYTHING if whole else TO_LOAD)
