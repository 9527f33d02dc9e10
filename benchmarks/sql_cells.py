"""The cells of sql_matrix.py: how clients put a question, and how it is spelled in SQL.

A spelling is an entry of SPELLINGS; those whose function a database lacks are left out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sql_data import SALES, SHARES

KS = (10, 100, 1_000)
FETCH = 1_000


@dataclass(frozen=True)
class Condition:
    """A condition on the collection's columns, in the words of a client."""

    name: str
    sql: str = ""
    join: bool = False


ALL = Condition("")
SOLD = Condition("sold", join=True)
FILTERS = tuple(
    Condition(f"{kind} {value}", sql.format(value=value))
    for kind, sql in (
        ("label", "label = '{value}'"),
        ("jsonb @>", """metadata @> '{{"share": "{value}"}}'"""),
        ("jsonb ->>", "metadata->>'share' = '{value}'"),
        ("regex", "path ~ '/{value}-'"),
    )
    for value in SHARES
)


@dataclass(frozen=True)
class Image:
    """A question: a stored image, or a vector that is not stored, as text."""

    id: str
    path: str
    vector: str


# An image's vector, and what functions take for it, in SQL: from the collection and the image.
Named = Callable[[str, Image], str]


def _stored(column: str, by: str) -> Named:
    def named(table: str, image: Image) -> str:
        value = image.path if by == "path" else image.id
        return f"(SELECT q.{column} FROM {table} AS q WHERE q.{by} = '{value}')"

    return named


def _vector(_: str, image: Image) -> str:
    return f"CAST('{image.vector}' AS halfvec)"


VECTORS: dict[str, Named] = {
    "id": _stored("embedding", "id"),
    "path": _stored("embedding", "path"),
    "vector": _vector,
}
IMAGES: dict[str, Named] = {
    "id": lambda _, image: f"CAST('{image.id}' AS uuid)",
    "id as text": lambda _, image: f"'{image.id}'",
    "path": lambda _, image: f"'{image.path}'",
    "vector": _vector,
    "sub-select of id": _stored("id", "id"),
    "sub-select of embedding": _stored("embedding", "id"),
}


@dataclass(frozen=True)
class Spelling:
    """A way to ask.

    Attributes:
        name: its name.
        needs: a function that the database must have; {table} is the collection.
        names: the ways to name the image.
        own: the vector or the image of a row q, for LATERAL.
        parameter: the same for a parameter $1, a uuid.
        source: what to select from, with the alias i.
        distance: the distance.
        limits: whether the function itself takes k and the condition, and orders.

    """

    name: str
    needs: str
    names: dict[str, Named]
    own: str
    parameter: str
    source: str
    distance: str
    limits: bool = False

    def sql(
        self,
        table: str,
        image: str,
        condition: Condition,
        k: int | str | None,
        *,
        ordered: bool = True,
    ) -> str:
        """Return a SELECT of paths and distances.

        Args:
            table: the collection.
            image: SQL for the image, or its vector.
            condition: which rows.
            k: how many; None for all.
            ordered: with ORDER BY.

        """
        where = condition.sql
        if self.limits and condition.join:
            where = f"path IN (SELECT path FROM {SALES}_{table})"
        asked = where.replace("'", "''")
        values = {
            "table": table,
            "image": image,
            "k": k or 2**31 - 1,
            "where": f", '{asked}'" if where else "",
        }
        text = f"SELECT i.path, {self.distance.format(**values)} AS distance "
        text += f"FROM {self.source.format(**values)} AS i"
        if condition.join:
            text += f" JOIN {SALES}_{table} AS s ON s.path = i.path"
        if not self.limits and where:
            text += f" WHERE {where}"
        if ordered and (condition.join or not self.limits):
            text += " ORDER BY distance"
        if k is not None and not self.limits:
            text += f" LIMIT {k}"
        return text


_LOOKED_UP = "(SELECT q.embedding FROM {table} AS q WHERE q.id = $1)"
SPELLINGS = (
    Spelling("plain", "", VECTORS, "q.embedding", _LOOKED_UP, "{table}", "i.embedding <=> {image}"),
    Spelling(
        "embedding_distance",
        "embedding_distance",
        VECTORS,
        "q.embedding",
        _LOOKED_UP,
        "{table}",
        "embedding_distance(i.embedding, {image})",
    ),
    Spelling(
        "distances",
        "{table}_distances",
        IMAGES,
        "q.id",
        "$1",
        "{table}_distances({image})",
        "i.distance",
    ),
    Spelling(
        "search",
        "{table}_search",
        IMAGES,
        "q.id",
        "$1",
        "{table}_search({image}, {k}{where})",
        "i.distance",
        limits=True,
    ),
    # Until it is retired.
    Spelling(
        "nearest",
        "{table}_nearest",
        {name: IMAGES[name] for name in ("id as text", "path")},
        "q.id::text",
        "$1::text",
        "{table}_nearest({image})",
        "i.distance",
    ),
)
# Forms that are sent in another way than as one statement.
PREPARED, CURSOR, PSQL, LATERAL = "prepared", "cursor", "psql FETCH_COUNT", "LATERAL"
GENERIC = "prepared, k a parameter"
WITH_PARAMETERS = (PREPARED, GENERIC)
UNORDERED = "without ORDER BY"


@dataclass(frozen=True)
class Cell:
    """A question in one form.

    Attributes:
        form: how the image is named, or how the statement is sent.
        condition: which rows.
        k: how many; None for all.
        ordered: whether the nearest are asked for.

    """

    form: str
    condition: Condition
    k: int | None
    ordered: bool = True

    @property
    def name(self) -> str:
        """The form and the condition."""
        return ", ".join(filter(None, (self.form, self.condition.name)))


def cells(spelling: Spelling) -> Iterator[Cell]:
    """Yield the cells of a spelling."""
    first = next(iter(spelling.names))
    for k in KS:
        for form in (*spelling.names, PREPARED, GENERIC, CURSOR, LATERAL):
            yield Cell(form, ALL, k)
        yield Cell(first, SOLD, k)
        yield Cell(PREPARED, SOLD, k)
        for condition in FILTERS:
            yield Cell(first, condition, k)
    for condition in FILTERS:
        yield Cell(GENERIC, condition, KS[0])
        yield Cell(CURSOR, condition, KS[1])
    for condition in FILTERS[:3]:
        yield Cell(LATERAL, condition, KS[0])
    if not spelling.limits:
        yield Cell(f"{first}, {UNORDERED}", ALL, KS[0], ordered=False)
    yield Cell(f"{first}, {UNORDERED}", SOLD, KS[0], ordered=False)
    yield Cell(CURSOR, ALL, None)
    yield Cell(PSQL, ALL, None)


def lateral(spelling: Spelling, table: str, images: list[Image], cell: Cell) -> str:
    """Return a statement that asks for several images at once."""
    inner = spelling.sql(table, spelling.own, cell.condition, cell.k)
    ids = ", ".join(f"'{image.id}'" for image in images)
    return (
        f"SELECT n.path, n.distance, q.id FROM {table} AS q CROSS JOIN LATERAL ({inner}) AS n "
        f"WHERE q.id IN ({ids})"
    )


def prepared(spelling: Spelling, table: str, cell: Cell) -> str:
    """Return PREPARE of a statement named asked; the parameters are the id and, if GENERIC, k."""
    is_generic = cell.form == GENERIC
    image = spelling.parameter.format(table=table)
    text = spelling.sql(table, image, cell.condition, "$2" if is_generic else cell.k)
    return f"PREPARE asked (uuid{', int' if is_generic else ''}) AS {text}"


def execute(image: Image, cell: Cell) -> str:
    """Return EXECUTE of it."""
    return f"EXECUTE asked ('{image.id}'{f', {cell.k}' if cell.form == GENERIC else ''})"
