"""Waits that a reader's session cannot prolong: after a while, vecsearch ends the session.

An index build waits for every older snapshot, and a drop or an upgrade for every lock, so a cursor
that a BI tool left open would hold them up. Timeouts do not help: each role can unset its own.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import sqlalchemy as sa

from vecsearch.errors import VecsearchError
from vecsearch.postgres.database import driver_connection
from vecsearch.postgres.embedded.access import LOCAL, READERS

# Longer than most queries, and bearable for who waits.
PATIENCE_S = 10.0
POLL_S = 0.5

# Direct members only: a writer is a member by way of the writers' group, and is waited for. So are
# our own commands that read. A build waits for one snapshot after the other, so the sessions of all
# that it may wait for end at once. MATERIALIZED: nobody's session ends before all conditions are
# known to hold.
_END = sa.text(
    """
    WITH holding AS MATERIALIZED (
        SELECT session.pid, session.usename
        FROM pg_locks AS waiting JOIN pg_stat_activity AS session
            ON session.pid = ANY(pg_blocking_pids(waiting.pid))
            OR (waiting.locktype = 'virtualxid' AND session.xact_start < waiting.waitstart)
        WHERE waiting.pid = :pid AND NOT waiting.granted
            AND waiting.waitstart < clock_timestamp() - make_interval(secs => :patience)
            AND session.datname = current_database() AND session.usename <> :local
            AND session.usesysid IN (
                SELECT member FROM pg_auth_members JOIN pg_roles AS groups ON groups.oid = roleid
                WHERE groups.rolname = :readers)
    )
    SELECT usename FROM holding WHERE pg_terminate_backend(pid)
    """
)


@contextmanager
def bounded(connection: sa.Connection, notes: list[str]) -> Iterator[None]:
    """End the sessions of readers that a statement of this connection waits for too long.

    Readers are members of the role READERS, which exists on the embedded server. On another server
    that has such a role, this works if the connection's role may end its members' sessions.

    Args:
        connection: the connection whose statements may have to wait.
        notes: a note is added in the end, if sessions were ended.

    """
    pid = driver_connection(connection).info.backend_pid
    engine = connection.engine
    over = threading.Event()
    ended: Counter[str] = Counter()

    def watch() -> None:
        # Most statements are over before a second connection is needed.
        if over.wait(POLL_S):
            return
        # The wait goes on if it cannot be shortened.
        with suppress(VecsearchError, sa.exc.SQLAlchemyError), engine.connect() as second:
            watching = second.execution_options(isolation_level="AUTOCOMMIT")
            parameters = {
                "pid": pid,
                "patience": PATIENCE_S,
                "readers": READERS,
                "local": LOCAL,
            }
            while not over.wait(POLL_S):
                ended.update(watching.scalars(_END, parameters))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    notes += [
        f"Ended {count} {'session' if count == 1 else 'sessions'} of the reader {name!r}: this "
        f"command had waited for it for {PATIENCE_S:.0f} seconds."
        for name, count in sorted(ended.items())
    ]
