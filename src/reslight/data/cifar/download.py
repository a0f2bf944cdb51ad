"""Download the CIFAR datasets: from the Hugging Face Hub, which is fast, or else from their author's site."""

import contextlib
import logging
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

from reslight.data.cifar.metadata import ADJECTIVES, CifarMetadata, SplitName
from reslight.hub.repo import Repository
from reslight.messages import UsageError

log = logging.getLogger(__name__)

_TIMEOUT = 30
"""Seconds to wait for an answer: a firewall may drop every packet."""


def download(metadata: CifarMetadata, split: SplitName, folder: Path) -> None:
    """Download a split's files into a folder, in a form that the readers find there.

    Args:
        metadata: The dataset.
        split: The split.
        folder: Folder to write to; created if it is missing.

    Raises:
        ConnectionError: no host could be reached and gave the files; the message lists the hosts with their reasons.
        UsageError: HF_HUB_OFFLINE is set.
    """
    from reslight.hub.client import client, is_offline  # huggingface_hub takes half a second to import

    if is_offline():
        raise UsageError("nothing was downloaded because HF_HUB_OFFLINE is set")
    hosts: dict[str, Callable[[CifarMetadata, SplitName, Path], str]] = {
        f"{client().endpoint}/datasets/{metadata.repository}": _from_hub,
        "https://www.cs.toronto.edu/~kriz/cifar.html": _from_author,
    }
    failures = []
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A file that is not complete stays in a temporary folder, so that readers never find half a file.
        with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=folder) as unfinished:
            for address, get in hosts.items():
                log.info("downloading the %s images of %s from %s to %s", ADJECTIVES[split], metadata.title, address, folder)
                try:
                    file = get(metadata, split, Path(unfinished))
                except Exception as error:  # whatever error the host's client raises, the next host is tried
                    failures.append(f"{address} ({_reason(error)})")
                else:
                    (folder / file).parent.mkdir(parents=True, exist_ok=True)
                    Path(unfinished, file).replace(folder / file)
                    return
    except OSError as error:
        raise ConnectionError(f"nothing was downloaded because {folder} is not writable ({error})") from error
    finally:
        with contextlib.suppress(OSError):  # a folder that is not empty has the download
            for path in created:
                path.rmdir()
    raise ConnectionError(f"no host could be reached and gave the files: {', '.join(failures)}")


def _from_hub(metadata: CifarMetadata, split: SplitName, folder: Path) -> str:
    """Download a split from the Hub and return the file's name in the folder."""
    from huggingface_hub import get_session

    from reslight.hub.client import client
    from reslight.hub.files import download, list_files

    repository, file = Repository(metadata.repository, metadata.revision, "dataset"), metadata.shards[split]
    api = client(token=False)  # a public dataset needs no token, so the user's is not sent
    # Without a network this request fails at once, and the author's site is tried; those below are retried for a while.
    get_session().head(api.endpoint, timeout=_TIMEOUT)
    listed = list_files(api, repository, metadata.revision, [file])
    if file not in listed:
        raise FileNotFoundError(f"{repository} has no {file}")
    download(api, repository, metadata.revision, listed[file], folder)
    return file


def _from_author(metadata: CifarMetadata, _: SplitName, folder: Path) -> str:
    """Download the archive, which has all splits, from the author's site and return its name in the folder."""
    from torchvision import datasets
    from torchvision.datasets.utils import download_url

    source = datasets.CIFAR10 if metadata.archive == datasets.CIFAR10.base_folder else datasets.CIFAR100
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)
    try:
        download_url(source.url, folder, source.filename, source.tgz_md5)
    finally:
        socket.setdefaulttimeout(timeout)
    return str(source.filename)


def _reason(error: BaseException) -> str:
    """Return the innermost cause in one line: clients wrap a missing network many times."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    text = " ".join(str(error).partition(" for url ")[0].split()).removesuffix(".")
    return text[:120] or type(error).__name__
