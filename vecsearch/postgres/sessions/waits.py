"""Waits for locks: named, and bounded.

Who waits says for whom. A reader's session that is waited for is ended after a while: an index
build waits for every older snapshot, and a drop or an upgrade for every lock, so a cursor that a BI
tool left open would hold them up. Timeouts do not help: each role can unset its own. Other sessions
are waited for as long as they do something.
"""

import logging
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any

import psycopg
import sqlalchemy as sa

from vecsearch.errors import DatabaseBusy, VecsearchError
from vecsearch.postgres.database import driver_connection
from vecsearch.postgres.embedded.access import LOCAL, READERS
from vecsearch.vocabulary import SAY_AFTER_S, counted

# Longer than most queries, and bearable for who waits.
PATIENCE_S = 10.0
POLL_S = 0.5
# How long it waits for a session that does nothing; a build has more to lose.
GIVE_UP_S, BUILD_GIVE_UP_S = 60.0, 600.0

# SQL for what a session of pg_stat_activity is called.
NAME = (
    "format('%s (server process %s)',"
    " coalesce(nullif(application_name, ''), 'a session of ' || usename), pid)"
)

logger = logging.getLogger(__name__)

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
# A session that computes is at work; one that waits for its client or a lock is, if something about
# it has changed. This role may not see what another role's session does.
_HOLDERS = sa.text(
    f"""
    SELECT pid, {NAME} AS name,
        state = 'active' AND wait_event_type IS DISTINCT FROM 'Client'
            AND wait_event_type IS DISTINCT FROM 'Lock' AS computes,
        concat_ws(' ', session.pid, xact_start, query_start, state_change, bytes_processed) AS doing
    FROM pg_stat_activity AS session LEFT JOIN pg_stat_progress_copy USING (pid)
    WHERE pid = ANY(pg_blocking_pids(:pid)) ORDER BY pid
    """
)
_CANCEL = sa.text(
    "SELECT pg_cancel_backend(:pid)"
    " WHERE EXISTS (SELECT FROM pg_locks WHERE pid = :pid AND NOT granted)"
)


class _Watch:
    """Watches what a session waits for, from a second one."""

    def __init__(self, pid: int, give_up: float) -> None:
        self.pid = pid
        self.ended: Counter[str] = Counter()
        self.given_up: str | None = None
        self.give_up = give_up
        self._named: set[int] = set()
        self._doing: set[str] = set()
        self._since: float | None = None
        self._idle_since = 0.0

    def look(self, connection: sa.Connection) -> None:
        """Name whom the session waits for; end what it need not wait for, or its wait."""
        parameters = {"pid": self.pid, "patience": PATIENCE_S, "readers": READERS, "local": LOCAL}
        self.ended.update(connection.scalars(_END, parameters))
        holders = connection.execute(_HOLDERS, {"pid": self.pid}).all()
        now = monotonic()
        if not holders:
            self._since = None
            return
        doing = {row.doing for row in holders}
        if self._since is None:
            self._since = now - POLL_S
        if any(row.computes for row in holders) or doing != self._doing:
            self._idle_since, self._doing = now, doing
        if now - self._since >= SAY_AFTER_S:
            self._name(holders)
        if now - self._idle_since >= self.give_up:
            self.given_up = ", ".join(row.name for row in holders)
            connection.execute(_CANCEL, {"pid": self.pid})

    def _name(self, holders: Any) -> None:
        for row in holders:
            if row.pid not in self._named:
                self._named.add(row.pid)
                # Python prints warnings to stderr where logging is not configured.
                logger.warning("Waiting for %s.", row.name)


@contextmanager
def bounded(
    connection: sa.Connection, notes: list[str] | None = None, *, give_up: float | None = None
) -> Iterator[None]:
    """Say for whom statements of this connection wait, and bound how long.

    Sessions of readers that a statement waits for are ended. Readers are members of the role
    READERS, which exists on the embedded server. On another server that has such a role, this works
    if the connection's role may end its members' sessions.

    Args:
        connection: the connection whose statements may have to wait.
        notes: a note is added in the end, if sessions were ended; None logs it.
        give_up: seconds to wait for a session that does nothing; None: GIVE_UP_S.

    Raises:
        DatabaseBusy: a session that holds a lock has done nothing for that long.

    """
    watch = _Watch(
        driver_connection(connection).info.backend_pid, GIVE_UP_S if give_up is None else give_up
    )
    engine = connection.engine
    over = threading.Event()

    def run() -> None:
        # Most statements are over before a second connection is needed.
        if over.wait(POLL_S):
            return
        # The wait goes on if it cannot be watched.
        with suppress(VecsearchError, sa.exc.SQLAlchemyError), engine.connect() as second:
            watching = second.execution_options(isolation_level="AUTOCOMMIT")
            while not over.wait(POLL_S):
                watch.look(watching)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    except (sa.exc.DBAPIError, psycopg.Error) as error:
        cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        if watch.given_up is None or not isinstance(cause, psycopg.errors.QueryCanceled):
            raise
        raise DatabaseBusy(
            f"Gave up waiting for {watch.given_up}, which holds a lock and has done nothing for "
            f"{watch.give_up:.0f} seconds. End it, and retry; what is stored stays."
        ) from error
    finally:
        over.set()
        thread.join()
        said = [
            f"Ended {counted(count, 'session')} of the reader {name!r}: this "
            f"command had waited for it for {PATIENCE_S:.0f} seconds."
            for name, count in sorted(watch.ended.items())
        ]
        if notes is None:
            for note in said:
                logger.warning("%s", note)
        else:
            notes += said
