"""The Hub's client, with a bounded number of retries and one line for each way in which it fails.

huggingface_hub's downloads give up at the first server error or dropped connection, and its messages are pages long.
"""

import json
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

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
from reslight.messages import UsageError, visible

log = logging.getLogger(__name__)
Result = TypeVar("Result")
WAITS = (1, 2, 4)
"""Seconds before the second, third and last attempt."""
SLOW = 5
"""Seconds after which a log line says what is waited for."""
PATIENCE = 20
"""Seconds that one attempt may take as a whole, for a request with a small answer."""
SLOWEST = 50_000
"""Bytes per second that a file's attempt may take in addition."""
_LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


def client(token: Literal[False] | None = None) -> HfApi:
    """Return a client of the endpoint that HF_ENDPOINT names now.

    Args:
        token: False to send no token; None for the user's.

    Raises:
        UsageError: HF_ENDPOINT is not a URL.
    """
    from reslight.version import __version__

    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise UsageError(f"HF_ENDPOINT is {endpoint[:100]!r}: it must begin with http:// or https://. Change or unset it.")
    return HfApi(endpoint=endpoint, token=token, library_name="reslight", library_version=__version__)


def is_offline() -> bool:
    """Return whether HF_HUB_OFFLINE forbids requests to the Hub."""
    return bool(constants.HF_HUB_OFFLINE)


def with_retries(call: Callable[[], Result], what: str, repository: Repository, seconds: float | None = None) -> Result:
    """Call `call`, retrying after server errors, dropped connections and silence.

    Args:
        call: The request.
        what: The same in words, for the lines that say what is waited for and what failed.
        repository: The repository that the request is about.
        seconds: How long an attempt may take; PATIENCE if None.

    Returns:
        What `call` returned.

    Raises:
        OSError: the last attempt failed, or a failure that a retry cannot mend; the message is for the user.
    """
    for wait in (*WAITS, None):
        try:
            return in_time(call, what, seconds)
        except Exception as error:
            if wait is None or not is_transient(error):
                translated = translate_error(error, what, repository)
                if translated is error:
                    raise
                raise translated from error
            log.warning("%s: %s; next attempt in %d s", what, _short(error), wait)
            time.sleep(wait)
    raise AssertionError  # the last round returns or raises


def transfer_seconds(nbytes: int) -> float:
    """Return how long an attempt to send or receive a file may take; the client's own retries are in it."""
    return 3 * PATIENCE + nbytes / SLOWEST


def in_time(call: Callable[[], Result], what: str, seconds: float | None = None) -> Result:
    """Call `call`, and stop waiting for it after some seconds; one log line says what is waited for if it takes longer than SLOW.

    The call runs in a thread of its own, which is left behind if it does not end. The client sets no limit for most requests, none
    can be set for looking up an address or for a server that sends a byte now and then, and some waits in it ignore Ctrl-C.

    Args:
        call: The request.
        what: The same in words.
        seconds: How long it may take; PATIENCE if None.

    Raises:
        TimeoutError: the call did not end in time.
    """
    limit = PATIENCE if seconds is None else seconds
    done: queue.SimpleQueue[tuple[Result] | BaseException] = queue.SimpleQueue()

    def run() -> None:
        try:
            done.put((call(),))
        except BaseException as error:  # a caller that got no answer at all would wait for the whole time
            done.put(error)

    threading.Thread(target=run, name=what, daemon=True).start()
    try:
        outcome = done.get(timeout=min(SLOW, limit))
    except queue.Empty:
        log.warning("%s: still waiting after %d s, for %d s at most", what, min(SLOW, limit), limit)
        try:
            outcome = done.get(timeout=max(0.0, limit - SLOW))
        except queue.Empty:
            raise TimeoutError(f"no answer within {limit:.0f} s") from None
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome[0]


def hide_bars_without_tty() -> None:
    """Turn off the client's progress bars where standard error is not a terminal."""
    if not sys.stderr.isatty():
        utils.disable_progress_bars()  # type: ignore[attr-defined]  # huggingface_hub.utils does not list it in __all__


@contextmanager
def quiet_client() -> Iterator[None]:
    """Hide what the client logs about its own retries."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def is_transient(error: BaseException) -> bool:
    """Return whether the same request may succeed a moment later."""
    if isinstance(error, HfHubHTTPError):
        return status_of(error) in (408, 429, 500, 502, 503, 504)
    if isinstance(error, OfflineModeIsEnabled | LocalEntryNotFoundError):
        return False
    if isinstance(error, RuntimeError) and error.__cause__ is not None:  # the client's error of an upload
        return is_transient(error.__cause__)
    if isinstance(error, ConnectionError | TimeoutError) or _is_a(error, "TransportError") or "Consistency check failed" in str(error):
        return True
    return is_nonsense(error) and not _is_a(error, "TooManyRedirects")


def is_nonsense(error: BaseException) -> bool:
    """Return whether the client could not read an answer: another page in place of the Hub's JSON, or JSON with other contents.

    A proxy, a login page of the network, or a server in trouble may answer in the Hub's place. The client reads what it gets without
    looking, so its errors are of any type; those that arise in our own code are bugs.
    """
    if _is_a(error, "DecodingError") or _is_a(error, "TooManyRedirects"):
        return True
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    is_ours = trace is None or trace.tb_frame.f_globals.get("__name__", "").startswith("reslight.")
    unreadable = (json.JSONDecodeError, UnicodeDecodeError, LookupError, TypeError, AttributeError)
    return isinstance(error, unreadable) and not is_ours


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status of an error; None if it has none."""
    return getattr(getattr(error, "response", None), "status_code", None)


def translate_error(error: Exception, what: str, repository: Repository) -> Exception:
    """Return an error of one line that says what failed and what to do; an error that does not come from the Hub is returned as it is."""
    if translated := _refusal(error, what, repository) or _failure(error, what, repository):
        return translated
    if isinstance(error, OSError) and error.errno:
        place = error.filename or "in the cache"
        return OSError(f"{what} failed ({place}: {error.strerror}). Free some space, or set HF_HOME to another folder.")
    if is_nonsense(error):
        reason = f"{type(error).__name__}: {_short(error)}"
        fix = "Check HF_ENDPOINT, and whether the network asks for a login."
        return ConnectionError(f"{what} failed: {_endpoint()} gave an answer that is not the Hub's ({reason}). {fix}")
    if isinstance(error, OSError | ValueError | RuntimeError):
        if isinstance(error.__cause__, Exception):
            return translate_error(error.__cause__, what, repository)
        return ConnectionError(f"{what} failed: {_short(error)}. Try again later.")
    return error


def _refusal(error: Exception, what: str, repository: Repository) -> OSError | None:
    """Translate an error with which the Hub says that the user must change something."""
    name, where, status = repository.name, _endpoint(), status_of(error)
    if isinstance(error, GatedRepoError):
        return PermissionError(f"{name} is gated. Accept its terms at {where}/{repository.path}, then {_LOGIN}.")
    if isinstance(error, RevisionNotFoundError):
        page = f"{where}/{repository.path}/tree/main"
        return FileNotFoundError(f"{name} has no branch, tag or commit {repository.revision or 'main'}. {page} shows which it has.")
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return FileNotFoundError(f"{what} failed: {repository} has no such file. Check the name at {where}/{repository.path}.")
    if isinstance(error, RepositoryNotFoundError):
        return FileNotFoundError(f"{where} has no {repository.kind} {name}, or it is private. Check the name, or {_LOGIN}.")
    if status == 401:
        reason = f"{where} does not know the token" if get_token() else f"{what} needs a token"
        return PermissionError(f"{reason}. To fix it, {_LOGIN}.")
    if status == 403:
        return PermissionError(f"{what} failed: the token has no right to do this with {name}. Use one with write access: {_LOGIN}.")
    if status == 412:
        return ConnectionError(f"{name} changed in the meantime, and nothing was published. Push again.")
    if status and 400 <= status < 500 and status not in (408, 429):
        return OSError(f"{what} failed: {where} refused it with {_short(error)}.")
    return None


def _failure(error: Exception, what: str, repository: Repository) -> OSError | None:
    """Translate an error of the network or of the server."""
    where, status = _endpoint(), status_of(error)
    if isinstance(error, OfflineModeIsEnabled):
        return ConnectionError(f"{what} failed: HF_HUB_OFFLINE is set. Unset it.")
    if isinstance(error, LocalEntryNotFoundError):
        reason = "HF_HUB_OFFLINE is set. Unset it." if is_offline() else f"{where} cannot be reached. Check the network."
        return ConnectionError(f"{what} failed: {repository} is not in the cache, and {reason}")
    if status:
        return ConnectionError(f"{what} failed: {where} answered with {_short(error)}. Try again later.")
    if isinstance(error, ConnectionError | TimeoutError) or _is_a(error, "TransportError"):
        return ConnectionError(f"{what} failed: {where} cannot be reached ({_short(error)}). Check the network.")
    return None


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or constants.ENDPOINT


def _is_a(error: BaseException, name: str) -> bool:
    """Recognize httpx's errors by name: which version of httpx the client uses is the client's choice."""
    return any(kind.__module__.startswith("httpx") and kind.__name__ == name for kind in type(error).__mro__)


def _short(error: BaseException) -> str:
    """Return the status and the server's own words, or the last line of another error, without a period."""
    if status := status_of(error):  # the message of httpx ends with a link to an encyclopedia
        words = getattr(error, "server_message", None)
        return f"status {status}" + (f" ({visible(words, 160)})" if words else "")
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return visible(lines[-1].removesuffix("."), 160) if lines else type(error).__name__
