"""Resolve a weight's name, a folder or a Hub repository to a local folder."""

import os
from pathlib import Path

from reslight.messages import UsageError, did_you_mean
from reslight.weights.catalog import CATALOG, bundled

EXPORTED = (".onnx", ".xml", ".pte", ".pt2")
"""Suffixes of what `reslight export` writes for other runtimes."""


def locate(source: str | os.PathLike[str], *, whole: bool = False) -> Path:
    """Return the folder of `source`; for a repository of the Hub, its folder in the Hub's cache.

    Args:
        source: A local folder, the name of a published weight, or `OWNER/NAME[@REVISION]`, in this order.
        whole: Download the golden logits and the card, too; loading needs neither.

    Raises:
        OSError: no such folder, weight or repository, or a download that failed.
        UsageError: a path to a file, or a file of the Hub that is damaged.
    """
    path = Path(source)
    if path.is_dir():
        return path
    name = str(source)
    if name in CATALOG:
        row = CATALOG[name]
        return bundled(name) if row.repository is None else _fetch(f"{row.repository}@{row.revision}", whole)
    if path.is_file():
        ways = {".ckpt": "Export it: reslight export FILE OUT.", ".pth": "Convert it: reslight convert FILE OUT --from LIBRARY."}
        ways |= dict.fromkeys(EXPORTED, "Give the weights that it was exported from.")
        fix = ways.get(path.suffix, "Give the folder that holds the file.")
        raise UsageError(f"{name} is a file: weights are loaded from a folder. {fix}")
    if path.suffix in EXPORTED:
        raise FileNotFoundError(f"there is no file {name[:200]}. Check the name.")
    if name.partition("@")[0].count("/") == 1 and not name.startswith((".", "/", "~")) and not name.endswith("/"):
        try:
            return _fetch(name, whole)
        except (ConnectionError, FileNotFoundError) as error:
            raise type(error)(f"there is no folder {name[:200]}, and {error}") from error
    hint = did_you_mean(name, CATALOG, "`reslight weights` lists the published ones.")
    raise FileNotFoundError(f"there is no folder and no published weight {name[:200]}: {hint}")


def _fetch(name: str, whole: bool) -> Path:
    from reslight.hub.repo import Repository
    from reslight.weights.pull import EVERYTHING, TO_LOAD, fetch  # huggingface_hub takes half a second to import

    return fetch(Repository.parse(name), EVERYTHING if whole else TO_LOAD)
