"""Commit files to a Hub repository in one commit, on top of the one that was seen, and find out whether it succeeded."""

import logging
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, ModelInfo, SpaceInfo

from reslight.hub.client import WAITS, in_time, is_transient, status_of, transfer_seconds, translate_error, with_retries
from reslight.hub.files import check_commit, is_same_file, list_files
from reslight.hub.repo import Repository

log = logging.getLogger(__name__)


def repository_info(api: HfApi, where: Repository) -> ModelInfo | SpaceInfo | None:
    """Return the Hub's information on a repository at a branch; None if one of them is missing."""
    ask = partial(api.repo_info, where.name, revision=where.revision, repo_type=where.kind)
    try:
        found: Any = with_retries(ask, f"looking up {where}", where)
    except FileNotFoundError:
        return None
    return found  # type: ignore[no-any-return]  # the client's type has more members in newer versions


def head_of(api: HfApi, where: Repository, branch: str) -> str | None:
    """Return the commit that a branch is at; None for a missing branch."""
    found = repository_info(api, Repository(where.name, branch, where.kind))
    return check_commit(found.sha, where) if found else None


def commit_files(
    api: HfApi, where: Repository, branch: str, head: str | None, contents: Mapping[str, bytes | Path], message: str, create_pr: bool
) -> tuple[str, str]:
    """Commit the files on top of `head`; after a dropped connection, commit again only if it is certain that the first commit failed."""
    what = f"publishing {where}"
    adds = [CommitOperationAdd(name, content if isinstance(content, bytes) else str(content)) for name, content in contents.items()]
    for add, content in zip(adds, contents.values(), strict=True):  # one by one: the client's threads for several files ignore Ctrl-C
        send = partial(
            api.preupload_lfs_files, where.name, [add], repo_type=where.kind, revision=branch, create_pr=create_pr, free_memory=False
        )
        with_retries(send, f"sending {add.path_in_repo} to {where}", where, transfer_seconds(size_of(content)))

    requests = _pull_requests(api, where) if create_pr else {}

    def attempt() -> tuple[str, str]:
        done = api.create_commit(
            where.name,
            adds,
            repo_type=where.kind,
            commit_message=message,
            parent_commit=None if create_pr else head,
            revision=branch,
            create_pr=create_pr,
        )
        return check_commit(done.oid, where), str(done.pr_url or done.commit_url)

    for wait in (*WAITS, None):
        try:
            return in_time(attempt, what, transfer_seconds(0))
        except Exception as error:
            if (status := status_of(error)) and 400 <= status < 500 and status not in (408, 412, 429):
                raise translate_error(error, what, where) from error
            try:  # the commit may have succeeded, and its answer been lost
                if create_pr:
                    new = {name: sha for name, sha in _pull_requests(api, where).items() if name not in requests}
                    made = [(sha, f"discussions/{name.rpartition('/')[2]}") for name, sha in new.items()]
                else:
                    now = head_of(api, where, branch)
                    made = [(now, f"commit/{now}")] if now and now != head else []
                for commit, page in made:
                    if not changed_files(api, where, commit, contents):
                        return commit, f"{api.endpoint}/{where.path}/{page}"
            except OSError as unknown:
                raise ConnectionError(
                    f"{what} could not be confirmed, and may have succeeded: {unknown} "
                    f"Look at {api.endpoint}/{where.path} before you push again."
                ) from error
            if wait is None or not is_transient(error):
                raise translate_error(error, what, where) from error
            log.warning("%s: the answer was lost; next attempt in %d s", what, wait)
            time.sleep(wait)
    raise AssertionError  # the last round returns or raises


def _pull_requests(api: HfApi, where: Repository) -> dict[str, str]:
    """Return the commits that pull requests are at, by `refs/pr/NUMBER`."""
    ask = partial(api.list_repo_refs, where.name, repo_type=where.kind, include_pull_requests=True)
    found = with_retries(ask, f"listing the pull requests of {where}", where).pull_requests or []
    return {str(one.ref): check_commit(one.target_commit, where) for one in found}


def changed_files(api: HfApi, where: Repository, commit: str | None, contents: Mapping[str, bytes | Path]) -> list[str]:
    """Return the names of the files that differ from those of a commit; all of them if there is no commit."""
    listed = list_files(api, where, commit, tuple(contents)) if commit else {}
    return [name for name, content in contents.items() if name not in listed or not is_same_file(content, listed[name])]


def size_of(content: bytes | Path) -> int:
    """Return the bytes of a file that is sent."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size
