"""The command that serves: the web page and the JSON API."""

from typing import Annotated

import typer

from vecsearch.cli.apps import app
from vecsearch.cli.command import Collection, command, open_library, say
from vecsearch.config import Settings


@command(app, "serve", encodes=True)
def serve(
    settings: Settings,
    collection: Collection = "images",
    host: Annotated[
        str,
        typer.Option(
            envvar="VECSEARCH_HOST",
            help="Listen on this address. Any but this machine's own needs a token.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            min=0, max=65535, envvar="VECSEARCH_PORT", help="Listen on this port; 0 is any."
        ),
    ] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="VECSEARCH_TOKEN",
            help="Serve only those who know this: browsers are asked for it, programs send it as "
            "`Authorization: Bearer TOKEN`.",
        ),
    ] = None,
    max_upload: Annotated[
        int,
        typer.Option(
            metavar="MB",
            min=1,
            max=512,
            envvar="VECSEARCH_MAX_UPLOAD",
            help="Refuse larger uploads.",
        ),
    ] = 32,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Serve the web page, and the JSON API under /api, until Ctrl-C.

    Nothing is written: images come in by `vecsearch ingest`, also while this runs.
    """
    from vecsearch.web import serving
    from vecsearch.web.app import SESSION, create_app
    from vecsearch.web.site import Options

    token = token or None
    serving.require_token(host, token)
    with (
        serving.listen(host, port) as listening,
        open_library(settings, session=SESSION) as library,
    ):
        page = create_app(library, Options(collection, token, max_upload * 2**20))
        address = serving.address_of(listening)
        try:
            say(f"Serving {address} until Ctrl-C.")
            names = library.collection_names()
            if collection in names:
                serving.warm(library, collection, say)
            elif names:
                say(f"There is no collection {collection!r}; the page begins with {names[0]!r}.")
            if open_:
                typer.launch(address)
            serving.run(page, listening)
        except KeyboardInterrupt:
            say("Stopped.")
