"""Files of a Hub repository: listed and downloaded at one commit, checked by hash.

The client accepts whatever bytes of the right size arrive, and whatever its cache holds.
"""

import contextlib
import hashlib
import logging
import re
import reprlib
from collections.abc import Sequence
from functools import partial
from io import BytesIO
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_url, try_to_load_from_cache
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.hf_api import RepoFile

from reslight.atomic import write_files
from reslight.hub.client import transfer_seconds, with_retries
from reslight.hub.repo import Repository
from reslight.messages import UsageError, visible

log = logging.getLogger(__name__)
_NONSENSE = "a file's name, size or hash is missing in the Hub's answer. Check HF_ENDPOINT, and try again later."
_LISTING = 600
"""Seconds that the list of all files of a repository may take."""


def commit_of(api: HfApi, repository: Repository) -> str:
    """Return the commit that the repository's revision is at, with at most one request."""
    if repository.revision and re.fullmatch(r"[0-9a-f]{40}", repository.revision):
        return repository.revision
    ask = partial(api.repo_info, repository.name, repo_type=repository.kind, revision=repository.revision)
    return check_commit(with_retries(ask, f"looking up {repository}", repository).sha, repository)


def check_commit(sha: object, repository: Repository) -> str:
    """Return a commit that the Hub named.

    Raises:
        ConnectionError: what it named is no commit.
    """
    if not isinstance(sha, str) or not re.fullmatch(r"[0-9a-f]{40}", sha):
        raise ConnectionError(
            f"the commit of {repository} is {visible(sha)!r} to the Hub: it must be 40 hexadecimal digits. Try again later."
        )
    return sha


def list_files(api: HfApi, repository: Repository, commit: str | None, names: Sequence[str] | None = None) -> dict[str, RepoFile]:
    """Return what the Hub lists of the files of a commit, by name.

    Args:
        api: The client.
        repository: The repository.
        commit: The commit; None for the head of main.
        names: The files to list, those that the commit has; None for all.
    """

    def ask() -> list[object]:
        if names is None:
            return list(api.list_repo_tree(repository.name, recursive=True, revision=commit, repo_type=repository.kind))
        return list(api.get_paths_info(repository.name, list(names), revision=commit, repo_type=repository.kind))

    seconds = _LISTING if names is None else None  # a dataset may have 100,000 files, which come in pages of 1,000
    rows = with_retries(ask, f"listing the files of {repository}", repository, seconds)
    files = {row.path: row for row in rows if isinstance(row, RepoFile)}
    for name, file in files.items():
        digest = file.lfs.sha256 if file.lfs else file.blob_id
        if not isinstance(name, str) or type(file.size) is not int or not isinstance(digest, str):
            raise ConnectionError(f"listing the files of {repository} failed: {_NONSENSE}")
    return files


def download(api: HfApi, repository: Repository, commit: str, listed: RepoFile, folder: Path | None = None) -> Path:
    """Download a file, at most twice, until it has the hash that the Hub lists; nothing is downloaded if the cache has it.

    Args:
        api: The client.
        repository: The repository.
        commit: The commit.
        listed: The file, from `list_files`.
        folder: Folder to write to; None for the Hub's cache.

    Returns:
        The file's path.

    Raises:
        OSError: the file cannot be downloaded or written.
        UsageError: the file has another hash than the Hub lists, twice.
    """
    what = f"downloading {listed.path} of {repository}"
    cached = None if folder else try_to_load_from_cache(repository.name, listed.path, revision=commit, repo_type=repository.kind)
    if isinstance(cached, str) and _is_intact(Path(cached), listed, repository):
        return Path(cached)
    _check_etag(api, repository, commit, listed, what)
    fetch = partial(
        api.hf_hub_download, repository.name, listed.path, repo_type=repository.kind, revision=commit, local_dir=folder and str(folder)
    )
    for force in (isinstance(cached, str), True):
        if force:
            log.warning("%s of %s has other bytes than the Hub lists; downloading it again", listed.path, repository)
        path = Path(with_retries(partial(fetch, force_download=force), what, repository, transfer_seconds(listed.size)))
        if is_same_file(path, listed):
            return path
    path.resolve().unlink()
    path.unlink(missing_ok=True)
    raise UsageError(
        f"{listed.path} of {repository} was downloaded twice and is not the file that the Hub lists: something on the way changes it. "
        "Try another network."
    )


def _is_intact(cached: Path, listed: RepoFile, repository: Repository) -> bool:
    """Return whether a file of the cache is the listed one; a dataset's files are compared by size only."""
    if repository.kind == "dataset":  # they can be 100 GB, which are not hashed at every start; they were when they were downloaded
        return cached.stat().st_size == listed.size
    return is_same_file(cached, listed)


def _check_etag(api: HfApi, repository: Repository, commit: str, listed: RepoFile, what: str) -> None:
    """Check the name that the client will give a file in its cache: it is the server's ETag, which must be the file's hash.

    Raises:
        UsageError: the server gives another name, which may be a path out of the cache.
    """
    url = hf_hub_url(repository.name, listed.path, revision=commit, repo_type=repository.kind, endpoint=api.endpoint)
    etag = with_retries(lambda: api.get_hf_file_metadata(url=url, token=api.token).etag, what, repository)
    if etag != (listed.lfs.sha256 if listed.lfs else listed.blob_id):
        raise UsageError(
            f"{what} failed: the server's ETag is {reprlib.repr(etag)}, which is not the hash that the Hub lists. Try another network."
        )


def remember_commit(repository: Repository, commit: str) -> None:
    """Note in the cache which commit a branch is at, as the client does when it downloads from a branch, for use without a network."""
    revision = repository.revision or "main"
    path = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository.name, repo_type=repository.kind) / "refs" / revision
    with contextlib.suppress(OSError):  # the note is optional: a cache may be read only, or hold a branch `v1` of old where `v1/x` belongs
        if revision != commit and not (path.is_file() and path.read_text() == commit):
            write_files({path: commit.encode()})


def is_same_file(content: bytes | Path, listed: RepoFile) -> bool:
    """Return whether content has the hash that the Hub lists: sha256 for a large file, git's blob hash for a small one."""
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    start = hashlib.sha256() if listed.lfs else hashlib.sha1(b"blob %d\0" % size)
    with BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: start).hexdigest()
    return digest == (listed.lfs.sha256 if listed.lfs else listed.blob_id)
