"""From what a person calls some weights to the folder that holds them."""

import os
from pathlib import Path

from reslight.models.config import nearest
from reslight.weights.catalog import CATALOG, bundled


def locate(source: str | os.PathLike[str]) -> Path:
    """The folder of `source`: a folder that is here, or a published weight's.

    Raises:
        FileNotFoundError: It is neither; the nearest names are offered.
    """
    path = Path(source)
    if path.is_dir():
        return path
    name = str(source)
    if name in CATALOG:
        return bundled(name)
    similar = nearest(name, CATALOG)
    hint = f"did you mean {' or '.join(similar)}?" if similar else "`reslight weights` lists the published ones"
    raise FileNotFoundError(f"there is no folder and no published weight {name[:200]}; {hint}")
