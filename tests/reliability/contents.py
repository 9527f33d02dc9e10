"""What a database holds, in a form in which two of them can be compared."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

SCHEMAS = ["vecsearch", "vecsearch_internal"]
# Times of writing, and numbers that count writes.
VOLATILE = {
    "created_at",
    "ingested_at",
    "at",
    "made_at",
    "fitted_at",
    "refreshed_at",
    "projection",
    "version",
    "position",
    "transaction",
}
# A change may be in the feed again when a killed command is repeated.
REPEATABLE = "vecsearch_internal.changes"
COLUMNS = """
SELECT n.nspname || '.' || c.relname, array_agg(a.attname ORDER BY a.attnum)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid
WHERE n.nspname = ANY(%s) AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
GROUP BY 1 ORDER BY 1
"""
OBJECTS = """
SELECT n.nspname || '.' || c.relname, c.relkind::text,
       coalesce(i.indisvalid AND i.indisready AND i.indislive, true)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_index i ON i.indexrelid = c.oid WHERE n.nspname = ANY(%s)
UNION ALL
SELECT 'trigger ' || tgname || ' on ' || tgrelid::regclass, 't', true FROM pg_trigger
JOIN pg_class c ON c.oid = tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT tgisinternal AND n.nspname = ANY(%s)
"""


@dataclass
class Contents:
    """The rows of each table as digests, and the objects of the schemas with their state."""

    rows: dict[str, Counter[str]] = field(default_factory=dict)
    ids: dict[str, set[str]] = field(default_factory=dict)
    objects: set[str] = field(default_factory=set)

    def images(self) -> int:
        """Return the number of rows of all collections."""
        return sum(map(len, self.ids.values()))


@dataclass(frozen=True)
class Difference:
    """How contents differ from what is expected; false if they do not."""

    lost: int
    doubled: int
    words: str

    def __bool__(self) -> bool:
        return bool(self.words)


def contents(url: str) -> Contents:
    """Read everything that a database's schemas hold."""
    found = Contents()
    with psycopg.connect(url) as connection:
        for table, names in connection.execute(COLUMNS, [SCHEMAS]).fetchall():
            name = unnumbered(table)
            volatile = VOLATILE | ({"number"} if name == REPEATABLE else set())
            columns = sql.SQL(", ").join(
                sql.Identifier(column) for column in names if column not in volatile
            )
            where = sql.Identifier(*table.split("."))
            digests = sql.SQL("SELECT md5(ROW({})::text) FROM {}").format(columns, where)
            rows = [digest for (digest,) in connection.execute(digests)]
            found.rows[name] = Counter(set(rows) if name == REPEATABLE else rows)
            if {"id", "embedding"} <= set(names):
                ids = connection.execute(sql.SQL("SELECT id::text FROM {}").format(where))
                found.ids[name] = {id_ for (id_,) in ids}
        for name, kind, valid in connection.execute(OBJECTS, [SCHEMAS, SCHEMAS]).fetchall():
            found.objects.add(f"{unnumbered(name)} ({kind}){'' if valid else ' is invalid'}")
    return found


def unnumbered(name: str) -> str:
    """Return a name without the version of a projection, which counts attempts."""
    return re.sub(r"_compact_\d+", "_compact", name)


def compare(found: Contents, expected: Contents) -> Difference:
    """Say how contents differ from what is expected."""
    lost = doubled = 0
    words: list[str] = []
    for table in sorted(found.rows.keys() | expected.rows.keys()):
        here, there = found.rows.get(table, Counter()), expected.rows.get(table, Counter())
        missing, more = (there - here).total(), (here - there).total()
        if missing or more:
            words.append(f"{table}: {missing} rows missing, {more} too many or wrong")
        ids, wanted = found.ids.get(table, set()), expected.ids.get(table, set())
        lost += len(wanted - ids)
        # A row with a wanted id that stands there twice, or another picture's, is doubled too.
        doubled += max(len(ids - wanted), here.total() - len(ids) if ids else 0)
    words += _named("missing", expected.objects - found.objects)
    words += _named("left over", found.objects - expected.objects)
    return Difference(lost, doubled, "; ".join(words))


def _named(what: str, objects: Iterable[str]) -> list[str]:
    return [f"{what}: {', '.join(sorted(objects))}"] if objects else []


def answers(url: str, collection: str = "images") -> int:
    """Read every row and ask every index; return how many of 20 exact neighbours it misses.

    Raises:
        psycopg.Error: something cannot be read.

    """
    order = "SELECT id FROM vecsearch.{0} ORDER BY embedding <=> (SELECT embedding FROM"
    order += " vecsearch.{0} ORDER BY id OFFSET %s LIMIT 1) LIMIT 10"
    asked = sql.SQL(order).format(sql.Identifier(collection))
    missed = 0
    with psycopg.connect(url) as connection:
        for offset in range(2):
            connection.execute("SET LOCAL enable_indexscan = off")
            exact = set(connection.execute(asked, [offset]).fetchall())
            connection.execute("SET LOCAL enable_indexscan = on")
            connection.execute("SET LOCAL enable_seqscan = off")
            missed += len(exact - set(connection.execute(asked, [offset]).fetchall()))
    return missed
