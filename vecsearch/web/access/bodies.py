"""What requests may send: how much, how slowly, and how many large bodies at once.

A large body is written to disk while it is read, to a file without a name that ends with the
request; so disk and memory are bounded by the number of large bodies that are read at once.
"""

import asyncio
from collections.abc import Callable, Mapping

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# A body up to this size is kept in memory; a request without access may not send more.
SMALL = 4 * 2**10
# Of more large bodies at once, the rest wait, and then are refused.
LARGE_AT_ONCE, PATIENCE_S = 16, 10.0
# A body has this many seconds, and one more for each so many bytes that have arrived.
GRACE_S, SLOWEST_BYTES_S = 20.0, 8 * 2**10
FORM = "application/x-www-form-urlencoded"

# Makes a response of a status, a sentence, and headers.
Refuse = Callable[[Request, int, str, Mapping[str, str] | None], Response]


class Bodies:
    """Middleware that bounds the bodies of requests.

    Args:
        app: the application.
        max_bytes: of a body.
        refuse: makes the response to a refused request.

    """

    def __init__(self, app: ASGIApp, max_bytes: int, refuse: Refuse) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._refuse = refuse
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an ASGI request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        size = _announced(request.headers)
        is_admitted = scope.get("state", {}).get("admitted", False)
        limit = self._max_bytes if is_admitted else SMALL
        if size is not None and size > limit:
            await self._refuse(request, 413, too_large(limit), None)(scope, receive, send)
            return
        if not is_admitted and size != 0 and not _is_form(request.headers):
            sentence = f"Send the token as {FORM}, as the form does."
            await self._refuse(request, 415, sentence, None)(scope, receive, send)
            return
        # What has no access must not take the place of what has.
        if not is_admitted or (size is not None and size <= SMALL):
            await self._app(scope, _bounded(receive, limit), send)
            return
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._large.acquire()
        except TimeoutError:
            sentence = "The server is busy with other uploads. Try again in a few seconds."
            refused = self._refuse(request, 503, sentence, {"Retry-After": str(int(PATIENCE_S))})
            await refused(scope, receive, send)
            return
        try:
            await self._app(scope, _bounded(receive, limit), send)
        finally:
            self._large.release()


def too_large(limit: int) -> str:
    """Return the sentence about a body that is too large."""
    if limit == SMALL:
        return f"The request is larger than {SMALL // 2**10} kB. Send the token alone."
    return (
        f"The request is larger than {limit // 2**20} MB, the limit here. Send a smaller picture."
    )


def _announced(headers: Headers) -> int | None:
    """Return the size of a body according to its headers; None if they do not say."""
    if "transfer-encoding" in headers:
        return None
    # Python refuses to parse thousands of digits; the bytes received are counted anyway.
    length = headers.get("content-length", "0")[:20]
    return int(length) if length.isdecimal() else None


def _is_form(headers: Headers) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip().lower() == FORM


def _bounded(receive: Receive, limit: int) -> Receive:
    """Return a `receive` that fails once a body is too large or too slow."""
    received = 0
    started: float | None = None
    is_whole = False

    async def bounded() -> Message:
        nonlocal received, started, is_whole
        if is_whole:  # what follows is the end of the connection, which has time
            return await receive()
        now = asyncio.get_running_loop().time()
        started = now if started is None else started
        try:
            async with asyncio.timeout_at(started + GRACE_S + received / SLOWEST_BYTES_S):
                message = await receive()
        except TimeoutError:
            raise HTTPException(
                408, "The request arrived too slowly. Send it again.", {"Connection": "close"}
            ) from None
        received += len(message.get("body", b""))
        is_whole = not message.get("more_body", False)
        if received > limit:
            raise HTTPException(413, too_large(limit))
        return message

    return bounded
