"""Labels of a collection that words name: exactly, in another case, or nearly."""

import difflib
import shlex
from collections.abc import Iterable, Mapping, Sequence

import sqlalchemy as sa
from psycopg import sql

from vecsearch.errors import Unclear, having_label
from vecsearch.search import gallery

NEAREST = 5
# Labels that are compared with a misspelt one: those with most images.
COMPARED = 10_000


def named(connection: sa.Connection, table: sa.Table, texts: Iterable[str]) -> dict[str, int]:
    """Return the labels that words name, each with its number of images.

    The index finds them, so their case is that of the words, lower, upper or a title's.
    """
    written = {spelt for text in texts for spelt in _spellings(text)}
    if not written:
        return {}
    label, count = table.c.label, sa.func.count()
    wanted = sa.any_(sa.literal(sorted(written), sa.ARRAY(sa.Text)))
    rows = connection.execute(
        sa.select(label, count).where(label == wanted).group_by(label).order_by(label)
    )
    return {row[0]: row[1] for row in rows}


def suggested(
    connection: sa.Connection, table: sa.Table, text: str
) -> tuple[dict[str, int], list[str]]:
    """Return the labels that a text names in any case, and others near it. Reads every row."""
    counts = {each.label: each.images for each in gallery.list_labels(connection, table, COMPARED)}
    wanted = _plain(text)
    same = {label: images for label, images in counts.items() if label and _plain(label) == wanted}
    return same, [label for label in near(text, counts) if label not in same]


def near(text: str, names: Iterable[str]) -> list[str]:
    """Return the names near a text, the nearest first: a few, by their letters."""
    wanted = _plain(text)
    by_name: dict[str, list[str]] = {}
    for name in filter(_plain, names):
        for part in {_plain(name), *_plain(name).split()}:
            by_name.setdefault(part, []).append(name)
    within = [part for part in wanted.split() if part in by_name]
    found = [*within, *difflib.get_close_matches(wanted, by_name, n=NEAREST)]
    return list(dict.fromkeys(name for part in found for name in by_name[part]))[:NEAREST]


def with_labels(connection: sa.Connection, table: sa.Table, error: Unclear, text: str) -> Unclear:
    """Return an error about words that are no concept, with the labels that may be meant."""
    same, others = suggested(connection, table, text)
    if same:
        steps = [listing(table.name, label) for label in same]
        return Unclear(error.fault, step=" ".join(steps), labelled=same)
    return Unclear(error.fault, step=error.step, near={"labels": others, **error.near})


def listing(collection: str, label: str) -> str:
    """Return the commands that list the images of a label, and that search among them."""
    condition = f"label = {sql.Literal(label).as_string()}"
    rows = f"SELECT path FROM {collection} WHERE {condition}"
    return (
        f"To list them: vecsearch sql {_quoted(rows)}. "
        f"To search among them: --where {_quoted(condition)}"
    )


def notes(collection: str, labelled: Mapping[str, int]) -> Sequence[str]:
    """Return what to say about labels that the words of a question name."""
    return [
        f"{having_label(label, images)}. {listing(collection, label)}"
        for label, images in labelled.items()
    ]


def _spellings(text: str) -> set[str]:
    words = " ".join(text.split())
    cases = {words, words.lower(), words.upper(), words.title(), words.capitalize()}
    return {each.replace(" ", joint) for each in cases for joint in (" ", "_", "-")}


def _plain(text: str) -> str:
    return " ".join(text.replace("_", " ").replace("-", " ").split()).lower()


def _quoted(text: str) -> str:
    return shlex.quote(text) if any(each in text for each in '"$`\\!') else f'"{text}"'
