"""Download weights from the Hugging Face Hub, file by file, at one commit.

Every file is compared with the hash that the Hub lists, and the weights again with the sha256 in config.json.
"""

import hashlib
import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile

from reslight.hub.client import client, is_offline, with_retries
from reslight.hub.files import commit_of, download, list_files, remember_commit
from reslight.hub.repo import Repository
from reslight.messages import UsageError
from reslight.weights.card import card, merged
from reslight.weights.folder import (
    CARD,
    CONFIG,
    FILES,
    GOLDEN,
    MAX_CARD,
    MODEL,
    check_folder,
    read_card,
)
from reslight.weights.golden import Golden
from reslight.weights.interop.timm_folder import read_any_description
from reslight.weights.record import Record
from reslight.weights.saving import check_target, replace_folder
from reslight.weights.strict_json import MAX_BYTES

log = logging.getLogger(__name__)
_SMALL = {CONFIG: MAX_BYTES, CARD: MAX_CARD}
"""Largest size of the files that do not depend on the network, in bytes."""
TO_LOAD = (CONFIG, MODEL)
EVERYTHING = (CONFIG, MODEL, GOLDEN, CARD)
"""In the order of the downloads: config.json says how large the weights may be."""


def fetch(repository: Repository, files: Sequence[str] = TO_LOAD) -> Path:
    """Download files of one commit to the Hub's own cache, check them, and return their folder.

    With HF_HUB_OFFLINE, or if the Hub cannot be reached, the cache is used; `load` checks the weights against config.json all the
    same.

    Raises:
        OSError: a missing repository, revision or file, or a download that failed; one line says which, and what to do.
        UsageError: a file that is not the one that the Hub lists, or is too large for its network.
    """
    api = client()
    if is_offline():
        return _cached(api, repository, files)
    try:
        return _download_all(api, repository, files)
    except ConnectionError as error:
        try:
            folder = _cached(api, repository, files)
        except OSError:
            raise error from None
        log.warning("%s Using commit %s from the cache.", error, folder.name[:12])
        return folder


def _download_all(api: HfApi, repository: Repository, files: Sequence[str]) -> Path:
    commit = commit_of(api, repository)
    listed = _list(api, repository, commit, files)
    folder = Path()
    for name in files:
        limit = _SMALL.get(name) or _largest(name, read_any_description(folder).record)
        if listed[name].size > limit:
            raise UsageError(
                f"{name} of {repository} has {listed[name].size:,} bytes: its network has at most {limit:,}. It is not downloaded."
            )
        folder = download(api, repository, commit, listed[name]).parent
    remember_commit(repository, commit)
    return folder


def pull(source: str, folder: str | os.PathLike[str]) -> Path:
    """Copy a repository's weights, golden logits and card into a folder, after all of them were checked.

    Args:
        source: `OWNER/NAME` or `OWNER/NAME@REVISION`.
        folder: The folder to write: new, empty, or one with weights. Your own text in its card is kept.

    Returns:
        The folder.

    Raises:
        OSError: a download that failed, or a folder that is not writable.
        UsageError: a damaged file, a `folder` with other contents, or two cards with different text of the user.
    """
    target, repository = Path(folder), Repository.parse(source)
    check_target(target)
    own_card = read_card(target)
    downloaded = fetch(repository, EVERYTHING)
    record = check_folder(downloaded)  # a damaged folder is not copied
    files = {name: (downloaded / name).read_bytes() for name in FILES}
    if own_card:
        text = merged(own_card, read_card(downloaded))
        if text is None:
            raise UsageError(f"{target / CARD} and the card of {repository} hold different text of yours. Pull to a new folder.")
        files[CARD] = card(record, len(files[MODEL]), text, repository.name).encode()
    replace_folder(target, files, hashlib.sha256(files[MODEL]).hexdigest())
    return target


def _list(api: HfApi, repository: Repository, commit: str, files: Sequence[str]) -> dict[str, RepoFile]:
    """Return what the Hub lists of these files.

    Raises:
        FileNotFoundError: a missing file.
    """
    found = list_files(api, repository, commit, files)
    if missing := [name for name in files if name not in found]:
        raise FileNotFoundError(f"{repository} has no {' and no '.join(missing)}. Give a repository that `reslight push` wrote.")
    return found


def _cached(api: HfApi, repository: Repository, files: Sequence[str]) -> Path:
    """Return the folder in the cache, without a request."""
    find = partial(api.hf_hub_download, repository.name, revision=repository.revision, local_files_only=True)
    paths = [with_retries(partial(find, name), f"reading {name} of {repository}", repository) for name in files]
    return Path(paths[0]).parent


def _largest(name: str, record: Record) -> int:
    """Return the largest size of a network's weights, or of its golden logits, in bytes."""
    from reslight.models import count_parameters

    if name == GOLDEN:
        return Golden.largest_file(record.preprocess, record.net.num_classes)
    return 2**24 + 16 * count_parameters(record.net)
