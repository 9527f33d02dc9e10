"""Compare vecsearch with its alternatives: the same vectors, the same queries, one run.

    python -m venv .venv && .venv/bin/pip install . -r benchmarks/requirements.txt
    .venv/bin/python benchmarks/databases.py --output benchmarks/results/databases.json

Each is loaded, builds its index with all cores, and answers one query at a time, from one thread:
the 10 nearest by cosine for vectors that are not stored. Each uses the smallest setting from a list
(ef_search, candidates or the like, called `breadth` in the results) that reaches a recall of 0.999,
or else the one with the highest recall. Then all take turns, in rounds, and the medians over the
rounds are printed. The exact answer is computed in single precision from the same vectors; see
vectors.py.
"""

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import product
from common import RECALL, ROUNDS, K, percentiles, say
from contestants import BREADTHS, Chroma, Contestant, Faiss, Hnswlib, LanceDB, Mode, Usearch
from vectors import CHUNK, Array, Nearest, Vectors

from vecsearch.config import Settings
from vecsearch.library import Library
from vecsearch.postgres import catalog
from vecsearch.postgres.rows import image_id
from vecsearch.search import execute, query
from vecsearch.search.plan import plan

DIRECT, COMPACT = "vecsearch, hnsw", "vecsearch, compact"


class Ours(Contestant):
    """A vecsearch collection with one index method."""

    method = ""
    holds_vectors = True

    def __init__(self, folder: Path, rows: int, library: Library) -> None:
        super().__init__(folder, rows)
        self._library = library
        self._statements: list[product.Statement] = []
        self.numbers: dict[str, float] = {}

    def load(self, vectors: Array) -> None:
        chunks = (vectors[start : start + CHUNK] for start in range(0, self.rows, CHUNK))
        product.load(self._library, self.method, chunks, self.rows)

    def build(self) -> None:
        self.numbers = product.build(self._library, self.method, self.method)
        sizes = product.megabytes(self._library, self.method)
        self.numbers["stored_mb"] = sizes["index"] + sizes["compact"]

    def megabytes(self) -> float:
        return product.megabytes(self._library, self.method)["index"]

    def modes(self) -> list[Mode]:
        name = f"vecsearch, {self.method}"
        self.numbers |= product.tune(self._library, self.method, RECALL)
        tuned = (int(self.numbers["tuned"]) or None,)
        return [
            Mode(name, self._statement(), BREADTHS),
            Mode(f"{name}, as `index tune` set it", self._statement(), tuned),
            Mode(f"{name}, through `Library`", self._answer, (None,)),
        ]

    def by_id(self, row: int) -> None:
        """Query by a stored image."""
        image = image_id(f"/made/{row:09}.png")
        self._library.collection(self.method).query(id=image, k=K)

    def close(self) -> None:
        """Close its connections."""
        for statement in self._statements:
            statement.close()

    def _statement(self) -> Any:
        self._statements.append(product.Statement(self._library, self.method))
        return self._statements[-1].ask

    def _answer(self, vector: Array, _: int | None) -> Sequence[int]:
        asked = query.Query(image=b"", k=K)
        with catalog.reading(self._library.engine, self.method) as (connection, stored):
            hits, _search = execute.nearest(connection, plan(connection, stored, vector, asked))
        return [product.row_number(hit.path) for hit in hits]


class Direct(Ours):
    """pgvector's HNSW on the embeddings, in half precision."""

    name = method = "hnsw"


class Compact(Ours):
    """HNSW on the embeddings' principal components; candidates are re-ranked."""

    name = method = "compact"
    holds_vectors = False


OURS = (Direct, Compact)
OTHERS: tuple[type[Contestant], ...] = (Hnswlib, Faiss, Usearch, Chroma, LanceDB)
NOTE = "¹ Only the graph or the codes; the vectors are stored separately."
NAMES = [*(kind.name for kind in OURS), *(kind.name for kind in OTHERS)]


def main() -> None:
    """Measure and print."""
    options = _arguments()
    with tempfile.TemporaryDirectory(dir=options.data_dir) as temporary:
        folder = Path(temporary)
        with Library.open(Settings.load(data_dir=folder / "library")) as library:
            result = _measure(options, folder, library)
    print(table(result), NOTE, sep="\n\n", end="\n\n")
    print("\n".join(ratios(result)))
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=1) + "\n")


def _measure(options: argparse.Namespace, folder: Path, library: Library) -> dict[str, Any]:
    vectors, queries, nearest = _vectors(options)
    contestants: list[Contestant] = [
        *(kind(folder, options.rows, library) for kind in OURS if kind.name in options.only),
        *(kind(folder, options.rows) for kind in OTHERS if kind.name in options.only),
    ]
    builds = {contestant.name: _build(contestant, vectors) for contestant in contestants}
    modes = [(contestant, mode) for contestant in contestants for mode in contestant.modes()]
    chosen = [(one, mode, *_breadth(mode, queries, nearest)) for one, mode in modes]
    times: list[list[list[float]]] = [[] for _ in chosen]
    by_id: dict[str, list[float]] = {}
    for turn in range(options.rounds):
        for place in np.roll(np.arange(len(chosen)), turn):
            _, mode, breadth, _ = chosen[place]
            times[place].append(_time(mode.at(breadth), queries))
        for contestant in contestants:
            if isinstance(contestant, Ours):
                rows = np.random.default_rng(turn).integers(0, options.rows, len(queries))
                seconds = statistics.median(_time(contestant.by_id, rows.tolist()))
                by_id.setdefault(contestant.name, []).append(seconds)
        say(f"round {turn + 1} of {options.rounds}")
    asked = [
        {
            "contestant": contestant.name,
            "name": mode.name,
            "breadth": breadth,
            "recall": recall,
            **percentiles(rounds),
        }
        for (contestant, mode, breadth, recall), rounds in zip(chosen, times, strict=True)
    ]
    for contestant in contestants:
        if isinstance(contestant, Ours):
            contestant.close()
            seconds = statistics.median(by_id[contestant.name])
            builds[contestant.name] |= contestant.numbers | {"by_id_p50_ms": 1000 * seconds}
    return {
        "rows": options.rows,
        "queries": len(queries),
        "rounds": options.rounds,
        "seed": options.seed,
        "cpus": os.cpu_count(),
        "builds": builds,
        "asked": asked,
    }


def _vectors(options: argparse.Namespace) -> tuple[Array, Array, Nearest]:
    source = Vectors(options.rows, options.seed)
    queries = source.queries(options.queries)
    nearest = Nearest(queries, K)
    vectors = np.empty((options.rows, queries.shape[1]), dtype=np.float32)
    for number, chunk in enumerate(source):
        vectors[number * CHUNK : number * CHUNK + len(chunk)] = chunk
        nearest.add(chunk)
    return vectors, queries, nearest


def _build(contestant: Contestant, vectors: Array) -> dict[str, Any]:
    started = perf_counter()
    contestant.load(vectors)
    loaded = perf_counter()
    contestant.build()
    built = perf_counter()
    numbers = {
        "load_s": loaded - started if contestant.loads else None,
        "build_s": built - loaded,
        "index_mb": contestant.megabytes(),
        "holds_vectors": contestant.holds_vectors,
    }
    say(f"{contestant.name}: {numbers}")
    return numbers


def _breadth(mode: Mode, queries: Array, nearest: Nearest) -> tuple[int | None, float]:
    """Return the smallest setting that reaches the recall, or else the best, and its recall."""
    found: dict[int | None, float] = {}
    for breadth in mode.breadths:
        answers = [list(mode.ask(vector, breadth)) for vector in queries]
        found[breadth] = nearest.recall(answers)
        say(f"{mode.name}, breadth {breadth}: recall {found[breadth]:.4f}")
        if found[breadth] >= RECALL:
            break
    best = max(found, key=lambda breadth: found[breadth])
    return best, found[best]


def _time(ask: Any, questions: Any) -> list[float]:
    """Return the seconds of each query, after a warm-up."""
    for question in questions[:10]:
        ask(question)
    seconds = []
    for question in questions:
        started = perf_counter()
        ask(question)
        seconds.append(perf_counter() - started)
    return seconds


def table(result: dict[str, Any]) -> str:
    """Return a result as a Markdown table."""
    lines = [
        "| | load s | build s | index MB | setting | recall@10 | p50 ms | p95 ms |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    seen = set()
    for row in result["asked"]:
        built = result["builds"][row["contestant"]]
        cells = ["", "", ""]
        if row["contestant"] not in seen:
            load = "with build" if built["load_s"] is None else f"{built['load_s']:.1f}"
            cells = [load, f"{built['build_s']:.1f}", f"{built['index_mb']:,.0f}"]
            cells[2] += "" if built["holds_vectors"] else "¹"
        seen.add(row["contestant"])
        breadth = "default" if row["breadth"] is None else str(row["breadth"])
        cells += [breadth, f"{row['recall']:.4f}", f"{row['p50_ms']:.2f}", f"{row['p95_ms']:.2f}"]
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def ratios(result: dict[str, Any]) -> list[str]:
    """Return the ratios of the compact index to the others, one line each."""
    builds = result["builds"]
    asked = {row["name"]: row for row in result["asked"]}
    lines = []
    ours = asked.get(COMPACT)
    if ours is None:
        return []
    compact = builds[Compact.name]
    if Direct.name in builds:
        direct = builds[Direct.name]
        for name, key in (("build", "build_s"), ("index size", "index_mb")):
            lines.append(f"compact / hnsw, {name}: {compact[key] / direct[key]:.3f}")
        lines.append(f"compact / hnsw, p50: {ours['p50_ms'] / asked[DIRECT]['p50_ms']:.2f}")
    lines.append(f"compact, recall@10 of exact: {ours['recall']:.4f}")
    for row in result["asked"]:
        if row["contestant"] in {Direct.name, Compact.name}:
            continue
        build = compact["build_s"] / builds[row["contestant"]]["build_s"]
        p50 = ours["p50_ms"] / row["p50_ms"]
        lines.append(f"compact / {row['name']}: build {build:.2f}, p50 {p50:.2f}")
    return lines


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-dir", type=Path, help="an existing folder with 5 GB of free space")
    parser.add_argument("--output", type=Path, help="a JSON file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
