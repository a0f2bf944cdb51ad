"""`Bucket`: files of a folder on S3, with bounded waits and retries, and one line for each way in which it fails.

boto3 reads the usual settings: AWS_ENDPOINT_URL, AWS_PROFILE, AWS_ACCESS_KEY_ID, AWS_REGION and so on. litdata's own client would retry a
broken connection a thousand times.
"""

import logging
import re
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from threading import Lock
from typing import Any, BinaryIO, TypeVar

from reslight.messages import MissingPackageError, UsageError, visible

log = logging.getLogger(__name__)
Result = TypeVar("Result")

WAITS = (1, 2, 5, 15, 30)
"""Seconds before the second attempt, the third and so on; of an index, which is read at the start, the first three."""
CONNECT, SILENCE = 10, 20
"""Seconds to wait for a connection, and for the next bytes."""
PATIENCE, SLOWEST = 60, 50_000
"""Seconds that a file may take, and bytes per second that it may take in addition."""
_BLOCK = 2**20
_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired")
_MISSING = ("NoSuchKey", "404", "NotFound")
_BUSY = ("SlowDown", "RequestTimeout", "RequestTimeTooSkewed", "Throttling", "ThrottlingException", "RequestLimitExceeded")


class MissingFileError(FileNotFoundError):
    """A bucket has no such file."""


class Bucket:
    """A folder on S3."""

    def __init__(self, url: str) -> None:
        """Split the address; nothing is requested.

        Args:
            url: `s3://BUCKET` or `s3://BUCKET/PATH`.

        Raises:
            UsageError: an address without a bucket.
        """
        self.url = url.rstrip("/")
        found = re.fullmatch(r"s3://([^/]+)(?:/(.*))?", self.url)
        if found is None:
            raise UsageError(f"data.root is {visible(url)}: it must be s3://BUCKET/PATH. Set the name of the bucket.")
        self._bucket, self._prefix = found[1], f"{found[2]}/" if found[2] else ""
        self._lock = Lock()

    def read(self, name: str) -> bytes | None:
        """Return a small file; None if it is missing.

        Raises:
            OSError: a file that cannot be read; the message is one line.
        """
        blocks: list[bytes] = []

        def attempt() -> bytes:
            blocks.clear()
            self._transfer(name, blocks.append)
            return b"".join(blocks)

        try:
            return self._with_retries(attempt, name, WAITS[:3])
        except MissingFileError:
            return None

    def download(self, name: str, file: BinaryIO) -> None:
        """Write a file's bytes to an empty file.

        Raises:
            OSError: a file that is missing, cannot be read, or cannot be written; the message is one line.
        """

        def attempt() -> None:
            file.seek(0)
            file.truncate()
            self._transfer(name, file.write)

        self._with_retries(attempt, name, WAITS)

    def _transfer(self, name: str, write: Callable[[bytes], object]) -> None:
        with self._lock:  # clients may be shared by threads, but not made by several
            client = self._client
        answer = client.get_object(Bucket=self._bucket, Key=f"{self._prefix}{name}")
        seconds = PATIENCE + answer["ContentLength"] / SLOWEST
        end = time.monotonic() + seconds
        for block in answer["Body"].iter_chunks(_BLOCK):
            write(block)
            if time.monotonic() > end:
                raise TimeoutError(f"no more than {SLOWEST // 1000} kB/s within {seconds:.0f} s")

    def _with_retries(self, call: Callable[[], Result], name: str, waits: Sequence[float]) -> Result:
        for wait in (*waits, None):
            try:
                return call()
            except UsageError:
                raise
            except Exception as error:
                translated = self._translate(error, name)
                if translated is error:
                    raise
                if wait is None or not isinstance(translated, ConnectionError):
                    raise translated from error
                log.warning("%s/%s: %s; next attempt in %d s", self.url, name, _short(error), wait)
                time.sleep(wait)
        raise AssertionError  # the last round returns or raises

    @cached_property
    def _client(self) -> Any:
        try:
            from boto3.session import Session
            from botocore import UNSIGNED
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError
        except ModuleNotFoundError as error:
            install = "Run `pip install 'reslight[stream]'`."
            raise MissingPackageError(f"data.root is {self.url}: S3 needs the package boto3, which is not installed. {install}") from error
        try:
            session = Session()
            # Public buckets are read without credentials.
            unsigned = {} if session.get_credentials() else {"signature_version": UNSIGNED}
            once = {"total_max_attempts": 1, "mode": "standard"}  # the retries are ours, which are logged
            return session.client("s3", config=Config(connect_timeout=CONNECT, read_timeout=SILENCE, retries=once, **unsigned))
        except (BotoCoreError, ValueError) as error:
            raise UsageError(f"{self.url} cannot be opened: {_short(error)}. Check the settings of AWS, such as AWS_PROFILE.") from error

    def _translate(self, error: Exception, name: str) -> Exception:
        """Return an error in one line: a ConnectionError where another attempt may help, and the error itself if it is none of S3's."""
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
        from botocore.exceptions import ConnectionError as NoConnection

        file = f"{self.url}/{name}"
        if isinstance(error, ClientError):
            code, status = str(error.response.get("Error", {}).get("Code")), _status(error)
            if code in _EXPIRED:
                return PermissionError(
                    f"{file} cannot be read: the AWS credentials have expired. Renew them, then resume with --ckpt_path last."
                )
            if code in _MISSING:
                return MissingFileError(f"{file} is missing. Check data.root, or write the dataset again.")
            if code == "NoSuchBucket":
                return FileNotFoundError(f"{self.url}: there is no such bucket. Check data.root and AWS_ENDPOINT_URL.")
            if status >= 500 or status == 429 or code in _BUSY:
                return ConnectionError(f"{file} cannot be read: {_short(error)}. Try again, or resume with --ckpt_path last.")
            return PermissionError(
                f"{file} cannot be read: {_short(error)}. Check the AWS credentials, such as AWS_PROFILE, and data.root."
            )
        # A read that is cut short has a class of its own.
        if (
            isinstance(error, HTTPClientError | NoConnection | ConnectionError | TimeoutError)
            or type(error).__name__ == "IncompleteReadError"
        ):
            return ConnectionError(f"{file} cannot be read: {_short(error)}. Try again, or resume with --ckpt_path last.")
        if isinstance(error, BotoCoreError):
            return PermissionError(f"{file} cannot be read: {_short(error)}. Check the settings of AWS, such as AWS_PROFILE.")
        return error


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _short(error: Exception) -> str:
    """Return the reason, without the request's address, whose query may hold a signature."""
    text = re.sub(r"\?[^\s\"')]*", "", visible(error, 300))
    text = re.sub(r"^An error occurred \((\w+)\) when calling the \w+ operation( \(.*?\))?: ", r"\1: ", text)
    return " ".join(text.split()).removesuffix(".") or type(error).__name__
