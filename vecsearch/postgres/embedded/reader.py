"""The addresses of readers and writers: how BI tools and dbt connect to the embedded database."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from vecsearch.errors import InvalidInput
from vecsearch.postgres import catalog, database
from vecsearch.postgres.database import driver_connection
from vecsearch.postgres.embedded import access, credentials, role
from vecsearch.postgres.embedded.access import ADDRESS, DATABASE, READER
from vecsearch.postgres.embedded.credentials import Credentials
from vecsearch.postgres.embedded.role import Role
from vecsearch.postgres.sessions import waits

# Names that need no quoting anywhere.
_NAME = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")


@dataclass(frozen=True)
class Address:
    """Where a role connects, and its password, which needs no quoting in a URL."""

    port: int
    password: str = field(repr=False)
    name: str = READER
    path: str = "vecsearch,public"

    @property
    def url(self) -> str:
        """The URL for libpq, SQLAlchemy and most other clients."""
        return f"postgresql://{self.name}:{self.password}@{ADDRESS}:{self.port}/{DATABASE}"

    @property
    def jdbc(self) -> str:
        """The URL for Java programs, some of which choose a schema unless it names them."""
        return (
            f"jdbc:postgresql://{ADDRESS}:{self.port}/{DATABASE}"
            f"?user={self.name}&password={self.password}&currentSchema={self.path}"
        )


def require_port(data_dir: Path) -> int:
    """Return the embedded server's port.

    Raises:
        InvalidInput: it has none.

    """
    port = access.port(data_dir)
    if port is None:
        raise InvalidInput(
            "Readers and writers connect by TCP, and the embedded Postgres listens on no port. "
            "Give it one: vecsearch db start --port 5433"
        )
    return port


def prepare(
    engine: sa.Engine, data_dir: Path, name: str = READER, *, is_writer: bool = False
) -> Address:
    """Create or restore a reader or writer on the embedded server; return its address.

    Args:
        engine: of the server's owner.
        data_dir: the folder of the database.
        name: of the role.
        is_writer: whether it owns a schema of its name, in which it can write; like a reader, it
            can read every collection, and change none.

    Raises:
        InvalidInput: the server has no port, or the name is not one for such a role.

    """
    port = require_port(data_dir)
    if _NAME.fullmatch(name) is None:
        raise InvalidInput(
            f"{name!r} cannot be the name of a role. Use small letters, digits and _, a letter "
            "first."
        )
    with database.writing(engine) as connection:
        driver = driver_connection(connection)
        # A collection is created either before this or after it, and is readable in both cases.
        catalog.lock_creation(connection)
        stored = credentials.read(data_dir, name)
        is_new = stored is None
        if stored is None:
            _refuse_others(driver, name, is_writer=is_writer)
            stored = _new(driver, name, is_writer=is_writer)
            credentials.write(data_dir, stored)
        elif stored.is_writer != is_writer:
            kind, other = ("writer", "reader") if stored.is_writer else ("reader", "writer")
            raise InvalidInput(
                f"{name!r} is a {kind}. Choose another name for the {other}, or drop it first: "
                f"vecsearch db roles --drop {name}"
            )
        role.prepare_groups(driver)
        if role.exists(driver, name) and not is_new:
            role.restore(driver, [stored])
        else:
            role.apply(driver, stored)
        path = role.settings(driver, stored)["search_path"].replace(", ", ",")
    return Address(port, stored.password, name, path)


def list_roles(engine: sa.Engine) -> list[Role]:
    """Return the readers and writers of the embedded server, by name."""
    with database.reading(engine) as connection:
        return role.find(driver_connection(connection))


def drop(engine: sa.Engine, data_dir: Path, name: str, notes: list[str]) -> Role:
    """End a role's sessions and drop it; a writer's schema stays. Return the role.

    Args:
        engine: of the server's owner.
        data_dir: the folder of the database.
        name: of the role.
        notes: notes for the user are added.

    Raises:
        InvalidInput: there is no such reader or writer.

    """
    with database.writing(engine) as connection:
        driver = driver_connection(connection)
        catalog.lock_creation(connection)
        found = [one for one in role.find(driver) if one.name == name]
        if not found:
            known = ", ".join(one.name for one in role.find(driver)) or "none"
            raise InvalidInput(f"There is no reader or writer {name!r}. There is: {known}.")
        role.lock_out(driver, name)
    with database.writing(engine) as connection, waits.bounded(connection, notes):
        role.drop(driver_connection(connection), name)
    credentials.forget(data_dir, name)
    return found[0]


def _new(driver: role.Driver, name: str, *, is_writer: bool) -> Credentials:
    password = credentials.new_password()
    verifier = driver.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256")
    return Credentials(name, is_writer, password, verifier.decode())


def _refuse_others(driver: role.Driver, name: str, *, is_writer: bool) -> None:
    """Refuse the name of a role that vecsearch did not make, and a schema's for a writer."""
    if name != READER and role.exists(driver, name):
        raise InvalidInput(f"The server has another role {name!r} already. Choose another --name.")
    if is_writer and role.has_schema(driver, name):
        raise InvalidInput(
            f"The database has a schema {name!r} already, and a writer owns one of its own name. "
            f"Choose another --name, or drop the schema and all in it: vecsearch sql --write "
            f"'DROP SCHEMA {name} CASCADE'"
        )
