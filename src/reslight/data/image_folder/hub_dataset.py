"""Datasets of the Hugging Face Hub: their parquet files, in the Hub's own cache, at one commit, checked."""

import logging
import re
from pathlib import Path

from reslight.hub.repo import Repository
from reslight.messages import UsageError

log = logging.getLogger(__name__)

_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*(@\S+)?")


def is_remote(root: str) -> bool:
    """Return whether a root looks like `OWNER/DATASET` or `OWNER/DATASET@REVISION`, and is not a folder."""
    return bool(_NAME.fullmatch(root)) and not Path(root).exists()


def fetch(name: str) -> Path:
    """Return the folder of the Hub's cache that holds the parquet files of a dataset; download those that are missing.

    Args:
        name: `OWNER/DATASET` or `OWNER/DATASET@REVISION`.

    Raises:
        FileNotFoundError: the Hub has no such dataset or revision, or the dataset has no parquet files.
        OSError: the files cannot be downloaded, or not be written to the cache.
        UsageError: a file was downloaded with other bytes than the Hub lists.
    """
    from reslight.hub.client import is_offline  # huggingface_hub takes half a second to import

    try:
        repository = Repository.parse(name, "dataset")
    except UsageError as error:
        raise FileNotFoundError(f"data.root is {name}: there is no such folder, and {error}") from None
    try:
        return _from_cache(repository) if is_offline() else _from_hub(repository)
    except (FileNotFoundError, ConnectionError) as error:
        raise type(error)(f"data.root is {name}: there is no such folder, and {error}") from error


def _from_cache(repository: Repository) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    from reslight.hub.client import with_retries

    def find() -> Path:
        folder = Path(snapshot_download(repository.name, repo_type="dataset", revision=repository.revision, local_files_only=True))
        if not next(folder.rglob("*.parquet"), None):  # the cache may hold nothing but the dataset's card
            raise LocalEntryNotFoundError(f"no parquet files in {folder}")
        return folder

    return with_retries(find, f"reading {repository}", repository)


def _from_hub(repository: Repository) -> Path:
    from reslight.hub.client import client
    from reslight.hub.files import commit_of, download, list_files, remember_commit

    api = client()
    commit = commit_of(api, repository)
    files = [file for name, file in sorted(list_files(api, repository, commit).items()) if name.endswith(".parquet")]
    if not files:
        raise FileNotFoundError(
            f"the dataset {repository} has no parquet files. Most datasets have them at {repository.name}@refs/convert/parquet."
        )
    log.info("%s at commit %s: %d files, %.2f GB", repository, commit[:12], len(files), sum(file.size for file in files) / 1e9)
    paths = [download(api, repository, commit, file) for file in files]
    remember_commit(repository, commit)
    return paths[0].parents[files[0].path.count("/")]
