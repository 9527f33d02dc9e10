"""The application: routes, middleware, and a response for every error."""

import logging
from collections.abc import Collection, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, create_model
from starlette.exceptions import HTTPException

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
    SchemaMissing,
    VecsearchError,
)
from vecsearch.web import api, duplicates, pages, parameters, views
from vecsearch.web.access.bodies import Bodies
from vecsearch.web.access.guard import HEADERS, Access, Guard
from vecsearch.web.metrics import Measured, Metrics
from vecsearch.web.site import Options, Pulse, Site
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
    SchemaMissing: 404,
    VecsearchError: 500,
}
UPLOADS_BYTES = 2**30
_log = logging.getLogger(__name__)
# Parameters that make no sense in another collection.
OF_COLLECTION = ("collection", "id", "not_id", "after", "before")


def create_app(library: "Library", options: Options, editor: "Library | None" = None) -> FastAPI:
    """Return the page and the API over an open library.

    Args:
        library: what is read, by sessions with the settings of `SESSION`.
        options: who may ask for what.
        editor: the same library with sessions that may write, for the actions of the page; None:
            it has none.

    """
    metrics = Metrics()
    library.embedders.on_batch = metrics.on_batch
    uploads = Uploads(
        library.settings.data_dir / "uploads", UPLOADS_BYTES, library.settings.max_pixels
    )
    app = FastAPI(
        title="vecsearch",
        summary="Image search that is Postgres.",
        version=__version__,
        # The pages of Swagger and Redoc load scripts from a CDN.
        docs_url=None,
        redoc_url=None,
    )
    access = Access(options.token, options.key, options.is_known)
    pulse = Pulse(library.check)
    app.state.site = Site(library, options, access, uploads, metrics, pulse, editor)
    app.include_router(api.router)
    app.include_router(pages.router)
    app.include_router(duplicates.router)
    static = Path(__file__).parent / "static"
    app.mount("/static", StaticFiles(directory=static), name="static")
    app.add_middleware(Bodies, max_bytes=options.max_bytes, refuse=_answer)
    app.add_middleware(Guard, access=access, refuse=_answer)
    app.add_middleware(Measured, metrics=metrics)
    app.add_exception_handler(VecsearchError, _on_our_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(Exception, _on_fault)
    return app


def status_of(error: VecsearchError) -> int:
    """Return the HTTP status of an error."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def _answer(
    request: Request,
    status: int,
    sentence: str,
    headers: Mapping[str, str] | None = None,
    faulty: Collection[str] = (),
) -> Response:
    """Return JSON to a program, and a page to a browser; see `views.error_page`."""
    headers = dict(headers or {})
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    is_api = request.scope["path"].startswith(("/api/", "/openapi.json"))
    if is_api and "text/html" not in request.headers.get("accept", ""):
        return JSONResponse({"detail": sentence}, status, headers)
    return views.error_page(request, status, sentence, headers, faulty=faulty)


def _on_our_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, VecsearchError)  # noqa: S101 - for the type checker
    status = status_of(error)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.error("%s %s: %s", request.method, request.url.path, error)
    faulty = OF_COLLECTION if isinstance(error, CollectionNotFound) else ()
    return _answer(request, status, views.for_visitors(error), faulty=faulty)


def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - for the type checker
    sentence = str(error.detail)
    if error.status_code == HTTPStatus.NOT_FOUND:
        sentence = "There is nothing at this address. Go to the first page."
    return _answer(request, error.status_code, sentence, error.headers)


def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - for the type checker
    # The first part of each place is the form, or the address.
    fields = _taken(request.scope["route"])
    faults = [
        (item["loc"][1:], item["type"], item["msg"], fields.get(item["loc"][:2]))
        for item in error.errors()
    ]
    wrong = {str(item["loc"][1]) for item in error.errors() if item["loc"][0] == "query"}
    return _answer(request, 422, parameters.faulty(faults), faulty=wrong)


def _taken(route: APIRoute) -> dict[parameters.Place, parameters.Schema]:
    """Return what each field of a route's address and form takes, by its place."""
    taken: dict[parameters.Place, parameters.Schema] = {}
    left = [route.dependant]
    while left:
        one = left.pop()
        left += one.dependencies
        for part, fields in (
            ("path", one.path_params),
            ("query", one.query_params),
            ("body", one.body_params),
        ):
            for field in fields:
                kind = field.field_info.annotation
                # A model's fields are those of the address or the form.
                if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
                    alone: dict[str, Any] = {field.name: (kind, field.field_info)}
                    kind = create_model(field.name, **alone)
                taken |= {(part, *place): each for place, each in parameters.taken(kind).items()}
    return taken


def _on_fault(request: Request, _: Exception) -> Response:
    # Starlette answers unexpected errors outside the guard.
    return _answer(request, 500, "vecsearch failed. See the log of the server.", HEADERS)
