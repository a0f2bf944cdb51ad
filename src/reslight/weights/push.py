"""Weights published on the Hugging Face Hub: as one commit or not at all, and read back."""

import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, ModelInfo

from reslight.hub.client import WAITS, client, is_transient, translate_error, with_retries
from reslight.hub.files import download, is_same_file, list_files
from reslight.hub.repo import Repository
from reslight.messages import UsageError
from reslight.weights.card import card, merged
from reslight.weights.folder import CARD, CONFIG, GOLDEN, MODEL, check_folder, read_card
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
    """Publish a folder as one commit, and read back that the Hub holds these very files.

    Args:
        folder: Of `reslight export` or `save`.
        repository: `OWNER/NAME`, which is made if it is not there, or `OWNER/NAME@BRANCH`.
        private: Of a repository that is made; the owner's default if None.
        create_pr: Open a pull request in place of a commit.
        dry_run: Only say what would be done.
        message: Title of the commit.

    Returns:
        Lines: what was done, and where it is.

    Raises:
        OSError: It failed; one line says why. Nothing was published, unless it says that what was published could not be read back.
        ValueError: The folder is damaged, its card and the one on the Hub hold different text of a person, or a public repository
            was to be private.
    """
    where, here = Repository.parse(repository), Path(folder)
    if re.fullmatch(r"[0-9a-f]{40}", where.revision or ""):
        raise UsageError(f"{where} is a commit, which never changes; push to a branch")
    record = check_folder(here)
    api, branch = client(), where.revision or "main"
    there = _about(api, Repository(where.name))
    if there and private and not there.private:
        raise UsageError(
            f"{where.name} is there and public, so this would not be private; make it private on the Hub, or take another name"
        )
    head = None if there is None else there.sha if branch == "main" else _head(api, where, branch)
    made = "" if head else f"the branch {branch} of {where.name}" if there else where.name
    if made and create_pr:
        raise UsageError(f"{made} is not there, so no pull request can be opened against it; push without a pull request first")
    if made and not dry_run:
        if not there:
            with_retries(lambda: api.create_repo(where.name, private=private, exist_ok=True), f"creating {where.name}", where)
        if branch != "main":
            with_retries(lambda: api.create_branch(where.name, branch=branch, exist_ok=True), f"creating {made}", where)
        head = _head(api, where, branch)
    contents: dict[str, bytes | Path] = {name: here / name for name in (MODEL, GOLDEN, CONFIG)}
    contents[CARD] = _merged(api, where, head, record, here)
    changed = _changed(api, where, head, contents)
    lines = [f"{'new  ' if made else 'send '} {name}, {_size(content):,} bytes" for name, content in contents.items() if name in changed]
    if not changed:
        return [f"{where} holds these very files already, commit {head}"]
    if dry_run:
        return [*lines, f"nothing was sent: a dry run; {f'{made} would be made' if made else f'{where} is there'}"]
    commit, url = _commit(api, where, branch, head, contents, message, create_pr)
    try:
        still = _changed(api, where, commit, contents)
    except OSError as error:
        raise ConnectionError(f"{where} was published as {commit}, and could not be read back: {error}") from error
    if still:
        raise ConnectionError(f"{where} at {commit} does not hold what was sent: {', '.join(still)}; push again")
    return [*lines, f"done  {url}", f"      load it with reslight.load({f'{where.name}@{commit}'!r})"]


def _about(api: HfApi, where: Repository) -> ModelInfo | None:
    """What the Hub says of a repository at a branch; None if it is not there, or not the branch."""
    try:
        return with_retries(lambda: api.model_info(where.name, revision=where.revision), f"looking up {where}", where)
    except FileNotFoundError:
        return None


def _head(api: HfApi, where: Repository, branch: str) -> str | None:
    """The commit that a branch is at; None for one that is not there."""
    found = _about(api, Repository(where.name, branch))
    return found.sha if found else None


def _merged(api: HfApi, where: Repository, head: str | None, record: Record, here: Path) -> bytes:
    """The card with a person's own text, whether it is here or on the Hub.

    Raises:
        ValueError: Both have some, and it is not the same.
    """
    text = read_card(here)
    listed = list_files(api, where, head, (CARD,)) if head else {}
    if CARD in listed:
        path = download(api, where, str(head), listed[CARD])
        one = merged(text, path.read_text(encoding="utf-8", errors="replace"))
        if one is None:
            raise UsageError(
                f"{here / CARD} and the card of {where} hold different text of yours; make them one, here or there, and push again"
            )
        text = one
    return card(record, (here / MODEL).stat().st_size, text, where.name).encode()


def _commit(
    api: HfApi, where: Repository, branch: str, head: str | None, contents: Mapping[str, bytes | Path], message: str, create_pr: bool
) -> tuple[str, str]:
    """One commit on top of `head`, made again after a broken connection only if it is certain that it was not made."""
    what = f"publishing {where}"

    def attempt() -> tuple[str, str]:
        adds = [CommitOperationAdd(name, content if isinstance(content, bytes) else str(content)) for name, content in contents.items()]
        done = api.create_commit(
            where.name, adds, commit_message=message, parent_commit=None if create_pr else head, revision=branch, create_pr=create_pr
        )
        return done.oid, str(done.pr_url or done.commit_url)

    for wait in (*WAITS, None):
        try:
            return attempt()
        except Exception as error:
            lost = not create_pr and (now := _head(api, where, branch)) not in (None, head) and not _changed(api, where, now, contents)
            if lost:  # it was made, and the answer did not come through
                return str(now), f"{api.endpoint}/{where.name}/commit/{now}"
            if wait is None or create_pr or not any(map(is_transient, _chain(error))):
                raise translate_error(error, what, where) from error
            log.warning("%s: the connection broke; next attempt in %d s", what, wait)
            time.sleep(wait)
    raise AssertionError  # the last round returns or raises


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what lies behind it: a failed upload is a RuntimeError to the client."""
    while error is not None:
        yield error
        error = error.__cause__


def _changed(api: HfApi, where: Repository, commit: str | None, contents: Mapping[str, bytes | Path]) -> list[str]:
    """Names of the files that a commit does not hold as they are here; all, where there is no commit."""
    listed = list_files(api, where, commit, tuple(contents)) if commit else {}
    return [name for name, content in contents.items() if name not in listed or not is_same_file(content, listed[name])]


def _size(content: bytes | Path) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size
