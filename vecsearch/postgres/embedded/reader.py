"""The reader's address: what a BI tool is given to reach the embedded database."""

import secrets
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from vecsearch.errors import InvalidInput
from vecsearch.postgres import database
from vecsearch.postgres.embedded import access, role
from vecsearch.postgres.embedded.access import ADDRESS, DATABASE, READER


@dataclass(frozen=True)
class Address:
    """Where the reader enters, and its password, of which no character needs quoting in a URL."""

    port: int
    password: str = field(repr=False)

    @property
    def url(self) -> str:
        """As libpq, SQLAlchemy and most others take it."""
        return f"postgresql://{READER}:{self.password}@{ADDRESS}:{self.port}/{DATABASE}"

    @property
    def jdbc(self) -> str:
        """As Java's tools take it."""
        return (
            f"jdbc:postgresql://{ADDRESS}:{self.port}/{DATABASE}"
            f"?user={READER}&password={self.password}"
        )


def require_port(data_dir: Path) -> int:
    """Return the embedded server's port.

    Raises:
        InvalidInput: it has none.

    """
    port = access.port(data_dir)
    if port is None:
        raise InvalidInput(
            "The embedded Postgres listens on no TCP port, and a reader enters by one. "
            "Give it one with: vecsearch db start --port 5433"
        )
    return port


def prepare(engine: sa.Engine, data_dir: Path) -> Address:
    """Make the reader on the embedded server, whose owner's engine this is, if need be.

    Raises:
        InvalidInput: the server has no port.

    """
    address = Address(require_port(data_dir), _password(data_dir))
    with database.writing(engine) as connection:
        role.create(connection, address.password)
    return address


def _password(data_dir: Path) -> str:
    """Return the reader's password, made on first use and kept in a file that is the owner's."""
    file = data_dir / "reader-password"
    if not file.exists():
        access.write(file, secrets.token_urlsafe(24))
    return file.read_text()
