"""The command line: parse, one API call, print. The only opener, printer and exit.

Data goes to stdout, everything else to stderr. Exit 0: done; 1: it failed; 2: wrong usage.
"""

import signal

# Importing a module of commands hangs them on the tree, in the order that --help shows.
# ruff: isort: off
from vecsearch.cli import ingesting
from vecsearch.cli import asking
from vecsearch.cli import serving
from vecsearch.cli import tidying
from vecsearch.cli import transferring
from vecsearch.cli import evaluating
from vecsearch.cli import indexing
from vecsearch.cli import db
from vecsearch.cli.apps import app
# ruff: isort: on

__all__ = [
    "asking",
    "db",
    "evaluating",
    "indexing",
    "ingesting",
    "main",
    "serving",
    "tidying",
    "transferring",
]


def main() -> None:
    """Run the command line; being terminated is an interruption, which leaves nothing running."""
    for signal_ in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signal_, signal.default_int_handler)
    app()
