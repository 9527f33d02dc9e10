"""The commands serve and mcp: the library for browsers and programs, and for assistants."""

import secrets
from contextlib import ExitStack, suppress
from typing import Annotated

import typer

from vecsearch.cli.command import CollectionOption, app, command, open_library, say
from vecsearch.config import Settings
from vecsearch.errors import DatabaseUnavailable
from vecsearch.vocabulary import DEFAULT_COLLECTION, MAX_UPLOAD_MB


@command(app, "serve", encodes=True)
def serve(
    settings: Settings,
    collection: CollectionOption = DEFAULT_COLLECTION,
    host: Annotated[
        str,
        typer.Option(
            envvar="VECSEARCH_HOST",
            help="Listen on this address. Any address but 127.0.0.1 needs a --token.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            min=0, max=65535, envvar="VECSEARCH_PORT", help="Listen on this port; 0: any free one."
        ),
    ] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="VECSEARCH_TOKEN",
            help="Require this token: the page asks for it, programs send "
            "`Authorization: Bearer TOKEN`. Default: answer only you; a new token on "
            "systems that do not show who connects.",
        ),
    ] = None,
    all_users: Annotated[
        bool,
        typer.Option(
            "--all-users",
            help="Answer every user of this machine, not only you, if there is no --token.",
        ),
    ] = False,
    max_upload: Annotated[
        int,
        typer.Option(
            metavar="MB",
            min=1,
            max=512,
            envvar="VECSEARCH_MAX_UPLOAD",
            help="Refuse larger uploads.",
        ),
    ] = MAX_UPLOAD_MB,
    edit: Annotated[
        bool,
        typer.Option(
            "--edit",
            help="Let the page act on near-duplicates, as duplicates --apply and undo do, and "
            "record pairs that are not duplicates. With --all-users, it needs a --token.",
        ),
    ] = False,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Serve the web page, and the JSON API under /api, until Ctrl-C.

    The server writes nothing without --edit. Add images with `vecsearch ingest`, even while it
    runs.
    """
    from vecsearch.web import connections, serving
    from vecsearch.web.app import create_app
    from vecsearch.web.site import SESSION, Options, choose, require_served

    link = ""
    if edit and all_users and not token:
        raise typer.BadParameter("--edit with --all-users needs a --token, too.")
    serving.require_token(host, token)
    serving.share_heaps()
    is_known = None if token or all_users else serving.is_own
    if is_known and not serving.can_tell_users():
        say("This system does not show which user connects, so the address has a token.")
        token = secrets.token_urlsafe()
        link = f"?token={token}"
    with (
        serving.listen(host, port) as listening,
        open_library(settings, session=SESSION) as library,
        ExitStack() as resources,
    ):
        key = serving.cookie_key(settings.data_dir) if token else b""
        options = Options(collection, token, max_upload * 2**20, key, is_known)
        editor = resources.enter_context(open_library(settings)) if edit else None
        page = create_app(library, options, editor)
        address = f"{serving.address_of(listening)}{link}"
        require_served(library, collection)
        names = library.collection_names()
        with suppress(KeyboardInterrupt):
            say(f"Serving {address} until Ctrl-C.")
            if collection in names:
                serving.warm(library, collection, say)
            elif names:
                opened = choose(library, collection, None, names).name
                say(f"There is no collection {collection!r}; the page opens {opened!r}.")
            if open_:
                typer.launch(resources.enter_context(serving.private_link(address)))
            connections.run(page, listening, behind_proxies=token is not None)
        say("Stopped.")


@command(app, "mcp", encodes=True)
def mcp(settings: Settings, collection: CollectionOption = DEFAULT_COLLECTION) -> None:
    """Serve an assistant over stdin and stdout, by MCP; it can search and read, not write.

    The assistant's program starts this: see docs/mcp.md. It needs the extra mcp.
    """
    from vecsearch.web.mcp import require_extra

    require_extra()
    from vecsearch.web.mcp import server
    from vecsearch.web.mcp.tools import Served
    from vecsearch.web.site import SESSION, require_served

    with open_library(settings, session=SESSION) as library:
        # Each call says so itself.
        with suppress(DatabaseUnavailable):
            require_served(library, collection)
        server.serve(Served(library, collection))
