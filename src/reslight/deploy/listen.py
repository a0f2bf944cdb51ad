"""Take an address to listen at, with one line for each way in which that fails."""

import errno
import socket

from reslight.messages import UsageError


def bind(host: str, port: int) -> socket.socket:
    """Return a socket at an address, which does not listen yet.

    Raises:
        UsageError: an address that cannot be used.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"--port is {port}: it must be 0 to 65535. Use 8000, or 0 for any free one.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError):
        raise UsageError(f"--host is {host}: it must be an address or a name of this machine. Use 127.0.0.1, or 0.0.0.0 for all.") from None
    opened = socket.socket(family, kind, protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind(address)
    except OSError as error:
        opened.close()
        raise refusal(host, port, error) from None
    return opened


def refusal(host: str, port: int, error: OSError) -> UsageError:
    """Return what to say of an address that cannot be used. Two programs may bind one at once: the second then fails when it listens."""
    if error.errno == errno.EADDRINUSE:
        return UsageError(f"--port is {port}: another program uses it. Choose another port, or 0 for any free one.")
    if error.errno == errno.EACCES:
        return UsageError(f"--port is {port}: this user may not use it. Choose one from 1024 on, such as 8000.")
    return UsageError(f"--host is {host}: {error.strerror}. Use 127.0.0.1, or 0.0.0.0 for all addresses of this machine.")


def url_of(listener: socket.socket) -> str:
    """Return the URL of a socket's address."""
    name, number = listener.getsockname()[:2]
    return f"http://{f'[{name}]' if ':' in name else name}:{number}"
