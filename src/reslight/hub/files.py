"""Files of a Hub repository: listed and downloaded at one commit, checked by hash."""

import contextlib
import hashlib
import logging
import re
import reprlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_url, try_to_load_from_cache
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.hf_api import RepoFile

from reslight.atomic import write_files
from reslight.hub.client import patiently
from reslight.hub.repo import Repository
from reslight.messages import UsageError

log = logging.getLogger(__name__)


def commit_of(api: HfApi, repository: Repository) -> str:
    """The commit that a revision is at, asked for once."""
    if repository.revision and re.fullmatch(r"[0-9a-f]{40}", repository.revision):
        return repository.revision
    sha = patiently(lambda: api.model_info(repository.name, revision=repository.revision).sha, f"asking for {repository}", repository)
    if not re.fullmatch(r"[0-9a-f]{40}", sha or ""):
        raise ConnectionError(f"the Hub says {str(sha)[:50]!r} is the commit of {repository}, which is none; try again later")
    return str(sha)


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


def remember_commit(repository: Repository, commit: str) -> None:
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
