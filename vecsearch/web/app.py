"""The application, put together; and every error, made an answer."""

from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import RequestBodyLimitMiddleware

from vecsearch import __version__
from vecsearch.errors import (
    CollectionNotFound,
    DatabaseBusy,
    DatabaseUnavailable,
    EncoderError,
    ExtensionMissing,
    ImageNotFound,
    ImageUnreadable,
    InvalidInput,
    SchemaError,
    VecsearchError,
)
from vecsearch.web import api, pages, views
from vecsearch.web.guard import Guard, too_large
from vecsearch.web.metrics import Measured, Metrics
from vecsearch.web.site import Options, Site
from vecsearch.web.uploads import Uploads

if TYPE_CHECKING:
    from vecsearch.library import Library

STATUSES: dict[type[VecsearchError], int] = {
    CollectionNotFound: 404,
    ImageNotFound: 404,
    ImageUnreadable: 415,
    InvalidInput: 400,
    EncoderError: 409,
    DatabaseBusy: 503,
    DatabaseUnavailable: 503,
    ExtensionMissing: 503,
    SchemaError: 503,
    VecsearchError: 500,
}
UPLOADS_BYTES = 2**30
# Of every connection of the server: it reads, and a question that takes longer is given up.
SESSION = {"default_transaction_read_only": "on", "statement_timeout": "60s"}


def create_app(library: "Library", options: Options) -> FastAPI:
    """Return the page and the API over an open library."""
    metrics = Metrics()
    library.embedders.on_batch = metrics.on_batch
    uploads = Uploads(
        library.settings.data_dir / "uploads", UPLOADS_BYTES, library.settings.max_pixels
    )
    app = FastAPI(
        title="vecsearch",
        summary="Image search that is Postgres.",
        version=__version__,
        # Swagger's and Redoc's pages would load their scripts from a CDN.
        docs_url=None,
        redoc_url=None,
    )
    app.state.site = Site(library, options, uploads, metrics)
    app.include_router(api.router)
    app.include_router(pages.router)
    static = Path(__file__).parent / "static"
    app.mount("/static", StaticFiles(directory=static), name="static")
    # For bodies that do not say their size. FastAPI's own limit would answer before the guard does.
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=options.max_bytes)
    app.add_middleware(Measured, metrics=metrics)
    app.add_middleware(Guard, token=options.token, max_bytes=options.max_bytes, refuse=_answer)
    app.add_exception_handler(VecsearchError, _on_our_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(Exception, _on_fault)
    return app


def status_of(error: VecsearchError) -> int:
    """Return the HTTP status that fits an error."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def _answer(request: Request, status: int, sentence: str) -> Response:
    """Answer a program with JSON, and a person with a page."""
    headers = {"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else {}
    if request.url.path.startswith(("/api/", "/openapi.json")):
        return JSONResponse({"detail": sentence}, status, headers)
    return views.error_page(request, status, sentence, headers)


def _on_our_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, VecsearchError)  # noqa: S101 - for the type checker
    return _answer(request, status_of(error), str(error))


def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - for the type checker
    sentence = str(error.detail)
    if error.status_code == HTTPStatus.NOT_FOUND:
        sentence = "There is nothing at this address. Start from the first page."
    if error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        sentence = too_large(request.app.state.site.options.max_bytes)
    return _answer(request, error.status_code, sentence)


def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - for the type checker
    faults = [
        f"{'.'.join(map(str, item['loc'][1:])) or 'request'}: {item['msg']}"
        for item in error.errors()
    ]
    return _answer(request, 422, f"{'; '.join(faults)}.")


def _on_fault(request: Request, _: Exception) -> Response:
    return _answer(
        request, 500, "Something is wrong with vecsearch itself; the server's log tells what."
    )
