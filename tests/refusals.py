"""What Citus 15 refuses of statements about tables in shards, or does with them that nobody wants.

Each was met on three nodes, by a statement like its example. `STUBS` let one Postgres stand for a
cluster: the code takes a table for distributed that has Citus' trigger.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import sqlglot
from sqlglot import exp

STUBS = """
    CREATE FUNCTION public.citus_truncate_trigger() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN RETURN NULL; END';
    CREATE FUNCTION public.create_distributed_table(
        t regclass, c text, colocate_with text, shard_count int) RETURNS void LANGUAGE plpgsql AS
        'BEGIN EXECUTE format(''CREATE TRIGGER truncate_trigger AFTER TRUNCATE ON %s'
        ' EXECUTE FUNCTION public.citus_truncate_trigger()'', t); END';
    CREATE FUNCTION public.truncate_local_data_after_distributing_table(t regclass) RETURNS void
        LANGUAGE sql AS '';
    CREATE FUNCTION public.citus_table_size(t regclass) RETURNS bigint LANGUAGE sql AS
        'SELECT pg_table_size(t)';
    CREATE FUNCTION public.citus_total_relation_size(t regclass) RETURNS bigint LANGUAGE sql AS
        'SELECT pg_total_relation_size(t)';
    CREATE FUNCTION public.run_command_on_shards(t regclass, c text, OUT result text)
        RETURNS SETOF text LANGUAGE sql AS $$ VALUES ('8192') $$;
"""


@dataclass(frozen=True)
class Statement:
    """A statement: its text, its tree (None: not a query), and the names of tables in shards."""

    text: str
    tree: exp.Expr | None
    sharded: frozenset[str]

    def reads(self, node: exp.Expr | None) -> list[exp.Table]:
        """Return the tables in shards that a part of the tree names."""
        found = [] if node is None else node.find_all(exp.Table)
        return [table for table in found if self.is_sharded(table)]

    def is_sharded(self, node: exp.Expr | None) -> bool:
        """Return whether this is a table in shards itself."""
        return isinstance(node, exp.Table) and f"{node.db}.{node.name}" in self.sharded

    def all(self, *kinds: type[exp.Expr]) -> Iterator[exp.Expr]:
        """Yield the parts of a kind."""
        if self.tree is not None:
            yield from self.tree.find_all(*kinds)


@dataclass(frozen=True)
class Refusal:
    """Something to avoid.

    Attributes:
        what: what Citus says, or does.
        example: a statement about the sharded table vecsearch.images.
        matches: whether a statement is like that.

    """

    what: str
    example: str
    matches: Callable[[Statement], bool]


def statement(text: str, sharded: frozenset[str]) -> Statement:
    """Parse a statement, if it names a table in shards.

    One that copies a query's rows is that query.
    """
    text = re.sub(r"%\(\w+\)s|%s|%b|%t|\$\d+", "NULL", text).replace("%%", "%").strip()
    copied = re.fullmatch(r"COPY \((.*)\) TO STDOUT.*", text, re.DOTALL)
    query = copied[1] if copied else text
    is_query = re.match(
        r"(EXPLAIN |CREATE TEMP TABLE \w+ (ON COMMIT DROP )?AS )?"
        r"(SELECT|WITH|INSERT|UPDATE|DELETE|MERGE)\b",
        query,
    )
    if is_query is None or not any(name in text for name in sharded):
        return Statement(text, None, sharded)
    start = query[is_query.start(3) :]
    return Statement(text, sqlglot.parse_one(start, read="postgres"), sharded)


def _merges(given: Statement) -> bool:
    return isinstance(given.tree, exp.Merge) and bool(given.reads(given.tree))


def _locks_rows(given: Statement) -> bool:
    return any(given.reads(select) and select.args.get("locks") for select in given.all(exp.Select))


def _makes_trigger(given: Statement) -> bool:
    made = re.match(r"CREATE (?:OR REPLACE )?TRIGGER .*? ON (\S+)", given.text, re.DOTALL)
    return made is not None and made[1] in given.sharded


def _joins_laterally(given: Statement) -> bool:
    return any(
        given.reads(lateral) and lateral.find(exp.Limit) for lateral in given.all(exp.Lateral)
    )


def _has_scalar_query(given: Statement) -> bool:
    return any(
        given.reads(query)
        for select in given.all(exp.Select)
        if given.reads(select.args.get("from_") or select.args.get("from"))
        for place in (*select.expressions, select.args.get("order"))
        if place is not None
        for query in place.find_all(exp.Subquery)
    )


def _asks_existence_across(given: Statement) -> bool:
    for exists in given.all(exp.Exists):
        outer = exists.find_ancestor(exp.Select, exp.Delete, exp.Update)
        if outer is None:
            continue
        inner_tables = list(exists.find_all(exp.Table))
        outer_table = outer.this if isinstance(outer, exp.Delete | exp.Update) else _first(outer)
        if not inner_tables or not isinstance(outer_table, exp.Table):
            continue
        inner = any(given.is_sharded(table) for table in inner_tables)
        if inner != given.is_sharded(outer_table):
            return True
    return False


def _calls_in_conflict(given: Statement) -> bool:
    return any(
        given.is_sharded(insert.this.this if isinstance(insert.this, exp.Schema) else insert.this)
        and any(conflict.find(exp.Func) is not None for conflict in insert.find_all(exp.OnConflict))
        for insert in given.all(exp.Insert)
    )


def _fetches_whole_table(given: Statement) -> bool:
    for select in given.all(exp.Select):
        first = _first(select)
        if first is None or given.reads(first):
            continue
        for join in select.args.get("joins") or ():
            if join.side == "LEFT" and given.is_sharded(join.this):
                return True
    return False


def _joins_beside_id(given: Statement) -> bool:
    for select in given.all(exp.Select):
        first = _first(select)
        joins = select.args.get("joins") or ()
        sides = [first, *(join.this for join in joins)]
        if sum(given.is_sharded(side) for side in sides) < 2:
            continue
        on_id = any(
            equal.left.name == equal.right.name == "id"
            for join in joins
            if join.args.get("on") is not None
            for equal in join.args["on"].find_all(exp.EQ)
        )
        by_using = any("id" in str(join.args.get("using")) for join in joins)
        if not on_id and not by_using:
            return True
    return False


def _reads_shards_in_sql(given: Statement) -> bool:
    if not re.match(r"CREATE (OR REPLACE )?FUNCTION", given.text) or not re.search(
        r"\bLANGUAGE sql\b", given.text, re.IGNORECASE
    ):
        return False
    # What is quoted, another function runs.
    body = re.sub(r"'(?:[^']|'')*'", "''", given.text)
    return any(re.search(rf"(FROM|JOIN) {re.escape(name)}\b", body) for name in given.sharded)


def _sets_by_function(given: Statement) -> bool:
    return re.search(r"set_config\('(hnsw|enable_|random_page_cost)", given.text) is not None


def _first(select: exp.Expr) -> exp.Expr | None:
    source = select.args.get("from_") or select.args.get("from")
    return None if source is None else source.this


REFUSALS = [
    Refusal(
        "non-IMMUTABLE functions are not yet supported in MERGE sql with distributed tables",
        "MERGE INTO vecsearch.images AS i USING staged AS s ON i.id = s.id"
        " WHEN MATCHED THEN UPDATE SET ingested_at = now()",
        _merges,
    ),
    Refusal(
        "could not run distributed query with FOR UPDATE/SHARE commands",
        "SELECT id FROM vecsearch.images ORDER BY id LIMIT 5 FOR UPDATE",
        _locks_rows,
    ),
    Refusal(
        "triggers are not supported on distributed tables",
        "CREATE OR REPLACE TRIGGER t AFTER INSERT ON vecsearch.images FOR EACH STATEMENT"
        " EXECUTE FUNCTION f()",
        _makes_trigger,
    ),
    Refusal(
        "Limit clause is currently unsupported when a lateral subquery references a column from "
        "complex subqueries, CTEs or local tables",
        "SELECT i.id, n.id FROM (SELECT id, embedding FROM vecsearch.images LIMIT 3) AS i"
        " CROSS JOIN LATERAL (SELECT o.id FROM vecsearch.images AS o"
        " ORDER BY o.embedding <=> i.embedding LIMIT 3) AS n",
        _joins_laterally,
    ),
    Refusal(
        "complex joins are only supported when all distributed tables are co-located and joined on "
        "their distribution columns: a scalar subquery to order by",
        "SELECT id FROM vecsearch.images AS i ORDER BY embedding <=> (SELECT q.embedding"
        " FROM vecsearch.images AS q WHERE q.id = $1) LIMIT 3",
        _has_scalar_query,
    ),
    Refusal(
        "direct joins between distributed and local tables are not supported: NOT EXISTS",
        "SELECT id FROM vecsearch.images AS i WHERE NOT EXISTS (SELECT FROM seen"
        " WHERE seen.path = i.path)",
        _asks_existence_across,
    ),
    Refusal(
        "functions used in the DO UPDATE SET clause of INSERTs on distributed tables must be "
        "marked IMMUTABLE",
        "INSERT INTO vecsearch.images (id) SELECT id FROM staged ON CONFLICT (id)"
        " DO UPDATE SET ingested_at = now()",
        _calls_in_conflict,
    ),
    Refusal(
        "works, and fetches every row: an outer join from a local table to a whole sharded one",
        "SELECT s.id, i.sha256 FROM staged AS s LEFT JOIN vecsearch.images AS i ON i.id = s.id",
        _fetches_whole_table,
    ),
    Refusal(
        "complex joins are only supported when all distributed tables are co-located and joined on "
        "their distribution columns",
        "SELECT a.id FROM vecsearch.images AS a JOIN vecsearch.images AS b ON b.sha256 = a.sha256",
        _joins_beside_id,
    ),
    Refusal(
        "parameterized queries for SQL functions referencing distributed tables are not supported",
        "CREATE OR REPLACE FUNCTION vecsearch.images_distances(image uuid) RETURNS SETOF uuid"
        " LANGUAGE sql STABLE BEGIN ATOMIC SELECT i.id FROM vecsearch.images AS i; END",
        _reads_shards_in_sql,
    ),
    Refusal(
        "works, and reaches no shard: a setting of searches by set_config",
        "SELECT set_config('hnsw.ef_search', '100', true)",
        _sets_by_function,
    ),
]


def refused(text: str, sharded: frozenset[str]) -> list[str]:
    """Return what Citus refuses of a statement."""
    parsed = statement(text, sharded)
    return [refusal.what for refusal in REFUSALS if refusal.matches(parsed)]
