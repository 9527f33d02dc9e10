"""The socket of the server, who is at its other end, and what is loaded meanwhile."""

import ctypes
import html
import ipaddress
import os
import platform
import secrets
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from vecsearch.errors import InvalidInput, VecsearchError

if TYPE_CHECKING:
    from starlette.types import Scope

    from vecsearch.library import Library

# The kernel's answer about a socket: `inet_diag_msg` of linux/inet_diag.h.
_SOCK_DIAG, _BY_FAMILY, _REQUEST = 4, 20, 1
_HEADER, _ASKED, _TOLD = "=IHHII", "=BBBBI", "=BBBB48xIIIII"
_LISTENING = 10
# glibc's malloc.h; threads that Python lets run one at a time need no more.
_M_ARENA_MAX, _HEAPS = -8, 2


def share_heaps() -> None:
    """Have the threads of this process share a few heaps, so that its memory stays flat.

    By itself, glibc gives eight heaps to a core, and each keeps the gaps that answers leave in it.
    Other C libraries are left as they are. See mallopt(3).
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _HEAPS)


def require_token(host: str, token: str | None) -> None:
    """Refuse to serve other machines without a token.

    Raises:
        InvalidInput: other machines could connect without a token, or it cannot be sent.

    """
    if token is None and not is_loopback(host):
        raise InvalidInput(
            f"Everyone who can reach {host} would see every image. "
            "Set a token with --token or VECSEARCH_TOKEN."
        )
    if token is not None and not (token.isascii() and token.isprintable() and token.strip()):
        raise InvalidInput("A token is one or more printable ASCII characters. Choose another.")


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_own(scope: "Scope") -> bool:
    """Tell whether a request comes from this user, or from root, on this machine."""
    client, server = scope.get("client"), scope.get("server")
    if client is None or server is None:
        return False
    return _user_of(client[:2], server[:2]) in {os.getuid(), 0}


def can_tell_users() -> bool:
    """Tell whether this system says which user a connection comes from: Linux does."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as caller,
    ):
        return _user_of(caller.getsockname(), listening.getsockname()) == os.getuid()


def _user_of(own: tuple[str, int], other: tuple[str, int]) -> int | None:
    """Return the user of a socket by its own address and that of its other end, both here.

    Returns:
        None: it is closed, or the system does not tell.

    """
    family = socket.AF_INET6 if ":" in own[0] else socket.AF_INET
    ends = [socket.inet_pton(family, host).ljust(16, b"\0") for host, _ in (own, other)]
    sought = struct.pack("!HH", own[1], other[1]) + b"".join(ends) + bytes(4) + b"\xff" * 8
    asked = struct.pack(_ASKED, family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF) + sought
    size = struct.calcsize(_HEADER)
    header = struct.pack(_HEADER, size + len(asked), _BY_FAMILY, _REQUEST, 0, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
            kernel.settimeout(1)
            kernel.sendto(header + asked, (0, 0))
            told = kernel.recv(4_096)
    except (AttributeError, OSError):  # another system, or a sandbox
        return None
    if struct.unpack_from(_HEADER, told)[1] != _BY_FAMILY:
        return None
    _, state, *_, user, inode = struct.unpack_from(_TOLD, told, size)
    # A socket without an inode has no owner any more; the kernel then says root.
    return None if state == _LISTENING or not inode else int(user)


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
            listening.listen()
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


def cookie_key(folder: Path) -> bytes:
    """Return what makes cookies, from a file, so that they are good after a restart.

    Raises:
        InvalidInput: the file cannot be read or written.

    """
    file = folder / "cookies.key"
    try:
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            # Only its owner can read it, and whoever links first wins.
            with tempfile.NamedTemporaryFile(dir=folder) as made, suppress(FileExistsError):
                made.write(secrets.token_bytes(32))
                made.flush()
                os.link(made.name, file)
        return file.read_bytes()
    except OSError as error:
        raise InvalidInput(
            f"{file} cannot be used: {error.strerror}. Name another folder with --data-dir."
        ) from error


@contextmanager
def private_link(address: str) -> Iterator[str]:
    """Yield the address, or if it has a token, a file that leads there.

    A program's arguments, such as a browser's, can be read by every user of a machine.
    """
    if "?" not in address:
        yield address
        return
    with tempfile.TemporaryDirectory(prefix="vecsearch-") as folder:
        page = Path(folder) / "open.html"
        page.write_text(f'<meta http-equiv="refresh" content="0; url={html.escape(address)}">')
        yield page.as_uri()


def warm(library: "Library", collection: str, say: Callable[[str], None]) -> None:
    """Load the encoder of a collection in the background, before the first upload needs it."""

    def load() -> None:
        try:
            library.collection(collection).warm()
        except VecsearchError as error:
            say(f"Collection {collection!r} can be searched by stored images alone: {error}")

    threading.Thread(target=load, name="warm", daemon=True).start()
