"""Publish weights on the Hugging Face Hub as one commit, and read them back."""

import os
import re
from pathlib import Path

from huggingface_hub import HfApi

from reslight.hub.client import client, with_retries
from reslight.hub.commit import changed_files, commit_files, head_of, repository_info, size_of
from reslight.hub.files import check_commit, download, list_files
from reslight.hub.repo import Repository
from reslight.messages import UsageError, visible
from reslight.weights.card import card, merged
from reslight.weights.folder import CARD, CONFIG, GOLDEN, MAX_CARD, MODEL, check_folder, read_card
from reslight.weights.record import Record


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
    found = repository_info(api, Repository(where.name))
    if found and private and not found.private:
        raise UsageError(f"{where.name} is public: these weights would not be private. Make it private on the Hub, or use another name.")
    head = None if found is None else check_commit(found.sha, where) if branch == "main" else head_of(api, where, branch)
    created = "" if head else f"the branch {branch} of {where.name}" if found else where.name
    if created and create_pr:
        raise UsageError(f"{created} does not exist, so it cannot get a pull request. Push without one first.")
    if created and not dry_run:
        if not found:
            with_retries(lambda: api.create_repo(where.name, private=private, exist_ok=True), f"creating {where.name}", where)
        if branch != "main":
            with_retries(lambda: api.create_branch(where.name, branch=branch, exist_ok=True), f"creating {created}", where)
        head = head_of(api, where, branch)
    contents: dict[str, bytes | Path] = {name: here / name for name in (MODEL, GOLDEN, CONFIG)}
    contents[CARD] = _merged(api, where, head, record, here)
    changed = changed_files(api, where, head, contents)
    lines = [
        f"{'new  ' if created else 'send '} {name}, {size_of(content):,} bytes" for name, content in contents.items() if name in changed
    ]
    if not changed:
        return [f"{where} has the same files already, commit {head}"]
    if dry_run:
        return [*lines, f"nothing was sent (dry run); {f'{created} would be created' if created else f'{where} exists'}"]
    commit, url = commit_files(api, where, branch, head, contents, message, create_pr)
    try:
        still = changed_files(api, where, commit, contents)
    except OSError as error:
        raise ConnectionError(f"{where} was published as {commit}, but could not be read back: {error}") from error
    if still:
        raise ConnectionError(
            f"{where} was published as {commit}, but this could not be confirmed: the Hub lists other files there than were sent "
            f"({', '.join(still)}). Look at {visible(url, 300)}, and push again if they are missing."
        )
    return [*lines, f"done  {visible(url, 300)}", f"      load it with reslight.load({f'{where.name}@{commit}'!r})"]


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
