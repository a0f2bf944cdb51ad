"""The Hub's own client, with bounded patience and one clear line for each way in which it fails.

Its downloads give up at once on a server error and on a connection that breaks, and its messages are pages long.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from huggingface_hub import HfApi, constants, get_token, utils
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from reslight.hub.repo import Repository
from reslight.messages import UsageError

log = logging.getLogger(__name__)
Result = TypeVar("Result")
WAITS = (1, 2, 4)
"""Seconds before the second, third and last attempt."""
LONG = 5
"""Seconds after which a person wants to know what is waited for."""
_LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


def client() -> HfApi:
    """The client, at the endpoint that HF_ENDPOINT names now."""
    from reslight.version import __version__

    endpoint = os.environ.get("HF_ENDPOINT") or None
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise UsageError(f"HF_ENDPOINT is {endpoint[:100]!r}, must begin with http:// or https://")
    return HfApi(endpoint=endpoint, library_name="reslight", library_version=__version__)


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids to ask the Hub."""
    return bool(constants.HF_HUB_OFFLINE)


def patiently(call: Callable[[], Result], what: str, repository: Repository) -> Result:
    """The answer of a call that may be made again, after a server error or a broken connection.

    Args:
        call: What to do.
        what: The same in words, for the lines that say what is waited for.
        repository: Which repository it is about.

    Raises:
        OSError: It failed in the end, or for a reason that waiting does not mend; the message is for the user.
    """
    for wait in (*WAITS, None):
        try:
            with said_if_long(what):
                return call()
        except Exception as error:
            if wait is None or not is_passing(error):
                raise failure(error, what, repository) from error
            log.warning("%s: %s; next attempt in %d s", what, _short(error), wait)
            time.sleep(wait)
    raise AssertionError  # the last round returns or raises


@contextmanager
def said_if_long(what: str) -> Iterator[None]:
    """Inside, one line says what is waited for once it takes long."""
    timer = threading.Timer(LONG, log.warning, ("%s: still under way after %d s", what, LONG))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def bars_for_people_only() -> None:
    """Leave out the client's progress bars where nobody watches."""
    if not sys.stderr.isatty():
        utils.disable_progress_bars()  # type: ignore[attr-defined]  # huggingface_hub.utils exports it without saying so


@contextmanager
def quiet_client() -> Iterator[None]:
    """Inside, the client says nothing of its own attempts."""
    talker = logging.getLogger("huggingface_hub")
    level = talker.level
    talker.setLevel(logging.ERROR)
    try:
        yield
    finally:
        talker.setLevel(level)


def is_passing(error: BaseException) -> bool:
    """Whether the same call may succeed a moment later."""
    if isinstance(error, HfHubHTTPError):
        return status_of(error) in (408, 429, 500, 502, 503, 504)
    if isinstance(error, OfflineModeIsEnabled | LocalEntryNotFoundError):
        return False
    # httpx (of whichever major version) is the client's matter; its errors in transport are known by their names
    return isinstance(error, ConnectionError | TimeoutError) or _is_transport(error) or "Consistency check failed" in str(error)


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error brings."""
    return getattr(getattr(error, "response", None), "status_code", None)


def failure(error: Exception, what: str, repository: Repository) -> Exception:
    """The error in one line, with what to do; an error that is no failure of the Hub as it is."""
    name, where, status = repository.name, os.environ.get("HF_ENDPOINT") or constants.ENDPOINT, status_of(error)
    if isinstance(error, OfflineModeIsEnabled):
        return ConnectionError(f"{what}: HF_HUB_OFFLINE is set; unset it")
    if isinstance(error, LocalEntryNotFoundError):
        return ConnectionError(
            f"{what}: it is not in the cache, and {'HF_HUB_OFFLINE is set; unset it' if is_offline() else f'{where} cannot be reached'}"
        )
    if isinstance(error, GatedRepoError):
        return PermissionError(f"{name} is gated: accept its terms at {where}/{name}, then {_LOGIN}")
    if isinstance(error, RevisionNotFoundError):
        return FileNotFoundError(
            f"{name} has no branch, tag or commit {repository.revision or 'main'}; {where}/{name}/tree/main shows what it has"
        )
    if isinstance(error, EntryNotFoundError):
        return FileNotFoundError(f"{repository} is no folder of reslight: {what} found no such file")
    if status == 401 and not isinstance(error, RepositoryNotFoundError):
        said = f"{where} does not know the token" if get_token() else f"{what}: {where} wants to know who you are"
        return PermissionError(f"{said}; {_LOGIN}")
    if isinstance(error, RepositoryNotFoundError):
        return FileNotFoundError(f"there is no repository {name} at {where}, or it is private; check the name, or {_LOGIN}")
    if status == 403:
        return PermissionError(f"{what}: the token may not do that at {name}; take one with write access: {_LOGIN}")
    if status == 412:
        return ConnectionError(f"{name} changed in the meantime, and nothing was published; push again")
    if status and 400 <= status < 500 and status not in (408, 429):
        return OSError(f"{what}: {where} refused it with {status} ({_short(error)})")
    if status:
        return ConnectionError(f"{what}: {where} answered {status} ({_short(error)}); try again later")
    if isinstance(error, ConnectionError | TimeoutError) or _is_transport(error):
        return ConnectionError(f"{what}: {where} cannot be reached ({_short(error)}); check the network")
    if isinstance(error, OSError) and error.errno:
        return OSError(f"{what}: {error.strerror} ({error.filename or 'in the cache'}); make room, or set HF_HOME to another place")
    if isinstance(error, OSError | ValueError | RuntimeError):
        cause = error.__cause__
        return failure(cause, what, repository) if isinstance(cause, Exception) else ConnectionError(f"{what}: {_short(error)}")
    return error


def _is_transport(error: BaseException) -> bool:
    return any(kind.__module__.startswith("httpx") and kind.__name__ == "TransportError" for kind in type(error).__mro__)


def _short(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:160]
