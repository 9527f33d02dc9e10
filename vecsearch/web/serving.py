"""The socket of the server, and uvicorn on it."""

import ipaddress
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from vecsearch.errors import InvalidInput, VecsearchError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from vecsearch.library import Library

BACKLOG = 2048


def require_token(host: str, token: str | None) -> None:
    """Refuse to serve other machines without a token.

    Raises:
        InvalidInput: other machines could connect without a token, or it cannot be sent.

    """
    if token is None and not is_loopback(host):
        raise InvalidInput(
            f"Other machines can reach {host}, and everyone who does would see every image. "
            "Set a token with --token or VECSEARCH_TOKEN."
        )
    if token is not None and not (token.isascii() and token.isprintable() and token.strip()):
        raise InvalidInput("A token consists of printable ASCII characters. Choose another.")


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes a free port.

    Raises:
        InvalidInput: the socket cannot listen there.

    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(BACKLOG)
        except BaseException:
            listening.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidInput(
            f"Cannot listen on port {port} of {host}: {reason}. Choose another with --port."
        ) from error
    return listening


def address_of(listening: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def warm(library: "Library", collection: str, say: Callable[[str], None]) -> None:
    """Load the encoder of a collection in the background, before the first upload needs it."""

    def load() -> None:
        try:
            library.collection(collection).warm()
        except VecsearchError as error:
            say(f"Only stored images can be searched for in {collection!r}: {error}")

    threading.Thread(target=load, name="warm", daemon=True).start()


def run(app: "FastAPI", listening: socket.socket) -> None:
    """Serve requests until the process is interrupted."""
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    uvicorn.Server(config).run(sockets=[listening])
