"""Connect to a server that is starting, shutting down or recovering: try again for a while."""

import logging
import re
import time
from collections.abc import Callable
from typing import TypeVar

from vecsearch.vocabulary import SAY_AFTER_S

T = TypeVar("T")
# A server that is suspended or out of reach refuses nobody.
CONNECT_TIMEOUT_S = 10
PATIENCE_S = 4.0
_POLL_S = 0.1
_NOT_YET = re.compile(
    "the database system is (starting up|shutting down|in recovery mode|not yet accepting"
    " connections)"
)
_log = logging.getLogger(__name__)


def patiently(connect: Callable[[], T], *, patience_s: float = PATIENCE_S) -> T:
    """Return what `connect` returns, which is called again while the server says "not yet".

    Raises:
        psycopg.OperationalError: the last one, once patience is over.

    """
    import psycopg

    began = time.monotonic()
    has_said = False
    while True:
        try:
            return connect()
        except psycopg.OperationalError as error:
            waited = time.monotonic() - began
            found = _NOT_YET.search(str(error))
            if found is None or waited > patience_s:
                raise
            if waited > SAY_AFTER_S and not has_said:
                _log.warning("Waiting for the database, which is %s.", found[1])
                has_said = True
        time.sleep(_POLL_S)
