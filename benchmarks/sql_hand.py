"""The exact answers of sql_matrix.py, and the fastest plan that hand-written SQL finds for each."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from sql_cells import ALL, Condition, Image
from sql_data import SALES

from vecsearch.library import Library
from vecsearch.postgres import catalog, schema
from vecsearch.search.indexes import vectors
from vecsearch.search.statement import EXACT_SETTINGS

RECALL = 0.99
ROUNDS = 3
# What takes longer than this for all images is not repeated.
LONG_S = 0.5
# Of the server's distances, which are computed in single precision.
TOLERANCE = 5e-6
# Of the order of an index, which normalises in half precision.
HALF = 1e-3
BREADTHS = (40, 100, 200, 400, 1_000)
FORCED = {"enable_seqscan": "off", "enable_bitmapscan": "off", "enable_sort": "on"}
Connection = psycopg.Connection[tuple[Any, ...]]
Rows = list[tuple[Any, ...]]


def typical(seconds: Sequence[Sequence[float]]) -> float:
    """Return the median over the questions of the shortest of each one's times."""
    return statistics.median(map(min, seconds))


@dataclass(frozen=True)
class Score:
    """How good an answer is.

    Attributes:
        rows, expected: how many there are, and should be.
        recall: the share of the expected rows, those within the distance of the last of them.
        ordered: whether the nearest are first, in half precision.
        wrong: what else is wrong.
        disorder: the largest step back in distance.

    """

    rows: int
    expected: int
    recall: float
    ordered: bool
    wrong: str = ""
    disorder: float = 0.0


@dataclass(frozen=True)
class Plan:
    """A plan by hand, its recall, its milliseconds, and how to run it, with {id} for the image."""

    name: str
    recall: float
    ms: float
    sql: str
    settings: dict[str, str]


@dataclass
class Stored:
    """A collection with its rows in memory, in double precision, and the questions."""

    table: str
    paths: dict[str, int]
    normalised: NDArray[np.float64]
    images: list[Image]
    targets: list[NDArray[np.float64]]
    unstored: list[NDArray[np.float64]]
    compact: tuple[str, str] | None
    _masks: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    _known: dict[bytes, NDArray[np.float64]] = field(default_factory=dict)

    @classmethod
    def read(cls, library: Library, table: str, count: int, seed: int) -> "Stored":
        """Read a collection, and choose `count` questions of each kind."""
        with catalog.reading(library.engine, table) as (connection, stored):
            named = f"SELECT id, embedding FROM vecsearch.{table} ORDER BY path"
            ids, embeddings = vectors.read(connection, named)
            paths = connection.exec_driver_sql(f"SELECT path FROM {table} ORDER BY path")
            numbers = {path: row for row, path in enumerate(paths.scalars())}
            compact = stored.compact
            place = None
            if compact is not None:
                place = schema.sql_name(compact.table), compact.metric.sql
        exact = embeddings.astype(np.float64)
        exact /= np.linalg.norm(exact, axis=1, keepdims=True)
        random = np.random.default_rng([seed, 5])
        images, targets, unstored = [], [], []
        names = list(numbers)
        for row, other in random.choice(len(names), (count, 2), replace=False).tolist():
            vector = np.float16(8) * (0.7 * exact[row] + 0.3 * exact[other]).astype(np.float16)
            text = "[" + ",".join(vector.astype("U").tolist()) + "]"
            identity = bytes(ids[row]).hex()
            parts = (identity[:8], identity[8:12], identity[12:16], identity[16:20], identity[20:])
            images.append(Image("-".join(parts), names[row], text))
            targets.append(exact[row])
            unstored.append(vector.astype(np.float64) / np.linalg.norm(vector.astype(np.float64)))
        return cls(table, numbers, exact, images, targets, unstored, place)

    def mask(self, connection: Connection, condition: Condition) -> NDArray[np.bool_]:
        """Return which rows meet a condition."""
        if condition.name not in self._masks:
            mask = np.full(len(self.paths), fill_value=condition is ALL)
            if condition is not ALL:
                where = condition.sql or f"path IN (SELECT path FROM {SALES}_{self.table})"
                found = connection.execute(
                    f"SELECT path FROM {self.table} WHERE {where}"
                ).fetchall()
                mask[[self.paths[path] for (path,) in found]] = True
            self._masks[condition.name] = mask
        return self._masks[condition.name]

    def score(
        self,
        rows: Rows,
        target: NDArray[np.float64],
        mask: NDArray[np.bool_],
        k: int | None,
        *,
        ordered: bool,
    ) -> Score:
        """Compare an answer with the exact one."""
        distances = self._distances(target)
        matching = np.sort(distances[mask])
        expected = len(matching) if k is None else min(k, len(matching))
        if not rows:
            return Score(0, expected, float(expected == 0), ordered=True)
        places = np.array([self.paths[row[0]] for row in rows])
        exact = distances[places]
        told = np.array([row[1] for row in rows], dtype=np.float64)
        limit = matching[expected - 1] + TOLERANCE if expected else -1.0
        wrong = []
        if not mask[places].all():
            wrong.append(f"{np.count_nonzero(~mask[places])} rows do not match")
        if len(set(places.tolist())) < len(places):
            wrong.append("a row twice")
        if np.abs(told - exact).max() > 10 * TOLERANCE:
            wrong.append(f"a distance is off by {np.abs(told - exact).max():.2g}")
        right = {place for place in places.tolist() if mask[place] and distances[place] <= limit}
        recall = len(right) / expected if expected else 1.0
        disorder = max(0.0, -float(np.diff(exact).min(initial=0.0)))
        in_order = not ordered or disorder <= HALF
        return Score(len(rows), expected, min(recall, 1.0), in_order, "; ".join(wrong), disorder)

    def _distances(self, target: NDArray[np.float64]) -> NDArray[np.float64]:
        key = target.tobytes()
        if key not in self._known:
            self._known[key] = 1.0 - self.normalised @ target
        return self._known[key]

    # The plans by hand.

    def best(self, connection: Connection, condition: Condition, k: int | None) -> Plan | None:
        """Return the fastest plan that reaches the recall for the stored images."""
        best: Plan | None = None
        for family in self._families(condition, k):
            for name, settings, text in family:
                plan = self._try(
                    connection, Plan(name, 0.0, 0.0, text, settings), condition, k, best
                )
                if plan.recall >= RECALL and (best is None or plan.ms < best.ms):
                    best = plan
                is_enough = plan.recall >= RECALL or (best is not None and plan.ms > 2 * best.ms)
                if is_enough and not name.startswith("exact"):
                    break  # the next of the family is slower
        return best

    def time(self, connection: Connection, plan: Plan) -> float:
        """Return the milliseconds that a plan takes now."""
        _set(connection, plan.settings)
        seconds: list[list[float]] = [[] for _ in self.images]
        for turn in range(ROUNDS):
            if turn and sum(map(sum, seconds)) > LONG_S:
                break
            for taken, image in zip(seconds, self.images, strict=True):
                started = perf_counter()
                connection.execute(plan.sql.replace("{id}", image.id)).fetchall()
                taken.append(perf_counter() - started)
        return 1000 * typical(seconds)

    def _try(
        self,
        connection: Connection,
        plan: Plan,
        condition: Condition,
        k: int | None,
        best: Plan | None,
    ) -> Plan:
        """Return a plan with its recall and its time; those of a slow one are only indications."""
        mask = self.mask(connection, condition)
        _set(connection, plan.settings)
        recalls = []
        for number in range(-1, len(self.images)):  # the first, to warm up
            started = perf_counter()
            rows = connection.execute(
                plan.sql.replace("{id}", self.images[max(number, 0)].id)
            ).fetchall()
            ms = 1000 * (perf_counter() - started)
            if best is not None and number >= 0 and ms > 5 * best.ms + 5:
                return replace(plan, ms=ms)
            if number >= 0:
                score = self.score(rows, self.targets[number], mask, k, ordered=True)
                recalls.append(score.recall)
        recall = float(np.mean(recalls))
        if recall < RECALL:
            return replace(plan, recall=recall, ms=ms)
        node = scan(connection, plan.sql.replace("{id}", self.images[0].id), self.table)
        name = plan.name if "exact" in plan.name or "_hnsw" in node else f"{plan.name}: {node}"
        return replace(plan, name=name, recall=recall, ms=self.time(connection, plan))

    def _families(
        self, condition: Condition, k: int | None
    ) -> Iterator[Sequence[tuple[str, dict[str, str], str]]]:
        table, limit = self.table, "" if k is None else f" LIMIT {k}"
        join = f" JOIN {SALES}_{table} AS s ON s.path = i.path" if condition.join else ""
        where = f" WHERE {condition.sql}" if condition.sql else ""
        target = f"(SELECT q.embedding FROM {table} AS q WHERE q.id = '{{id}}')"
        distance = f"i.embedding <=> {target} AS distance"
        exact = f"SELECT i.path, {distance} FROM {table} AS i{join}{where} ORDER BY distance{limit}"
        alone = {"enable_indexscan": "off", "max_parallel_workers_per_gather": "0"}
        yield [
            ("exact, one process", alone, exact),
            ("exact, parallel", EXACT_SETTINGS, exact),
        ]
        if k is None:
            return
        if table.startswith("hnsw"):
            for over in (1, 2):
                text = f"""
                    WITH found AS MATERIALIZED (SELECT i.path, {distance}
                        FROM {table} AS i{join}{where} ORDER BY distance LIMIT {over * k})
                    SELECT path, distance FROM found ORDER BY distance{limit}"""
                yield [
                    (
                        f"hnsw, ef_search {ef}, {over} k",
                        FORCED
                        | {"hnsw.ef_search": str(ef), "hnsw.iterative_scan": "relaxed_order"},
                        text,
                    )
                    for ef in BREADTHS
                ]
        if self.compact is not None:
            vectors_table, operator = self.compact
            place = f"(SELECT q.compact FROM {vectors_table} AS q WHERE q.id = '{{id}}')"
            met = f" JOIN {table} AS i ON i.id = c.id{join}{where}" if join or where else ""
            yield [
                (
                    f"compact, {count} candidates",
                    FORCED
                    | {
                        "hnsw.ef_search": str(max(40, min(1_000, count))),
                        "hnsw.iterative_scan": "relaxed_order",
                    },
                    f"""
                    WITH found AS MATERIALIZED (SELECT c.id FROM {vectors_table} AS c{met}
                        ORDER BY c.compact {operator} {place} LIMIT {count})
                    SELECT i.path, {distance} FROM found JOIN {table} AS i ON i.id = found.id
                    ORDER BY distance{limit}""",
                )
                for count in (round(k * times) for times in (1.5, 2, 4, 8, 16))
            ]


def _set(connection: Connection, settings: dict[str, str]) -> None:
    connection.execute("RESET ALL")
    for name, value in settings.items():
        connection.execute(f"SET {name} = '{value}'")


def scan(connection: Connection, text: str, table: str) -> str:
    """Return the node that reads the collection: an index scan in order, if there is one."""
    [(plan,)] = connection.execute(f"EXPLAIN (FORMAT JSON) {text}").fetchall()
    found = [node for node in _nodes(plan[0]["Plan"]) if "Scan" in node["Node Type"]]
    order = [node for node in found if "Order By" in node]
    own = [node for node in found if node.get("Relation Name", "").startswith(table)]
    chosen = [*order, *(node for node in own if node.get("Alias") != "q"), *found, {}][0]
    return " ".join(filter(None, (chosen.get("Node Type"), chosen.get("Index Name"))))


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for part in node.get("Plans", []):
        yield from _nodes(part)
