"""Access control, and the security headers of every response.

Without a token the server answers this machine alone, under its own names: the Host header gives
away another site whose name points here (DNS rebinding). With a token, browsers send a cookie and
other programs `Authorization: Bearer`.
"""

import hashlib
import re
import secrets
from collections.abc import Callable
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vecsearch.web.serving import is_loopback

COOKIE = "vecsearch_token"
COOKIE_SECONDS = 30 * 24 * 3600
# They disclose nothing about the images, and are needed before a token is sent.
OPEN_PATHS = ("/api/health", "/static/", "/token")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}

# Makes a response of a status and a sentence.
Refuse = Callable[[Request, int, str], Response]


class Guard:
    """Middleware that refuses requests without access, and requests that are too large.

    Args:
        app: the guarded application.
        token: None serves this machine alone.
        max_bytes: of the body of a request.
        refuse: makes the response to a refused request.

    """

    def __init__(self, app: ASGIApp, token: str | None, max_bytes: int, refuse: Refuse) -> None:
        self._app = app
        self._token = token
        self._max_bytes = max_bytes
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an ASGI request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise HTTPException(413, too_large(self._max_bytes))
            return message

        answer = self._refusal(Request(scope, receive))
        await (answer or self._app)(scope, limited, with_headers)

    def _refusal(self, request: Request) -> Response | None:
        headers = request.headers
        if self._token is None and not names_this_machine(headers.get("host", "")):
            return self._refuse(
                request,
                421,
                "This server answers only at localhost and 127.0.0.1. "
                "To use another name, start it with --token.",
            )
        if headers.get("sec-fetch-site") == "cross-site" and request.method != "GET":
            return self._refuse(
                request, 403, "Requests from other sites are refused. Use this server's own page."
            )
        # Python refuses to parse thousands of digits; the bytes received are counted anyway.
        length = headers.get("content-length", "0")[:20]
        if length.isdecimal() and int(length) > self._max_bytes:
            return self._refuse(request, 413, too_large(self._max_bytes))
        return None if self._token is None else self._unknown(request, self._token)

    def _unknown(self, request: Request, token: str) -> Response | None:
        # The path that is routed; `request.url` depends on the Host header, too.
        path: str = request.scope["path"]
        if path.startswith(OPEN_PATHS):
            return None
        given = request.query_params.get("token")
        if given is not None and request.method == "GET" and same(given, token):
            rest = [item for item in parse_qsl(request.url.query) if item[0] != "token"]
            address = f"{path}?{urlencode(rest)}" if rest else path
            return admitted(request, token, address)
        if _knows(token, request.headers):
            return None
        return self._refuse(request, 401, "This server needs a token. Ask whoever started it.")


def names_this_machine(host: str) -> bool:
    """Tell whether a Host header names this machine, with any port."""
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9a-zA-Z.-]+))(?::[0-9]{1,5})?", host)
    return found is not None and is_loopback((found[1] or found[2]).lower())


def too_large(max_bytes: int) -> str:
    """Return the sentence about a body that is too large."""
    return f"That is more than {max_bytes // 2**20} MB, the limit here. Send a smaller picture."


def admitted(request: Request, token: str, address: str) -> Response:
    """Return a response that admits a browser and redirects it to an address of this server."""
    response = RedirectResponse(ours(address), status_code=303)
    response.set_cookie(
        COOKIE,
        _seal(token),
        max_age=COOKIE_SECONDS,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return response


def ours(address: str) -> str:
    """Return the address if it is on this server, else "/": two slashes lead to another host."""
    is_ours = address.startswith("/") and address[1:2] not in {"/", "\\"}
    return address.encode(errors="replace").decode() if is_ours else "/"


def same(given: str, token: str) -> bool:
    """Compare two tokens in constant time."""
    return secrets.compare_digest(given.encode(errors="replace"), token.encode())


def _knows(token: str, headers: Headers) -> bool:
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and same(credentials.strip(), token):
        return True
    cookies = Request({"type": "http", "headers": headers.raw}).cookies
    return same(cookies.get(COOKIE, ""), _seal(token))


def _seal(token: str) -> str:
    """Return the value of the cookie, which does not disclose the token."""
    return hashlib.sha256(f"vecsearch {token}".encode()).hexdigest()
