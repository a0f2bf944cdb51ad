"""Getting the CIFAR sets: from the Hugging Face Hub first, which is fast, then from their author's host."""

import contextlib
import logging
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

from reslight.data.cifar.metadata import KnownSet, Part

log = logging.getLogger(__name__)

_PATIENCE = 30  # seconds without an answer; a firewall may swallow everything


def download(known: KnownSet, part: Part, folder: Path) -> None:
    """Get a split's files into a folder, in a form that is found there.

    Args:
        known: The data set.
        part: The split.
        folder: Where to; made if it is not there.

    Raises:
        ConnectionError: No host gave it. The message lists them, each with its reason.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise ConnectionError("nothing was downloaded, for HF_HUB_OFFLINE is set")
    hosts: dict[str, Callable[[KnownSet, Part, Path], str]] = {
        f"{constants.ENDPOINT}/datasets/{known.repository}": _from_hub,
        "https://www.cs.toronto.edu/~kriz/cifar.html": _from_author,
    }
    failures = []
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # in a folder of its own until it is whole: what is found later is never half a file
        with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=folder) as unfinished:
            for address, get in hosts.items():
                log.info("downloading the %s images of %s from %s to %s", _SAID[part], known.title, address, folder)
                try:
                    file = get(known, part, Path(unfinished))
                except Exception as error:  # each client has errors of its own, and all mean: try the next
                    failures.append(f"{address} ({_reason(error)})")
                else:
                    (folder / file).parent.mkdir(parents=True, exist_ok=True)
                    Path(unfinished, file).replace(folder / file)
                    return
    except OSError as error:
        raise ConnectionError(f"nothing was downloaded, for it cannot be written to {folder} ({error})") from error
    finally:
        with contextlib.suppress(OSError):  # not empty: it was downloaded
            for path in made:
                path.rmdir()
    raise ConnectionError(f"no host could be reached or gave the files: {', '.join(failures)}")


_SAID = {"train": "training", "test": "test"}


def _from_hub(known: KnownSet, part: Part, folder: Path) -> str:
    """Return the name in the folder of what was downloaded."""
    from huggingface_hub import constants, get_session, hf_hub_download

    # One request before the client's own, which it repeats for half a minute where there is no network
    get_session().head(constants.ENDPOINT, timeout=_PATIENCE)
    # the token of a person is none of a public data set's business
    file = known.shards[part]
    hf_hub_download(known.repository, file, repo_type="dataset", revision=known.revision, local_dir=folder, token=False)
    return file


def _from_author(known: KnownSet, _: Part, folder: Path) -> str:
    """Return the name in the folder of what was downloaded, which has all splits."""
    from torchvision import datasets
    from torchvision.datasets.utils import download_url

    source = datasets.CIFAR10 if known.archive == datasets.CIFAR10.base_folder else datasets.CIFAR100
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_PATIENCE)
    try:
        download_url(source.url, folder, source.filename, source.tgz_md5)
    finally:
        socket.setdefaulttimeout(patience)
    return str(source.filename)


def _reason(error: BaseException) -> str:
    """Return the innermost cause in a line: clients wrap a missing network many times."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    text = " ".join(str(error).partition(" for url ")[0].split()).removesuffix(".")
    return text[:120] or type(error).__name__
