"""Who may ask, and what a browser is told to refuse.

Without a token only this machine is served, under its own names: a page elsewhere whose name was
made to point here (DNS rebinding) is refused by its Host. With one, a browser proves that it knows
it by a cookie, other programs by `Authorization: Bearer`.
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
# What tells nothing of anybody's images, and is needed before a token can be given.
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

# Makes an answer of a status and a sentence.
Refuse = Callable[[Request, int, str], Response]


class Guard:
    """An application that answers only those who may ask.

    Args:
        app: what is guarded.
        token: None serves this machine alone.
        max_bytes: of a request's body.
        refuse: makes the answer to the others.

    """

    def __init__(self, app: ASGIApp, token: str | None, max_bytes: int, refuse: Refuse) -> None:
        self._app = app
        self._token = token
        self._max_bytes = max_bytes
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as ASGI has it."""
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
                request, 421, "This server answers only to the names of the machine it runs on."
            )
        if headers.get("sec-fetch-site") == "cross-site" and request.method != "GET":
            return self._refuse(request, 403, "Another site's page may not send anything here.")
        # Python reads no number of thousands of digits; what is sent is counted in any case.
        length = headers.get("content-length", "0")[:20]
        if length.isdecimal() and int(length) > self._max_bytes:
            return self._refuse(request, 413, too_large(self._max_bytes))
        return None if self._token is None else self._unknown(request, self._token)

    def _unknown(self, request: Request, token: str) -> Response | None:
        # The path that is routed: `request.url` is made of the Host header, too.
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
        return self._refuse(request, 401, "Give the token that this server was started with.")


def names_this_machine(host: str) -> bool:
    """Tell whether a Host header is this machine's own name or address, with whatever port."""
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9a-zA-Z.-]+))(?::[0-9]{1,5})?", host)
    return found is not None and is_loopback((found[1] or found[2]).lower())


def too_large(max_bytes: int) -> str:
    """Say that a body is too large."""
    return f"That is more than {max_bytes // 2**20} MB, the limit here. Send a smaller picture."


def admitted(request: Request, token: str, address: str) -> Response:
    """Return an answer that lets a browser in, and sends it to an address of ours."""
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
    """Return the address if it leads nowhere else: another host's begins with two slashes."""
    is_ours = address.startswith("/") and address[1:2] not in {"/", "\\"}
    return address.encode(errors="replace").decode() if is_ours else "/"


def same(given: str, token: str) -> bool:
    """Compare in a time that tells nothing."""
    return secrets.compare_digest(given.encode(errors="replace"), token.encode())


def _knows(token: str, headers: Headers) -> bool:
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and same(credentials.strip(), token):
        return True
    cookies = Request({"type": "http", "headers": headers.raw}).cookies
    return same(cookies.get(COOKIE, ""), _seal(token))


def _seal(token: str) -> str:
    """Return what the cookie holds: not the token itself."""
    return hashlib.sha256(f"vecsearch {token}".encode()).hexdigest()
