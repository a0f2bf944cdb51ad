"""Run the server: bind the port, load the weights, serve until SIGTERM or Ctrl-C, finish the requests in work."""

import asyncio
import json
import logging
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

from reslight.deploy.classifier import Classifier
from reslight.deploy.listen import bind, refusal, url_of
from reslight.deploy.serve.limits import Limits, network
from reslight.messages import MissingPackageError, counted

try:
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    from reslight.deploy.serve.app import Service
except ImportError as error:
    raise MissingPackageError("serving needs uvicorn, starlette and python-multipart: pip install 'reslight[serve]'") from error

_CONNECTIONS = 500
"""Connections at a time, also idle ones; a process may have 1,024 open files by default."""


def serve(
    source: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits | None = None,
    *,
    say: Callable[[str], None],
    threads: int | None = None,
    exact: bool = False,
    proxy: str | None = None,
) -> bool:
    """Serve a classifier until SIGTERM or Ctrl-C.

    Args:
        source: See `Classifier`.
        host: The address to listen at.
        port: The port; 0 for any free one.
        limits: What is accepted.
        say: Prints a line.
        threads: See `Classifier`.
        exact: See `Classifier`.
        proxy: Address of a proxy whose X-Forwarded-For is believed; None for no proxy.

    Returns:
        Whether all requests in work were finished.

    Raises:
        OSError: missing weights, or a Hub that cannot be reached.
        UsageError: damaged weights, or an option that is out of range.
    """
    limits = limits or Limits()
    with bind(host, port) as listener:  # before the weights are loaded, which takes seconds
        classifier = Classifier(source, threads=threads, exact=exact)
        service = Service(classifier, source, limits)
        config = uvicorn.Config(
            service.app(),
            http=type("_Limited", (_Protocol,), {"seconds": limits.timeout, "share": _CONNECTIONS if proxy else _CONNECTIONS // 2}),
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=proxy is not None,
            forwarded_allow_ips=proxy,
            timeout_graceful_shutdown=int(2 * limits.timeout) + 1,
        )
        logging.getLogger("uvicorn.error").addFilter(_is_failure)
        url = url_of(listener)
        ready = f"listening at {url}; Ctrl-C stops. For example: curl --data-binary @photo.jpg {url}/predict"
        server = _Server(config, service, say, ready, (host, port))
        say(f"serving {source}: {counted(len(classifier.labels), 'class', 'classes')}; {classifier.backend}")
        asyncio.run(server.serve(sockets=[listener]))
    cut = service.requests
    if not cut:
        service.close()
    say(f"stopped; requests answered: {service.answered:,}, refused: {service.refused:,}, cut off: {cut:,}")
    return not cut


def _is_failure(record: logging.LogRecord) -> bool:
    """Keep uvicorn's lines about failures of the server; those about its start and about clients' nonsense would only fill the log."""
    return record.levelno >= logging.ERROR


class _Server(uvicorn.Server):
    """Ends by itself after a signal, and leaves the exit code to the command."""

    def __init__(self, config: uvicorn.Config, service: Service, say: Callable[[str], None], ready: str, address: tuple[str, int]) -> None:
        super().__init__(config)
        self._service, self._say, self._ready, self._address = service, say, ready, address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say that the server listens once it does: a program may wait for the line."""
        try:
            await super().startup(sockets)
        except OSError as error:
            raise refusal(*self._address, error) from None
        self._say(self._ready)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Stop at SIGTERM and Ctrl-C; uvicorn's own method raises the signal again at the end."""
        before = {one: signal.signal(one, self.handle_exit) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; at once at the second Ctrl-C."""
        if not self.should_exit:
            self._say(f"stopping; requests in work: {self._service.requests}")
        super().handle_exit(sig, frame)


class _Protocol(H11Protocol):
    """Closes connections on which no complete request header arrives in time, and those that are too many, of one client or of all."""

    seconds = 30.0
    share = _CONNECTIONS // 2
    """Connections of one client."""
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # of uvicorn, where it is a BaseTransport
        super().connection_made(transport)
        if len(self.connections) > _CONNECTIONS or (len(self.connections) > self.share and self._are_many()):
            transport.abort()
        else:
            self._wait()

    def _are_many(self) -> bool:
        """Return whether this client has more connections than its share."""
        hosts: list[str] = [network(one.client[0]) for one in self.connections if isinstance(one, H11Protocol) and one.client]
        return self.client is not None and hosts.count(network(self.client[0])) > self.share

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()
        super().connection_lost(exc)

    def _wait(self) -> None:
        """Start the time that a header has, or end it when the header is complete."""
        is_waiting = self.cycle is None or self.cycle.response_complete
        if self._timer and not is_waiting:
            self._timer.cancel()
            self._timer = None
        elif is_waiting and not self._timer:
            self._timer = self.loop.call_later(self.seconds, self._late)

    def _late(self) -> None:
        self._refuse("408 Request Timeout", "The header of the request did not arrive in time: send it faster.")

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, in JSON as everything else."""
        self._refuse("400 Bad Request", "This is not a request of HTTP/1.1, or its header is too long.")

    def _refuse(self, status: str, reason: str) -> None:
        text = json.dumps({"error": reason})
        if not self.transport.is_closing():
            head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {len(text)}\r\n\r\n"
            self.transport.write(f"{head}{text}".encode())
            self.transport.close()
