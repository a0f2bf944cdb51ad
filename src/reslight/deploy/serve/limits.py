"""What a server accepts, and from whom how often."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from ipaddress import IPv6Address, ip_address

from reslight.messages import UsageError

_CLIENTS = 10_000
"""Clients that are remembered at most."""


@dataclass(frozen=True)
class Limits:
    """What a server accepts.

    Attributes:
        max_mb: Million bytes of a request, with all of its images.
        max_megapixels: Million pixels of all images of a request together.
        max_files: Images of a request.
        max_requests: Requests that are read or computed at the same time; at most half of them are of one client.
        rate: Requests per second of a client, on average; a client may send as many as in two seconds at once. 0 for no limit.
        timeout: Seconds for a request to arrive, and seconds to compute its predictions.
    """

    max_mb: float = 20
    max_megapixels: float = 100
    max_files: int = 16
    max_requests: int = 32
    rate: float = 20
    timeout: float = 30

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            UsageError: a number that is not above 0 and finite; 0 is allowed for `rate`.
        """
        for one in fields(self):
            value, name = getattr(self, one.name), f"--{one.name.replace('_', '-')}"
            if not math.isfinite(value) or value < 0 or (value == 0 and one.name != "rate"):
                allowed = "0 or more" if one.name == "rate" else "above 0"
                raise UsageError(f"{name} is {value}: it must be {allowed}, and finite. Use {one.default}.")

    @property
    def nbytes(self) -> int:
        """Bytes of a request."""
        return int(self.max_mb * 1e6)

    @property
    def pixels(self) -> int:
        """Pixels of a request."""
        return int(self.max_megapixels * 1e6)


class Rates:
    """Counts the requests of each client: a bucket of tokens that fills at some rate, of which each request takes one.

    Args:
        rate: Tokens per second; 0 for no limit. A bucket holds those of two seconds, and at least one.
        clock: Returns the time in seconds.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._room, self._clock = rate, max(2 * rate, 1.0), clock
        self._full_at: dict[str, float] = {}

    def wait(self, client: str) -> float:
        """Take a token of a client's bucket; return 0, or the seconds until there will be one if the bucket is empty."""
        if not self._rate:
            return 0.0
        now, name = self._clock(), network(client)
        full_at = max(self._full_at.get(name, now), now) + 1 / self._rate
        if (wait := full_at - now - self._room / self._rate) > 1e-9:
            return wait
        if len(self._full_at) >= _CLIENTS:  # full buckets need not be remembered
            self._full_at = {one: at for one, at in self._full_at.items() if at > now}
        if len(self._full_at) >= _CLIENTS and name not in self._full_at:
            return 1 / self._rate
        self._full_at[name] = full_at
        return 0.0


def network(client: str) -> str:
    """Return who counts as one client: an IPv4 address, or an IPv6 network of 64 bits, which one subscriber has."""
    try:
        address = ip_address(client)
    except ValueError:
        return client
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or address.exploded[:19])  # IPv4 is mapped at `--host ::`
    return str(address)
