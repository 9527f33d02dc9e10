"""What the clients in Python share: the questions, and how the answers are told to `run.py`."""

import os
import sys
from collections.abc import Iterable, Mapping

URL = os.environ["READER_URL"]
# The statements by name: types, nearest, hundred, filter, all. Each returns the id first.
ASKED = {
    name.removeprefix("ASK_").lower(): statement
    for name, statement in os.environ.items()
    if name.startswith("ASK_")
}
IMAGE = os.environ["IMAGE"]
LABEL = os.environ["LABEL"]
# Rows that a cursor takes at once.
PAGE = 50


def version(words: object) -> None:
    """Tell the client's version."""
    sys.stdout.write(f"version\t{words}\n")


def types(columns: Mapping[str, object]) -> None:
    """Tell the type of each column, as the client names it."""
    for name, type_ in columns.items():
        sys.stdout.write(f"types\t{name}\t{type_}\n")


def rows(question: str, ids: Iterable[object]) -> None:
    """Tell the ids of an answer, in its order."""
    for id_ in ids:
        sys.stdout.write(f"{question}\t{id_}\n")
