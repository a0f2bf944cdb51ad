"""Weights taken from the Hugging Face Hub: file by file, at one commit, and checked by us.

The client takes whatever bytes of the right size arrive, and whatever lies in its cache. So every file is compared with
the sha256 that the Hub says, and the weights again with the one in config.json.
"""

import contextlib
import hashlib
import logging
import os
import re
import reprlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_url, try_to_load_from_cache
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.hf_api import RepoFile

from reslight.atomic import write_files
from reslight.messages import UsageError
from reslight.weights.card import card, merged
from reslight.weights.client import client, is_offline, patiently
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
from reslight.weights.repository import Repository
from reslight.weights.strict import MAX_BYTES

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
    commit = _commit_of(api, repository)
    known = _listed(api, repository, commit, files)
    folder = Path()
    for name in files:
        limit = _SMALL.get(name) or _largest(name, read_description(folder, accept_timm=True).record)
        if known[name].size > limit:
            raise UsageError(
                f"{repository}: {name} has {known[name].size:,} bytes, and at most {limit:,} belong to its network; it is not taken"
            )
        folder = download(api, repository, commit, known[name]).parent
    _remember(repository, commit)
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


def _commit_of(api: HfApi, repository: Repository) -> str:
    """The commit that a revision is at, asked for once."""
    if repository.revision and re.fullmatch(r"[0-9a-f]{40}", repository.revision):
        return repository.revision
    sha = patiently(lambda: api.model_info(repository.name, revision=repository.revision).sha, f"asking for {repository}", repository)
    if not re.fullmatch(r"[0-9a-f]{40}", sha or ""):
        raise ConnectionError(f"the Hub says {str(sha)[:50]!r} is the commit of {repository}, which is none; try again later")
    return str(sha)


def _listed(api: HfApi, repository: Repository, commit: str, files: Sequence[str]) -> dict[str, RepoFile]:
    """What the Hub says of these files.

    Raises:
        FileNotFoundError: It has not all of them.
    """
    found = files_at(api, repository, commit, files)
    if missing := [name for name in files if name not in found]:
        raise FileNotFoundError(f"{repository} has no {' and no '.join(missing)}: it is no folder that `reslight push` made")
    return found


def files_at(api: HfApi, repository: Repository, commit: str | None, files: Sequence[str]) -> dict[str, RepoFile]:
    """What the Hub says of those of these files that a commit has, by name."""
    rows = patiently(lambda: api.get_paths_info(repository.name, list(files), revision=commit), f"listing {repository}", repository)
    return {row.path: row for row in rows if isinstance(row, RepoFile)}


def download(api: HfApi, repository: Repository, commit: str, known: RepoFile) -> Path:
    """A file in the cache that is what the Hub says it is: taken again once if it is not."""
    what = f"taking {known.path} of {repository}"
    kept = try_to_load_from_cache(repository.name, known.path, revision=commit)
    if isinstance(kept, str) and is_same_file(Path(kept), known):
        return Path(kept)
    _check_name(api, repository, commit, known, what)
    for again in (isinstance(kept, str), True):
        if again:
            log.warning("%s of %s came, or lay in the cache, with other bytes than the Hub's: taken again", known.path, repository)
        path = Path(
            patiently(partial(api.hf_hub_download, repository.name, known.path, revision=commit, force_download=again), what, repository)
        )
        if is_same_file(path, known):
            return path
    raise UsageError(
        f"{known.path} of {repository} is not the file that the Hub lists, twice: something on the way alters it; try another network"
    )


def _check_name(api: HfApi, repository: Repository, commit: str, known: RepoFile, what: str) -> None:
    """The name that the client will give a file in its cache, which is whatever the server says: it must be the file's hash.

    Raises:
        ValueError: It is another.
    """
    url = hf_hub_url(repository.name, known.path, revision=commit, endpoint=api.endpoint)
    etag = patiently(lambda: api.get_hf_file_metadata(url=url, token=api.token).etag, what, repository)
    if etag != (known.lfs.sha256 if known.lfs else known.blob_id):
        raise UsageError(f"{what}: the server calls it {reprlib.repr(etag)}, which is not the hash that the Hub lists; try another network")


def _cached(api: HfApi, repository: Repository, files: Sequence[str]) -> Path:
    """The folder in the cache, without a request."""
    take = partial(api.hf_hub_download, repository.name, revision=repository.revision, local_files_only=True)
    paths = [patiently(partial(take, name), f"taking {name} of {repository}", repository) for name in files]
    return Path(paths[0]).parent


def _remember(repository: Repository, commit: str) -> None:
    """Note in the cache which commit a branch is at, as the client does for what is taken by a branch's name: for times without network."""
    revision = repository.revision or "main"
    path = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository.name, repo_type="model") / "refs" / revision
    with contextlib.suppress(OSError):  # a cache that is read only, or with a branch v1 of old where v1/x is to be: it is only a note
        if revision != commit and not (path.is_file() and path.read_text() == commit):
            write_files({path: commit.encode()})


def is_same_file(content: bytes | Path, known: RepoFile) -> bool:
    """Whether these are the bytes that the Hub lists: by sha256 for a large file, as git names it for a small one."""
    text = content if isinstance(content, bytes) else content.read_bytes()
    if known.lfs:
        return hashlib.sha256(text).hexdigest() == known.lfs.sha256
    return hashlib.sha1(b"blob %d\0" % len(text) + text).hexdigest() == known.blob_id


def _largest(name: str, record: Record) -> int:
    """Bytes that the weights of a network, or its golden logits, take at most."""
    from reslight.models import count_parameters

    if name == GOLDEN:
        return 2**16 + IMAGES * (record.preprocess.channels * record.preprocess.size**2 + 4 * record.net.num_classes)
    return 2**24 + 16 * count_parameters(record.net)
