"""Access control, and the security headers of every response.

Without a token the server answers the user who started it, under this machine's own names: the Host
header gives away another site whose name points here (DNS rebinding). With a token, browsers send a
cookie and other programs `Authorization: Bearer`.
"""

import hmac
import re
import secrets
from collections.abc import Callable
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vecsearch.web.access.bodies import Refuse
from vecsearch.web.access.throttle import Throttle
from vecsearch.web.serving import is_loopback

COOKIE = "vecsearch_token"
COOKIE_SECONDS = 30 * 24 * 3600
# They disclose nothing, and are needed before a token is sent.
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


class Access:
    """Who may ask.

    Args:
        token: the secret that callers send; None: callers are known by their connection.
        key: makes the value of the cookie, which nobody can guess without it.
        is_known: tells whether a connection is from the user who may ask; None: everyone's is.

    """

    def __init__(
        self,
        token: str | None,
        key: bytes,
        is_known: Callable[[Scope], bool] | None = None,
    ) -> None:
        self.token = token
        self._is_known = is_known
        self._cookie = hmac.new(key, (token or "").encode(), "sha256").hexdigest()
        self._throttle = Throttle()

    def admits(self, request: Request) -> bool:
        """Tell whether a request comes with access.

        Raises:
            HTTPException: too many wrong tokens came from its address.

        """
        if self.token is None:
            return self._is_known is None or self._is_known(request.scope)
        if same(request.cookies.get(COOKIE, ""), self._cookie):
            return True
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self.is_token(request, credentials.strip())

    def is_token(self, request: Request, given: str) -> bool:
        """Tell whether this is the token.

        Raises:
            HTTPException: too many wrong tokens came from the address of this request.

        """
        address = request.client.host if request.client else ""
        wait = self._throttle.wait(address)
        if wait:
            raise HTTPException(
                429,
                f"Too many wrong tokens. Try again in {wait} seconds.",
                {"Retry-After": str(wait)},
            )
        is_right = self.token is not None and same(given, self.token)
        (self._throttle.succeeded if is_right else self._throttle.failed)(address)
        return is_right

    def admitted(self, request: Request, address: str) -> Response:
        """Return a response that admits a browser and redirects it to an address of this server."""
        response = RedirectResponse(ours(address), status_code=303)
        if self.token is not None:
            response.set_cookie(
                COOKIE,
                self._cookie,
                max_age=COOKIE_SECONDS,
                httponly=True,
                samesite="lax",
                secure=request.url.scheme == "https",
            )
        return response


class Guard:
    """Middleware that refuses requests without access; a request with access is marked as admitted.

    Args:
        app: the guarded application.
        access: who may ask.
        refuse: makes the response to a refused request.

    """

    def __init__(self, app: ASGIApp, access: Access, refuse: Refuse) -> None:
        self._app = app
        self._access = access
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

        # Whoever is refused gets the answer before the body is read.
        request = Request(scope)
        try:
            answer = self._check(request)
        except HTTPException as error:
            answer = self._refuse(request, error.status_code, error.detail, error.headers)
        await (answer or self._app)(scope, receive, with_headers)

    def _check(self, request: Request) -> Response | None:
        """Return a response that admits a browser, or None if the application answers.

        Raises:
            HTTPException: the request is refused.

        """
        headers, access = request.headers, self._access
        if access.token is None and not names_this_machine(headers.get("host", "")):
            raise HTTPException(
                421,
                "This server answers only at localhost and 127.0.0.1. "
                "To use another name, start it with --token.",
            )
        if request.method != "GET" and _is_elsewhere(headers):
            raise HTTPException(
                403, "Requests from other sites are refused. Use this server's own page."
            )
        # The path that is routed; `request.url` depends on the Host header, too.
        path: str = request.scope["path"]
        given = request.query_params.get("token")
        is_link = access.token is not None and given is not None and request.method == "GET"
        if is_link and not path.startswith(OPEN_PATHS) and access.is_token(request, given or ""):
            rest = [item for item in parse_qsl(request.url.query) if item[0] != "token"]
            return access.admitted(request, f"{path}?{urlencode(rest)}" if rest else path)
        if access.admits(request):
            request.state.admitted = True
        elif path.startswith(OPEN_PATHS):
            return None
        elif access.token is None:
            raise HTTPException(
                403,
                "This server answers only the user who started it. "
                "To let others ask, start it with --token or --all-users.",
            )
        else:
            raise HTTPException(401, "This server needs a token. Ask whoever started it.")
        return None


def _is_elsewhere(headers: Headers) -> bool:
    """Tell whether a browser says that another site sends this.

    Another port of this machine is another site, too. Where it knows no `Sec-Fetch-Site`, as over
    HTTP from another machine, it sends its origin.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site not in {"same-origin", "none"}
    return origin is not None and urlsplit(origin).netloc != headers.get("host")


def names_this_machine(host: str) -> bool:
    """Tell whether a Host header names this machine, with any port."""
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9a-zA-Z.-]+))(?::[0-9]{1,5})?", host)
    return found is not None and is_loopback((found[1] or found[2]).lower())


def ours(address: str) -> str:
    """Return the address if it is on this server, else "/": two slashes lead to another host."""
    is_ours = address.startswith("/") and address[1:2] not in {"/", "\\"}
    return address.encode(errors="replace").decode() if is_ours else "/"


def same(given: str, token: str) -> bool:
    """Compare two tokens in constant time."""
    return secrets.compare_digest(given.encode(errors="replace"), token.encode())
