"""The commands db: those of the embedded server, and those of any: upgrade, dump and so on."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from vecsearch.cli.command import (
    FormatOption,
    YesOption,
    command,
    confirming,
    group,
    open_library,
    say,
    say_all,
    show,
    write_rows,
)
from vecsearch.config import Settings
from vecsearch.errors import InvalidInput, NotConfirmed
from vecsearch.postgres.embedded.access import READER, WRITER
from vecsearch.render.figures import human_bytes

db_app = group("db", "The database underneath.")


@command(db_app, "url")
def db_url(
    settings: Settings,
    for_reader: Annotated[
        bool,
        typer.Option(
            "--reader",
            help="Print the URL, with its password, of a read-only role for BI tools. It connects "
            "by TCP, so run `db start --port` first.",
        ),
    ] = False,
    for_writer: Annotated[
        bool,
        typer.Option(
            "--writer",
            help="The same for a role that also owns a schema of its name, for dbt.",
        ),
    ] = False,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="ROLE",
            help="With --reader or --writer: the role, which is created if there is none. "
            f"Default: {READER} or {WRITER}.",
        ),
    ] = None,
    jdbc: Annotated[
        bool, typer.Option("--jdbc", help="With --reader or --writer: print a JDBC URL, for Java.")
    ] = False,
) -> None:
    """Print the database's URL, for psql and other clients.

    This starts the embedded server, which stays up until `vecsearch db stop`.
    """
    if for_reader and for_writer:
        raise typer.BadParameter("Give --reader or --writer, not both.")
    if for_reader or for_writer:
        _require_embedded(
            settings,
            "Readers and writers are roles of the embedded Postgres, and a database URL is set. "
            "Unset VECSEARCH_DATABASE_URL, or create a role on your server as in docs/sql.md.",
        )
        from vecsearch.postgres.embedded import reader

        reader.require_port(settings.data_dir)
        with open_library(settings, keep_running=True) as library:
            address = reader.prepare(
                library.engine,
                settings.data_dir,
                name or (WRITER if for_writer else READER),
                is_writer=for_writer,
            )
            show(address.jdbc if jdbc else address.url)
    elif jdbc or name is not None:
        raise typer.BadParameter(
            "Add --reader or --writer: --jdbc and --name are for roles that connect by TCP."
        )
    else:
        with open_library(settings, keep_running=True) as library:
            show(library.url)
    if settings.database_url is None and sys.stderr.isatty():
        say("The embedded Postgres stays up until: vecsearch db stop")


@command(db_app, "roles")
def db_roles(
    settings: Settings,
    drop: Annotated[
        str | None,
        typer.Option(
            metavar="ROLE",
            help="End this role's sessions and remove it. A writer's schema stays.",
        ),
    ] = None,
    format_: FormatOption = None,
) -> None:
    """List the readers and writers of the embedded Postgres, or drop one."""
    _require_embedded(settings)
    from vecsearch.postgres.embedded import reader

    with open_library(settings) as library:
        if drop is None:
            roles = reader.list_roles(library.engine)
            if not roles:
                say("There are no readers or writers. Create one: vecsearch db url --reader")
            write_rows(roles, format_, columns=["name", "kind", "sessions"])
        else:
            notes: list[str] = []
            dropped = reader.drop(library.engine, settings.data_dir, drop, notes)
            say_all(notes)
            kept = f" Its schema {drop!r} stays." if dropped.kind == "writer" else ""
            say(f"Dropped the {dropped.kind} {drop!r} and ended its sessions.{kept}")


@command(db_app, "configure")
def db_configure(settings: Settings, yes: YesOption = False) -> None:
    """Set what plain SQL needs on your own Postgres: search_path, and how indexes are searched.

    The settings are stored for the database if you own it, otherwise for your role in it.
    """
    if settings.database_url is None:
        say("The embedded Postgres is configured already, at every start.")
        return
    with open_library(settings) as library:
        wanted = library.missing_settings()
        if not wanted.missing:
            say(f"The {wanted.where} has these settings already.")
            return
        say(f"Settings of new sessions of {wanted.where}:")
        say_all(f"  {name} = {value}" for name, value in wanted.missing.items())
        sentence = "These settings are stored in the database."
        if not confirming("Set them?", yes=yes)(sentence):
            raise NotConfirmed(f"{sentence} That needs a yes: add --yes. Nothing was set.")
        left = library.configure(wanted)
    say(f"Set for {wanted.where}. Only new sessions see it.")
    if left.missing:
        say(
            f"Role settings take precedence over these: {', '.join(left.missing)}. Remove each: "
            "ALTER ROLE … RESET …"
        )


@command(db_app, "start")
def db_start(
    settings: Settings,
    port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            help="Also listen on this port of 127.0.0.1, now and at every later start, for "
            "`db url --reader`. Default: as last time.",
        ),
    ] = None,
    no_port: Annotated[
        bool, typer.Option("--no-port", help="Close the port, now and at every later start.")
    ] = False,
) -> None:
    """Start the embedded Postgres and leave it running for other programs."""
    if port is not None and no_port:
        raise typer.BadParameter("Give --port or --no-port, not both.")
    _require_embedded(settings)
    from vecsearch.postgres.embedded import access, reader, server

    if (port is not None or no_port) and server.set_port(settings.data_dir, port):
        say("The database was restarted: sessions have ended, and its socket has another URL.")
    with open_library(settings, keep_running=True) as library:
        say(f"Running at {library.url} until: vecsearch db stop")
        if access.port(settings.data_dir) is not None:
            address = reader.prepare(library.engine, settings.data_dir)
            say(f"Listening on {access.ADDRESS}:{address.port}; its URL: vecsearch db url --reader")


@command(db_app, "stop")
def db_stop(settings: Settings) -> None:
    """Stop the embedded Postgres."""
    _require_embedded(settings)
    from vecsearch.postgres.embedded import server

    was_running = server.is_running(settings.data_dir)
    if server.stop(settings.data_dir):
        say("Stopped." if was_running else "Nothing was running.")
    else:
        say("Another vecsearch command is using it; the server stops when that one ends.")


@command(db_app, "shell")
def db_shell(
    settings: Settings,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[-- PSQL OPTIONS]", help="Options of psql.")
    ] = None,
) -> None:
    """Open psql on the database."""
    from vecsearch.postgres.embedded import programs
    from vecsearch.postgres.sessions import hosts

    # The embedded server's own psql fits its version; for another server, psql on the PATH does.
    own = None if settings.database_url is None else shutil.which("psql")
    with open_library(settings) as library:
        psql = own or str(programs.program("psql"))
        url, password = hosts.for_programs(library.engine.url)
        # psql handles Ctrl-C: it cancels a statement.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        finished = subprocess.run(  # noqa: S603 - the user's own shell
            [psql, url, *(arguments or [])], check=False, env={**os.environ, **password}
        )
    raise typer.Exit(finished.returncode)


@command(db_app, "upgrade")
def db_upgrade(settings: Settings) -> None:
    """Create the tables, or bring them up to date with this version."""
    from vecsearch.postgres import schema

    with open_library(settings) as library:
        say_all(library.upgrade())
    say(f"The tables are at revision {schema.REVISION}.")


@command(db_app, "distribute")
def db_distribute(
    settings: Settings,
    collection: Annotated[
        str | None,
        typer.Option("--collection", "-c", help="Only this collection. Default: all of them."),
    ] = None,
    shards: Annotated[
        int | None,
        typer.Option(min=1, help="Number of shards. Default: citus.shard_count of the server."),
    ] = None,
    yes: YesOption = False,
    format_: FormatOption = None,
) -> None:
    """Put collections into shards on the servers of a Citus cluster.

    Every command works as before. It asks before it distributes a collection that is too small to
    gain from it.
    """
    from vecsearch.cli.progress import steps_progress

    with open_library(settings) as library, steps_progress() as progress:
        done, notes = library.distribute(
            collection,
            shards=shards,
            confirm=progress.aside(confirming("Distribute it?", yes=yes)),
            on_progress=progress,
        )
    for each in done:
        if not each.changed:
            say(f"{each.collection} was in shards already.")
    say_all(notes)
    write_rows(done, format_, columns=["collection", "images", "shards", "servers", "changed"])


@command(db_app, "repair")
def db_repair(
    settings: Settings,
    collection: Annotated[
        str | None, typer.Argument(metavar="[COLLECTION]", help="Default: all of them.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; print what would be done.")
    ] = False,
    yes: YesOption = False,
    format_: FormatOption = None,
) -> None:
    """Recreate what was dropped by hand: views, functions, triggers, indexes and columns.

    A table that the register lacks is registered again. It asks before it removes the rest of a
    collection whose table is gone, or thumbnails that no image uses.
    """
    from vecsearch.search.repair import RepairRefused

    refused: RepairRefused | None = None
    with open_library(settings) as library:
        try:
            done = library.repair(
                collection, dry_run=dry_run, confirm=confirming("Remove it?", yes=yes)
            )
        except RepairRefused as error:
            done, refused = error.repaired, error
    if not done:
        say("Nothing is missing.")
    write_rows(done, format_, columns=["collection", "problem", "done"], dry_run=dry_run)
    if refused is not None:
        raise refused


@command(db_app, "dump")
def db_dump(
    settings: Settings,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The file to write; replaced if it exists.")
    ],
    collection: Annotated[
        str | None,
        typer.Option("--collection", "-c", help="Only this collection. Default: everything."),
    ] = None,
) -> None:
    """Write the collections to a file, for `db restore` here, elsewhere, or in a later version.

    The file is whole or not there at all. Image files and weights are not in it. A dump of
    everything also holds your own views in the schema, and columns that you added.
    """
    with open_library(settings) as library:
        library.dump(file, collection=collection)
    say(f"Wrote {file} ({human_bytes(file.stat().st_size)}).")


@command(db_app, "restore")
def db_restore(
    settings: Settings,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `db dump` wrote.")],
    collection: Annotated[
        str | None,
        typer.Option(
            "--collection", "-c", help="Only this collection of the file. Default: all of them."
        ),
    ] = None,
) -> None:
    """Restore the collections of a dump, with their indexes.

    All of them are restored, or none. A collection that exists already is never replaced.
    """
    from vecsearch.cli.progress import steps_progress

    with open_library(settings) as library, steps_progress() as progress:
        restored = library.restore(file, collection=collection, on_progress=progress)
    say_all(restored.notes)
    say(f"Restored {', '.join(restored.names) or 'no collection: the dump has none'}.")


def _require_embedded(
    settings: Settings,
    otherwise: str = "This command is for the embedded Postgres, and a database URL is set. "
    "Unset VECSEARCH_DATABASE_URL, or manage your own server with its own tools.",
) -> None:
    if settings.database_url is not None:
        raise InvalidInput(otherwise)
