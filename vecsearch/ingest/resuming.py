"""Work that goes on when the database ends in the middle of it, and comes back."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from vecsearch.errors import DatabaseLost, DatabaseUnavailable, first_line
from vecsearch.postgres import database
from vecsearch.postgres.embedded import server
from vecsearch.search.store import Store

T = TypeVar("T")
# Between two attempts: long enough, together, for a server that restarts or recovers.
WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
_log = logging.getLogger(__name__)


def resumed(
    store: Store,
    work: Callable[[], T],
    stored: Callable[[], int] = lambda: 0,
    *,
    was_there: bool = False,
) -> tuple[T, list[str]]:
    """Return what `work` returns, called again when the database is lost, and notes for the user.

    The embedded server is started again; a server of one's own is waited for.

    Args:
        store: the database.
        work: finds by itself what is done already.
        stored: how much calls of `work` have stored; when that grows, the waits begin anew.
        was_there: the database has answered before, so it is waited for from the beginning.

    Raises:
        DatabaseUnavailable: the database does not come back.

    """
    if not was_there:
        with database.session(store.engine):
            pass  # what is not there to begin with is not waited for
    losses = failures = done = 0
    while True:
        try:
            if failures and store.settings.database_url is None:
                server.revive(store.settings.data_dir)
            result = work()
        except DatabaseUnavailable as error:
            losses += isinstance(error, DatabaseLost) or not failures
            failures = 1 if stored() > done else failures + 1
            done = stored()
            if failures > len(WAITS_S):
                raise
            wait_s = WAITS_S[failures - 1]
            _log.warning("%s. Going on in %.0f s.", first_line(error).partition(". ")[0], wait_s)
            time.sleep(wait_s)
        else:
            times = "once" if losses == 1 else f"{losses} times"
            note = f"The database was lost {times} during the run, which then went on."
            return result, [note] if losses else []
