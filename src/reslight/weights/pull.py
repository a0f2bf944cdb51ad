"""Weights taken from the Hugging Face Hub: file by file, at one commit, and checked by us.

The client takes whatever bytes of the right size arrive, and whatever lies in its cache. So every file is compared with
the sha256 that the Hub says, and the weights again with the one in config.json.
"""

import hashlib
import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile

from reslight.atomic import write_files
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
    MODEL,
    check_folder,
    check_target,
    read_card,
    read_description,
    say_replaced,
)
from reslight.weights.golden import IMAGES
from reslight.weights.record import Record
from reslight.weights.strict_json import MAX_BYTES

log = logging.getLogger(__name__)
_SMALL = {CONFIG: MAX_BYTES, CARD: MAX_BYTES}
"""Bytes that a file may have before anything is known of the network."""
TO_LOAD = (CONFIG, MODEL)
EVERYTHING = (CONFIG, MODEL, GOLDEN, CARD)
"""In the order in which they are taken: config.json says how large the weights may be."""


def fetch(repository: Repository, files: Sequence[str] = TO_LOAD) -> Path:
    """The folder in the Hub's own cache that holds these files of one commit, each checked.

    With HF_HUB_OFFLINE, or if the Hub cannot be reached, what the cache holds is taken; `load` checks the weights against
    config.json all the same.

    Raises:
        OSError: The repository, the revision or a file is not there or cannot be reached; one line says which, and what to do.
        ValueError: A file is not what the Hub or config.json says.
    """
    api = client()
    if is_offline():
        return _cached(api, repository, files)
    try:
        return _taken(api, repository, files)
    except ConnectionError as error:
        try:
            folder = _cached(api, repository, files)
        except OSError:
            raise error from None
        log.warning("%s; commit %s, which the cache holds, is taken", error, folder.name[:12])
        return folder


def _taken(api: HfApi, repository: Repository, files: Sequence[str]) -> Path:
    commit = commit_of(api, repository)
    known = _listed(api, repository, commit, files)
    folder = Path()
    for name in files:
        limit = _SMALL.get(name) or _largest(name, read_description(folder, accept_timm=True).record)
        if known[name].size > limit:
            raise UsageError(
                f"{repository}: {name} has {known[name].size:,} bytes, and at most {limit:,} belong to its network; it is not taken"
            )
        folder = download(api, repository, commit, known[name]).parent
    remember_commit(repository, commit)
    return folder


def pull(source: str, folder: str | os.PathLike[str]) -> Path:
    """Copy a repository's weights, golden logits and card into a folder of one's own, everything checked.

    Args:
        source: `OWNER/NAME` or `OWNER/NAME@REVISION`.
        folder: Where to; new or empty, or one of weights: your own text in its card stays.

    Raises:
        OSError: It cannot be had, or not be written.
        ValueError: It is not what it says, `folder` holds other things, or its card other text of a person.
    """
    target, repository = Path(folder), Repository.parse(source)
    check_target(target)
    mine = read_card(target)
    there = fetch(repository, EVERYTHING)
    record = check_folder(there)  # what is wrong is not copied
    files = {target / name: (there / name).read_bytes() for name in FILES}
    if mine:
        text = merged(mine, read_card(there))
        if text is None:
            raise UsageError(f"{target / CARD} and the card of {repository} hold different text of yours; pull to a new folder")
        files[target / CARD] = card(record, len(files[target / MODEL]), text, repository.name).encode()  # of the new weights
    say_replaced(target, hashlib.sha256(files[target / MODEL]).hexdigest())
    write_files(files)
    return target


def _listed(api: HfApi, repository: Repository, commit: str, files: Sequence[str]) -> dict[str, RepoFile]:
    """What the Hub says of these files.

    Raises:
        FileNotFoundError: It has not all of them.
    """
    found = list_files(api, repository, commit, files)
    if missing := [name for name in files if name not in found]:
        raise FileNotFoundError(f"{repository} has no {' and no '.join(missing)}: it is no folder that `reslight push` made")
    return found


def _cached(api: HfApi, repository: Repository, files: Sequence[str]) -> Path:
    """The folder in the cache, without a request."""
    take = partial(api.hf_hub_download, repository.name, revision=repository.revision, local_files_only=True)
    paths = [with_retries(partial(take, name), f"reading {name} of {repository}", repository) for name in files]
    return Path(paths[0]).parent


def _largest(name: str, record: Record) -> int:
    """Bytes that the weights of a network, or its golden logits, take at most."""
    from reslight.models import count_parameters

    if name == GOLDEN:
        return 2**16 + IMAGES * (record.preprocess.channels * record.preprocess.size**2 + 4 * record.net.num_classes)
    return 2**24 + 16 * count_parameters(record.net)
