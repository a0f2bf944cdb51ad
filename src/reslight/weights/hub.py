"""Weights on the Hugging Face Hub: pulled file by file at one commit and checked by us, pushed as one commit or not at all.

The client takes whatever bytes of the right size arrive, and whatever lies in its cache. So every file is compared with
the sha256 that the Hub says, and the weights again with the one in config.json.
"""

import hashlib
import logging
import os
import re
import reprlib
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, constants, hf_hub_url, try_to_load_from_cache
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.hf_api import RepoFile

from reslight.weights.card import card, merged
from reslight.weights.client import WAITS, client, failure, is_offline, is_passing, patiently
from reslight.weights.folder import CARD, CONFIG, FILES, GOLDEN, MODEL, load_network, read_description, sha256_of
from reslight.weights.golden import Golden
from reslight.weights.record import Record
from reslight.weights.repository import Repository
from reslight.weights.strict import MAX_BYTES

log = logging.getLogger(__name__)
_SMALL = {CONFIG: MAX_BYTES, CARD: MAX_BYTES, GOLDEN: 2**30}
"""Bytes that a file may have before anything is known of the network."""
TO_LOAD = (CONFIG, MODEL)
EVERYTHING = (CONFIG, MODEL, GOLDEN, CARD)
"""In the order in which they are taken: config.json says how large the weights may be."""


def fetch(repository: Repository, files: Sequence[str] = TO_LOAD) -> Path:
    """The folder in the Hub's own cache that holds these files of one commit, each checked.

    Without network, or with HF_HUB_OFFLINE, what the cache holds is taken; `load` checks the weights against config.json all the same.

    Raises:
        OSError: The repository, the revision or a file is not there or cannot be reached; one line says which, and what to do.
        ValueError: A file is not what the Hub or config.json says.
    """
    api = client()
    if is_offline():
        return _cached(api, repository, files)
    commit = _commit_of(api, repository)
    known = _listed(api, repository, commit, files)
    folder = Path()
    for name in files:
        limit = _SMALL.get(name) or _largest(read_description(folder, accept_timm=True).record)
        if known[name].size > limit:
            raise ValueError(
                f"{repository}: {name} has {known[name].size:,} bytes, and at most {limit:,} belong to its network; it is not taken"
            )
        folder = _download(api, repository, commit, known[name]).parent
    _remember(repository, commit)
    return folder


def pull(source: str, folder: str | os.PathLike[str]) -> Path:
    """Copy a repository's weights, golden logits and card into a folder of one's own, everything checked.

    Args:
        source: `OWNER/NAME` or `OWNER/NAME@REVISION`.
        folder: Where to; new or empty, or one that was pulled before.

    Raises:
        OSError: It cannot be had, or not be written.
        ValueError: It is not what it says, or `folder` holds other things.
    """
    target = Path(folder)
    if target.exists() and not (target / CONFIG).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{target} holds other things than weights; give a new folder")
    there = fetch(Repository.parse(source), EVERYTHING)
    load_network(read_description(there))  # what is wrong is not copied
    target.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        unfinished = target / f".{name}.{os.getpid()}.tmp"
        try:
            shutil.copyfile(there / name, unfinished)
            unfinished.replace(target / name)
        finally:
            unfinished.unlink(missing_ok=True)
    return target


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
        OSError: It failed, and nothing was published; one line says why.
        ValueError: The folder is damaged, its card and the one on the Hub hold different text of a person, or a public repository
            was to be private.
    """
    where, here = Repository.parse(repository), Path(folder)
    record = _whole(here)
    api, branch = client(), where.revision or "main"
    head = _head(api, where, branch)
    made = head is None
    if private and not made and not patiently(lambda: api.model_info(where.name).private, f"asking for {where.name}", where):
        raise ValueError(
            f"{where.name} is there and public, so this would not be private; make it private on the Hub, or take another name"
        )
    if made and not dry_run:
        patiently(lambda: api.create_repo(where.name, private=private, exist_ok=True), f"making {where.name}", where)
        if branch != "main":
            patiently(lambda: api.create_branch(where.name, branch=branch, exist_ok=True), f"making the branch {branch}", where)
        head = _head(api, where, branch)
    texts = {name: (here / name).read_bytes() for name in (CONFIG, CARD)}
    texts[CARD] = _merged(api, where, head, record, here)
    contents: Mapping[str, bytes | Path] = {MODEL: here / MODEL, GOLDEN: here / GOLDEN} | texts  # type: ignore[operator]
    changed = _changed(api, where, head, contents)
    lines = [f"{'new  ' if made else 'send '} {name}, {_size(content):,} bytes" for name, content in contents.items() if name in changed]
    if dry_run:
        return [*lines, f"nothing was sent: a dry run; {where.name} {'would be made' if made else 'is there'}"]
    if not changed:
        return [f"{where} holds these very files already, commit {head}"]
    commit, url = _commit(api, where, branch, head, contents, message, create_pr)
    if still := _changed(api, where, commit, contents):
        raise ConnectionError(f"{where} at {commit} does not hold what was sent: {', '.join(still)}; push again")
    return [*lines, f"done  {url}", f"      load it with reslight.load({f'{where.name}@{commit}'!r})"]


def _whole(folder: Path) -> Record:
    """Everything that `load` checks, and the golden logits: what is wrong is not published."""
    described = read_description(folder)
    net = load_network(described)
    golden = folder / GOLDEN
    if sha256_of(golden) != described.sha256[GOLDEN]:
        raise ValueError(f"{golden} was altered: its sha256 is not config.json's; export again")
    Golden.read(golden, net, described.record.preprocess)
    if not (folder / CARD).is_file():
        raise FileNotFoundError(f"{folder} has no {CARD}; export again")
    return described.record


def _head(api: HfApi, where: Repository, branch: str) -> str | None:
    """The commit that a branch is at; None for a repository, or a branch, that is not there."""
    try:
        return patiently(lambda: api.model_info(where.name, revision=branch).sha, f"asking for {where}", where)
    except FileNotFoundError:
        return None


def _merged(api: HfApi, where: Repository, head: str | None, record: Record, here: Path) -> bytes:
    """The card with a person's own text, whether it is here or on the Hub.

    Raises:
        ValueError: Both have some, and it is not the same.
    """
    text = (here / CARD).read_text(encoding="utf-8")
    listed = _paths(api, where, head, (CARD,)) if head else {}
    if CARD in listed:
        path = _download(api, where, str(head), listed[CARD])
        one = merged(text, path.read_text(encoding="utf-8", errors="replace"))
        if one is None:
            raise ValueError(
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
            if wait is None or create_pr or not any(map(is_passing, _chain(error))):
                raise failure(error, what, where) from error
            log.warning("%s: the connection broke; next attempt in %d s", what, wait)
            time.sleep(wait)
    raise AssertionError  # the last round returns or raises


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what lies behind it: a failed upload is a RuntimeError to the client."""
    while error is not None:
        yield error
        error = error.__cause__


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
    found = _paths(api, repository, commit, files)
    if missing := [name for name in files if name not in found]:
        raise FileNotFoundError(f"{repository} has no {' and no '.join(missing)}: it is no folder that `reslight push` made")
    return found


def _paths(api: HfApi, repository: Repository, commit: str | None, files: Sequence[str]) -> dict[str, RepoFile]:
    rows = patiently(lambda: api.get_paths_info(repository.name, list(files), revision=commit), f"listing {repository}", repository)
    return {row.path: row for row in rows if isinstance(row, RepoFile)}


def _download(api: HfApi, repository: Repository, commit: str, known: RepoFile) -> Path:
    """A file in the cache that is what the Hub says it is: taken again once if it is not."""
    what = f"taking {known.path} of {repository}"
    kept = try_to_load_from_cache(repository.name, known.path, revision=commit)
    if isinstance(kept, str) and _is(Path(kept), known):
        return Path(kept)
    _check_name(api, repository, commit, known, what)
    for again in (isinstance(kept, str), True):
        if again:
            log.warning("%s of %s came, or lay in the cache, with other bytes than the Hub's: taken again", known.path, repository)
        path = Path(
            patiently(partial(api.hf_hub_download, repository.name, known.path, revision=commit, force_download=again), what, repository)
        )
        if _is(path, known):
            return path
    raise ValueError(
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
        raise ValueError(f"{what}: the server calls it {reprlib.repr(etag)}, which is not the hash that the Hub lists; try another network")


def _cached(api: HfApi, repository: Repository, files: Sequence[str]) -> Path:
    """The folder in the cache, without a request."""
    take = partial(api.hf_hub_download, repository.name, revision=repository.revision, local_files_only=True)
    paths = [patiently(partial(take, name), f"taking {name} of {repository}", repository) for name in files]
    return Path(paths[0]).parent


def _remember(repository: Repository, commit: str) -> None:
    """Note in the cache which commit a branch is at, as the client does for what is taken by a branch's name: for times without network."""
    revision = repository.revision or "main"
    if revision != commit:
        path = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository.name, repo_type="model") / "refs" / revision
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(commit)


def _changed(api: HfApi, where: Repository, commit: str | None, contents: Mapping[str, bytes | Path]) -> list[str]:
    """Names of the files that a commit does not hold as they are here; all, where there is no commit."""
    listed = _paths(api, where, commit, tuple(contents)) if commit else {}
    return [name for name, content in contents.items() if name not in listed or not _is(content, listed[name])]


def _is(content: bytes | Path, known: RepoFile) -> bool:
    """Whether these are the bytes that the Hub lists: by sha256 for a large file, as git names it for a small one."""
    text = content if isinstance(content, bytes) else content.read_bytes()
    if known.lfs:
        return hashlib.sha256(text).hexdigest() == known.lfs.sha256
    return hashlib.sha1(b"blob %d\0" % len(text) + text).hexdigest() == known.blob_id


def _largest(record: Record) -> int:
    """Bytes that the weights of a network take at most."""
    from reslight.models import cost_of

    return 2**24 + 16 * cost_of(record.net).parameters


def _size(content: bytes | Path) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size
