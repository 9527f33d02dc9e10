"""URLs of Postgres, which may name several hosts: a primary, and standbys that can be read."""

from contextlib import suppress
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.conninfo import conninfo_to_dict

from vecsearch.errors import InvalidInput

_DRIVER = "postgresql+psycopg"
# What libpq calls the kind of server that a session needs.
_KIND = "target_session_attrs"


def parse(url: str) -> sa.URL:
    """Return a URL in the form of SQLAlchemy or libpq; the latter may name several hosts.

    Raises:
        InvalidInput: the URL is not a Postgres URL.

    """
    parsed: sa.URL | None = None
    with suppress(sa.exc.ArgumentError, ValueError, psycopg.ProgrammingError):
        parsed = _of_libpq(url) if "," in _authority(url) else sa.make_url(url)
    if parsed is None or parsed.get_backend_name() not in {"postgresql", "postgres"}:
        raise InvalidInput(
            "The database URL is not a Postgres URL. "
            "Give one like postgresql://user:password@host:5432/database."
        )
    return parsed.set(drivername=_DRIVER)


def _authority(url: str) -> str:
    """Return the hosts and ports of a URL."""
    return url.partition("://")[2].partition("/")[0].rpartition("@")[2]


def _of_libpq(url: str) -> sa.URL:
    """Return a URL that names several hosts where SQLAlchemy takes one."""
    found: dict[str, Any] = conninfo_to_dict(url)
    names = {"username": "user", "password": "password", "database": "dbname"}
    known = {ours: found.pop(theirs, None) for ours, theirs in names.items()}
    # As parameters, hosts and ports mean the same to SQLAlchemy, to libpq and to its programs.
    query = {name: str(value) for name, value in found.items()}
    return sa.URL.create(_DRIVER, **known, query=query)


def for_writing(url: sa.URL) -> sa.URL:
    """Return the URL of the one among several hosts that takes changes; else the URL itself."""
    return url.update_query_dict({_KIND: "read-write"}) if _has_several(url) else url


def may_read_elsewhere(url: sa.URL) -> bool:
    """Return whether reading as the URL says may lead to another host than writing does."""
    return _has_several(url) and url.query.get(_KIND) not in {None, "read-write", "primary"}


def for_programs(url: sa.URL) -> tuple[str, dict[str, str]]:
    """Return a URL for a program of Postgres, and the environment variables that go with it.

    The password is one of them: other users of this machine can read a command line.
    """
    password = {} if url.password is None else {"PGPASSWORD": url.password}
    # Not `set`, for which None means "unchanged".
    bare = url._replace(drivername="postgresql", password=None)
    return bare.render_as_string(hide_password=False), password


def _has_several(url: sa.URL) -> bool:
    host = url.query.get("host")
    return isinstance(host, tuple) or "," in (host or "")
