"""URLs of several hosts."""

import pytest
from psycopg.conninfo import conninfo_to_dict

from vecsearch.errors import InvalidInput
from vecsearch.postgres import database
from vecsearch.postgres.sessions import hosts

STANDBY = "target_session_attrs=prefer-standby"


def sent(url: str, *, writes: bool = True) -> dict[str, object]:
    """Return what libpq is given."""
    engine = database.open_engine(url, writes=writes)
    _, options = engine.dialect.create_connect_args(engine.url)
    return {name: str(value) for name, value in options.items()}


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("postgresql://me:s%40cret@one:5432,two:5433/db", "one,two", "5432,5433"),
        ("postgres://me:s%40cret@one,two/db", "one,two", ","),
        ("postgresql://me:s%40cret@[::1]:5432,[::2]:5433/db", "::1,::2", "5432,5433"),
        ("postgresql://me:s%40cret@/db?host=one,two&port=1,2", "one,two", "1,2"),
        ("postgresql+psycopg://me:s%40cret@/db?host=one:1&host=two:2", "one,two", "1,2"),
    ],
)
def test_several_hosts(url: str, host: str, port: str) -> None:
    for writes, kind in ((True, "read-write"), (False, "prefer-standby")):
        glue = "&" if "?" in url else "?"
        found = sent(f"{url}{glue}{STANDBY}", writes=writes)
        assert found["host"] == host
        assert found["port"] == port
        assert (found["user"], found["password"], found["dbname"]) == ("me", "s@cret", "db")
        assert found["target_session_attrs"] == kind


def test_one_host_is_used_as_it_is() -> None:
    url = f"postgresql://one/db?{STANDBY}"
    assert sent(url)["target_session_attrs"] == "prefer-standby"
    assert not hosts.may_read_elsewhere(hosts.parse(url))


@pytest.mark.parametrize(
    ("kind", "elsewhere"),
    [
        ("", False),
        ("?target_session_attrs=primary", False),
        ("?target_session_attrs=read-write", False),
        ("?target_session_attrs=standby", True),
        ("?target_session_attrs=any&load_balance_hosts=random", True),
        (f"?{STANDBY}", True),
    ],
)
def test_reads_go_elsewhere_when_asked(kind: str, elsewhere: bool) -> None:
    parsed = hosts.parse(f"postgresql://one:1,two:2/db{kind}")
    assert hosts.may_read_elsewhere(parsed) is elsewhere


def test_programs_of_postgres_can_read_the_url() -> None:
    parsed = hosts.parse("postgresql://me@one:1,two:2/db").set(drivername="postgresql")
    found = conninfo_to_dict(parsed.render_as_string())
    assert (found["host"], found["port"]) == ("one,two", "1,2")


@pytest.mark.parametrize("url", ["one:1,two:2", "mysql://one:1,two:2/db", "postgresql://one:x/db"])
def test_no_url_of_postgres(url: str) -> None:
    with pytest.raises(InvalidInput, match="not a Postgres URL"):
        hosts.parse(url)


def test_the_password_is_hidden() -> None:
    shown = database.without_password("postgresql://me:secret@one:1,two:2/db")
    assert "secret" not in shown
    assert "two" in shown
