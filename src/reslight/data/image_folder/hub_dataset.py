"""Data sets of the Hugging Face Hub: their parquet files, in the Hub's own cache, at one commit, checked."""

import contextlib
import hashlib
import logging
import re
from pathlib import Path
from typing import Any

from reslight.messages import UsageError

log = logging.getLogger(__name__)

_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*(@\S+)?")
"""What the Hub lets a data set be called, and a revision."""


def is_remote(root: str) -> bool:
    """Whether a root is the name of a data set on the Hub, and no folder that is here."""
    return bool(_NAME.fullmatch(root)) and not Path(root).exists()


def fetch(name: str) -> Path:
    """The folder that holds the parquet files of a data set.

    Args:
        name: `OWNER/DATASET` or `OWNER/DATASET@REVISION`.

    Raises:
        OSError: They cannot be had, or not be kept; one line says why.
        FileNotFoundError: There is no such data set, or it has no parquet files.
        ValueError: A file came with other bytes than the Hub lists.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repository, _, revision = name.partition("@")
    try:
        return _from_cache(repository, revision or None) if constants.HF_HUB_OFFLINE else _from_hub(HfApi(), repository, revision or None)
    except GatedRepoError as error:
        raise ConnectionError(f"{repository} is open only to those who accepted its terms on the Hub; do, and set HF_TOKEN") from error
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"{repository} has no revision {revision}; leave it out for main") from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"there is no folder {name}, and no data set of that name on the Hub that you may see; set data.root, or HF_TOKEN"
        ) from error
    except HFValidationError as error:
        raise FileNotFoundError(f"there is no folder {name}, and no data set of the Hub can be called so; set data.root") from error
    except LocalEntryNotFoundError as error:
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{constants.ENDPOINT} cannot be reached; check the network"
        raise ConnectionError(f"{name} is not in the Hub's cache, and {why}") from error
    except (ValueError, FileNotFoundError, ConnectionError):
        raise
    except Exception as error:  # the client has errors of many kinds, and all mean: it cannot be had
        raise _failure(error, name) from error


def _failure(error: Exception, name: str) -> OSError:
    """What the client says, in a line."""
    if isinstance(error, OSError) and error.errno:
        return OSError(f"{name} cannot be kept in the Hub's cache ({error.strerror}); make room, or set HF_HOME")
    if getattr(getattr(error, "response", None), "status_code", None) == 401:
        return PermissionError(f"{name} cannot be taken: the Hub does not know the token; set HF_TOKEN to one of yours, or unset it")
    reason = " ".join(str(error).partition(" for url ")[0].split())[:160] or type(error).__name__
    return ConnectionError(f"there is no folder {name}, and the data set cannot be taken from the Hub: {reason}")


def _from_cache(repository: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    folder = Path(snapshot_download(repository, repo_type="dataset", revision=revision, local_files_only=True))
    if not next(folder.rglob("*.parquet"), None):  # but a card, perhaps
        raise LocalEntryNotFoundError(f"no parquet files in {folder}")
    return folder


def _from_hub(api: Any, repository: str, revision: str | None) -> Path:
    info = api.dataset_info(repository, revision=revision, files_metadata=True)
    files = [one for one in info.siblings if one.rfilename.endswith(".parquet")]
    if not files:
        raise FileNotFoundError(f"{repository} has no parquet files; most data sets have them at {repository}@refs/convert/parquet")
    log.info("%s at commit %s: %d files, %.2f GB", repository, info.sha[:12], len(files), sum(one.size or 0 for one in files) / 1e9)
    folder = Path()
    for one in files:
        path = _file(api, repository, info.sha, one)
        folder = path.parents[one.rfilename.count("/")]
    if revision != info.sha:  # noted as the client does for what is taken by a branch's name: for times without network
        note = folder.parents[1] / "refs" / (revision or "main")
        with contextlib.suppress(OSError):  # a cache that is read only: it is only a note
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(info.sha)
    return folder


def _file(api: Any, repository: str, commit: str, known: Any) -> Path:
    """A file in the cache; what is downloaded now is compared with the hash that the Hub lists, what was there before with its size."""
    from huggingface_hub import try_to_load_from_cache

    kept = try_to_load_from_cache(repository, known.rfilename, revision=commit, repo_type="dataset")
    if isinstance(kept, str) and Path(kept).stat().st_size == known.size:
        return Path(kept)
    again = isinstance(kept, str)
    path = Path(api.hf_hub_download(repository, known.rfilename, repo_type="dataset", revision=commit, force_download=again))
    if not _is_same(path, known):
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise UsageError(f"{known.rfilename} of {repository} came with other bytes than the Hub lists; it was deleted: try again")
    return path


def _is_same(path: Path, known: Any) -> bool:
    """Whether these are the bytes that the Hub lists: by sha256 for a large file, as git names it for a small one."""
    if not known.lfs:
        content = path.read_bytes()
        return bool(hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == known.blob_id)
    with path.open("rb") as file:
        return bool(hashlib.file_digest(file, "sha256").hexdigest() == known.lfs.sha256)
