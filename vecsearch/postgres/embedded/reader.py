"""The reader's address: how a BI tool connects to the embedded database."""

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
    """Where the reader connects, and its password, which needs no quoting in a URL."""

    port: int
    password: str = field(repr=False)

    @property
    def url(self) -> str:
        """The URL for libpq, SQLAlchemy and most other clients."""
        return f"postgresql://{READER}:{self.password}@{ADDRESS}:{self.port}/{DATABASE}"

    @property
    def jdbc(self) -> str:
        """The URL for Java programs."""
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
            "The reader connects by TCP, and the embedded Postgres listens on no port. "
            "Give it one: vecsearch db start --port 5433"
        )
    return port


def prepare(engine: sa.Engine, data_dir: Path) -> Address:
    """Create or update the reader on the embedded server; return its address.

    Args:
        engine: of the server's owner.
        data_dir: the folder of the database.

    Raises:
        InvalidInput: the server has no port.

    """
    address = Address(require_port(data_dir), _password(data_dir))
    with database.writing(engine) as connection:
        role.create(connection, address.password)
    return address


def _password(data_dir: Path) -> str:
    """Return the reader's password, created on first use and stored in a file of the owner's."""
    file = data_dir / "reader-password"
    if not file.exists():
        access.write(file, secrets.token_urlsafe(24))
    return file.read_text()
