"""The database underneath: url, start, stop, shell, upgrade."""

import shutil
import signal
import subprocess
import sys
from typing import Annotated

import typer

from vecsearch.cli.apps import db_app
from vecsearch.cli.command import (
    command,
    open_library,
    say,
)
from vecsearch.config import Settings
from vecsearch.errors import InvalidInput


@command(db_app, "url")
def db_url(settings: Settings) -> None:
    """Print the database's URL, for psql and every other client.

    The embedded server is started, and stays up until `vecsearch db stop`.
    """
    with open_library(settings, keep_running=True) as library:
        typer.echo(library.url)
    if settings.database_url is None and sys.stderr.isatty():
        say("The embedded Postgres stays up until: vecsearch db stop")


@command(db_app, "start")
def db_start(settings: Settings) -> None:
    """Start the embedded Postgres and leave it running for other programs."""
    _require_embedded(settings)
    with open_library(settings, keep_running=True) as library:
        say(f"Running at {library.url} until: vecsearch db stop")


@command(db_app, "stop")
def db_stop(settings: Settings) -> None:
    """Stop the embedded Postgres."""
    _require_embedded(settings)
    from vecsearch import server

    if server.stop(settings.data_dir):
        say("Stopped.")
    else:
        say("Another vecsearch command is using it; it stops when that one ends.")


@command(db_app, "shell")
def db_shell(
    settings: Settings,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[-- PSQL OPTIONS]", help="Handed to psql.")
    ] = None,
) -> None:
    """Open psql on the database."""
    from vecsearch import server

    # The embedded server's own psql knows its version; another server's client is on the PATH.
    own = None if settings.database_url is None else shutil.which("psql")
    with open_library(settings) as library:
        psql = own or str(server.program("psql"))
        # Ctrl-C is psql's: it cancels a statement there.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        finished = subprocess.run(  # noqa: S603 - the user's own shell
            [psql, library.url, *(arguments or [])], check=False
        )
    raise typer.Exit(finished.returncode)


@command(db_app, "upgrade")
def db_upgrade(settings: Settings) -> None:
    """Create the tables, or bring them up to date with this version."""
    from vecsearch import schema

    with open_library(settings) as library:
        library.upgrade()
    say(f"The tables are at revision {schema.REVISION}.")


def _require_embedded(settings: Settings) -> None:
    if settings.database_url is not None:
        raise InvalidInput(
            "This starts and stops the embedded Postgres, and a database URL is set. "
            "Unset VECSEARCH_DATABASE_URL, or manage your own server with its own tools."
        )
