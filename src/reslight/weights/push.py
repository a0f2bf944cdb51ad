"""Publish weights on the Hugging Face Hub as one commit, and read them back."""

import logging
import os
import re
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, ModelInfo

from reslight.hub.client import WAITS, client, in_time, is_transient, status_of, transfer_seconds, translate_error, with_retries
from reslight.hub.files import check_commit, download, is_same_file, list_files
from reslight.hub.repo import Repository
from reslight.messages import UsageError, visible
from reslight.weights.card import card, merged
from reslight.weights.folder import CARD, CONFIG, GOLDEN, MAX_CARD, MODEL, check_folder, read_card
from reslight.weights.record import Record

log = logging.getLogger(__name__)


def push(
    folder: str | os.PathLike[str],
    repository: str,
    *,
    private: bool | None = None,
    create_pr: bool = False,
    dry_run: bool = False,
    message: str = "Publish weights with reslight",
) -> list[str]:
    """Publish a folder as one commit, and check that the Hub has the same files.

    Args:
        folder: The folder that `reslight export` or `save` wrote.
        repository: `OWNER/NAME` or `OWNER/NAME@BRANCH`; created if it is missing.
        private: Whether a new repository is private; None for the owner's default.
        create_pr: Open a pull request instead of pushing to the branch.
        dry_run: Return what would be done, and do nothing.
        message: Title of the commit.

    Returns:
        Lines that say what was done, and where the weights are.

    Raises:
        OSError: a request that failed; one line says why. Nothing was published, unless the line says that the files could not be read
            back.
        UsageError: a damaged folder, a card with other text of yours than the one on the Hub, or `private` for a public repository.
    """
    where, here = Repository.parse(repository), Path(folder)
    if re.fullmatch(r"[0-9a-f]{40}", where.revision or ""):
        raise UsageError(f"{where} is a commit, which cannot change. Push to a branch.")
    record = check_folder(here)
    api, branch = client(), where.revision or "main"
    found = _info(api, Repository(where.name))
    if found and private and not found.private:
        raise UsageError(f"{where.name} is public: these weights would not be private. Make it private on the Hub, or use another name.")
    head = None if found is None else check_commit(found.sha, where) if branch == "main" else _head(api, where, branch)
    created = "" if head else f"the branch {branch} of {where.name}" if found else where.name
    if created and create_pr:
        raise UsageError(f"{created} does not exist, so it cannot get a pull request. Push without one first.")
    if created and not dry_run:
        if not found:
            with_retries(lambda: api.create_repo(where.name, private=private, exist_ok=True), f"creating {where.name}", where)
        if branch != "main":
            with_retries(lambda: api.create_branch(where.name, branch=branch, exist_ok=True), f"creating {created}", where)
        head = _head(api, where, branch)
    contents: dict[str, bytes | Path] = {name: here / name for name in (MODEL, GOLDEN, CONFIG)}
    contents[CARD] = _merged(api, where, head, record, here)
    changed = _changed(api, where, head, contents)
    lines = [f"{'new  ' if created else 'send '} {name}, {_size(content):,} bytes" for name, content in contents.items() if name in changed]
    if not changed:
        return [f"{where} has the same files already, commit {head}"]
    if dry_run:
        return [*lines, f"nothing was sent (dry run); {f'{created} would be created' if created else f'{where} exists'}"]
    commit, url = _commit(api, where, branch, head, contents, message, create_pr)
    try:
        still = _changed(api, where, commit, contents)
    except OSError as error:
        raise ConnectionError(f"{where} was published as {commit}, but could not be read back: {error}") from error
    if still:
        raise ConnectionError(
            f"{where} was published as {commit}, but this could not be confirmed: the Hub lists other files there than were sent "
            f"({', '.join(still)}). Look at {visible(url, 300)}, and push again if they are missing."
        )
    return [*lines, f"done  {visible(url, 300)}", f"      load it with reslight.load({f'{where.name}@{commit}'!r})"]


def _info(api: HfApi, where: Repository) -> ModelInfo | None:
    """Return the Hub's information on a repository at a branch; None if one of them is missing."""
    try:
        return with_retries(lambda: api.model_info(where.name, revision=where.revision), f"looking up {where}", where)
    except FileNotFoundError:
        return None


def _head(api: HfApi, where: Repository, branch: str) -> str | None:
    """Return the commit that a branch is at; None for a missing branch."""
    found = _info(api, Repository(where.name, branch))
    return check_commit(found.sha, where) if found else None


def _merged(api: HfApi, where: Repository, head: str | None, record: Record, here: Path) -> bytes:
    """Return the card with the user's own text, from the folder or from the Hub.

    Raises:
        UsageError: different text in both.
    """
    text = read_card(here)
    listed = list_files(api, where, head, (CARD,)) if head else {}
    if CARD in listed:
        if listed[CARD].size > MAX_CARD:
            raise UsageError(f"the card of {where} has {listed[CARD].size:,} bytes: at most {MAX_CARD:,} are read. Shorten it on the Hub.")
        path = download(api, where, str(head), listed[CARD])
        one = merged(text, path.read_text(encoding="utf-8", errors="replace"))
        if one is None:
            raise UsageError(f"{here / CARD} and the card of {where} hold different text of yours. Make them the same, and push again.")
        text = one
    return card(record, (here / MODEL).stat().st_size, text, where.name).encode()


def _commit(
    api: HfApi, where: Repository, branch: str, head: str | None, contents: Mapping[str, bytes | Path], message: str, create_pr: bool
) -> tuple[str, str]:
    """Commit the files on top of `head`; after a dropped connection, commit again only if it is certain that the first commit failed."""
    what = f"publishing {where}"
    adds = [CommitOperationAdd(name, content if isinstance(content, bytes) else str(content)) for name, content in contents.items()]
    for add, content in zip(adds, contents.values(), strict=True):  # one by one: the client's threads for several files ignore Ctrl-C
        send = partial(api.preupload_lfs_files, where.name, [add], revision=branch, create_pr=create_pr, free_memory=False)
        with_retries(send, f"sending {add.path_in_repo} to {where}", where, transfer_seconds(_size(content)))

    requests = _pull_requests(api, where) if create_pr else {}

    def attempt() -> tuple[str, str]:
        done = api.create_commit(
            where.name, adds, commit_message=message, parent_commit=None if create_pr else head, revision=branch, create_pr=create_pr
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
                    now = _head(api, where, branch)
                    made = [(now, f"commit/{now}")] if now and now != head else []
                for commit, page in made:
                    if not _changed(api, where, commit, contents):
                        return commit, f"{api.endpoint}/{where.name}/{page}"
            except OSError as unknown:
                raise ConnectionError(
                    f"{what} could not be confirmed, and may have succeeded: {unknown} "
                    f"Look at {api.endpoint}/{where.name} before you push again."
                ) from error
            if wait is None or not is_transient(error):
                raise translate_error(error, what, where) from error
            log.warning("%s: the answer was lost; next attempt in %d s", what, wait)
            time.sleep(wait)
    raise AssertionError  # the last round returns or raises


def _pull_requests(api: HfApi, where: Repository) -> dict[str, str]:
    """Return the commits that pull requests are at, by `refs/pr/NUMBER`."""
    ask = partial(api.list_repo_refs, where.name, include_pull_requests=True)
    found = with_retries(ask, f"listing the pull requests of {where}", where).pull_requests or []
    return {str(one.ref): check_commit(one.target_commit, where) for one in found}


def _changed(api: HfApi, where: Repository, commit: str | None, contents: Mapping[str, bytes | Path]) -> list[str]:
    """Return the names of the files that differ from those of a commit; all of them if there is no commit."""
    listed = list_files(api, where, commit, tuple(contents)) if commit else {}
    return [name for name, content in contents.items() if name not in listed or not is_same_file(content, listed[name])]


def _size(content: bytes | Path) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size
