"""The readers and writers that the owner made, with their passwords, in files of the owner's.

The files say what each role should be: a role can change its own password and settings, which
Postgres cannot forbid, and is restored from them.
"""

import json
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path

from vecsearch.postgres.embedded import access


@dataclass(frozen=True)
class Credentials:
    """One role that connects by TCP.

    Attributes:
        name: of the role; it needs no quoting in SQL or a URL.
        is_writer: whether it owns a schema of its name, in which it can write.
        password: it needs no quoting in a URL.
        verifier: what Postgres stores of the password (RFC 5802).

    """

    name: str
    is_writer: bool
    password: str = field(repr=False)
    verifier: str = field(repr=False)


def read(data_dir: Path, name: str) -> Credentials | None:
    """Return a role's credentials; None if vecsearch made no such role."""
    try:
        return Credentials(**json.loads(_file(data_dir, name).read_text()))
    except FileNotFoundError:
        return None


def read_all(data_dir: Path) -> list[Credentials]:
    """Return the credentials of every role that vecsearch made."""
    names = sorted(file.stem for file in _folder(data_dir).glob("*.json"))
    return [found for name in names if (found := read(data_dir, name)) is not None]


def write(data_dir: Path, credentials: Credentials) -> None:
    """Store a role's credentials."""
    _folder(data_dir).mkdir(mode=0o700, exist_ok=True)
    access.write(_file(data_dir, credentials.name), json.dumps(asdict(credentials)) + "\n")


def forget(data_dir: Path, name: str) -> None:
    """Delete a role's credentials."""
    _file(data_dir, name).unlink(missing_ok=True)


def new_password() -> str:
    """Return a random password of 32 characters."""
    return secrets.token_urlsafe(24)


def _folder(data_dir: Path) -> Path:
    return data_dir / "roles"


def _file(data_dir: Path, name: str) -> Path:
    return _folder(data_dir) / f"{name}.json"
