"""The command line: parse, one API call, print. The only opener, printer and exit.

Data goes to stdout, everything else to stderr. Exit 0: done; 1: it failed; 2: wrong usage.
"""

import pkgutil
import signal
from importlib import import_module

from vecsearch.cli.command import app

__all__ = ["app", "main"]

# Importing a module declares its commands. --help shows them in this order; the commands of a
# module that is not named here come last.
ORDER = (
    *("ingest", "query", "sql", "collections", "serve", "duplicates", "transfer", "evaluate"),
    *("concepts", "tags"),
    *("demo", "train", "index", "db"),
)
HELPERS = {"command", "progress"}
OTHERS = {module.name for module in pkgutil.iter_modules(__path__)} - HELPERS - set(ORDER)

for name in (*ORDER, *sorted(OTHERS)):
    import_module(f"{__name__}.{name}")


def main() -> None:
    """Run the command line; SIGTERM interrupts like Ctrl-C, so that nothing is left running."""
    for signal_ in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signal_, signal.default_int_handler)
    app()
