r"""Measure SQL as clients send it: rows, recall, order, plan and time, against the best by hand.

    python benchmarks/sql_matrix.py --pictures cifar10-sample.tar \
        --output benchmarks/results/sql_matrix.json

The embedded server has the product's own configuration; `--set` tries other settings. A cell is a
form of the question, a condition and k, in one spelling, on one collection. The exact answer is
computed in double precision from the stored vectors. The plan by hand is the fastest that reaches
0.99: an exact scan in one process or several, HNSW with several ef_search in relaxed order, or
candidates from compact vectors; the last two are sorted at the end.
"""

import argparse
import json
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import psycopg
import sql_cells
import sql_data
from common import conditions, say
from sql_cells import Cell, Image, Spelling
from sql_hand import LONG_S, RECALL, ROUNDS, Connection, Plan, Rows, Stored, scan, typical

from vecsearch.config import Settings
from vecsearch.library import Library
from vecsearch.postgres.embedded.programs import program

QUESTIONS = 5
SLOWEST = 3.0
# How often a slow cell and the plan by hand are measured again.
AGAIN = 2
TIMEOUT = "20s"
# Differences below this are the client's and the network's.
LEAST_MS = 1.0


def main() -> None:
    """Measure and print."""
    options = _arguments()
    sets = tuple(one for one in sql_data.SETS if one.name in options.only)
    with _folder(options.keep) as folder:
        settings = Settings.load(data_dir=folder / "data", database_url=options.database_url)
        with Library.open(settings, keep_running=options.keep is not None) as library:
            for one in sets:
                sql_data.build(library, one, options.pictures, options.seed)
            measured = list(_measure(library, sets, options))
    result = {"conditions": conditions(), "settings": options.set, "cells": measured}
    print("\n".join(summary(measured)))
    if options.table:
        print("\n".join(["", *table(measured)]))
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=1) + "\n")


def _measure(
    library: Library, sets: tuple[sql_data.DataSet, ...], options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    for chosen, method in sql_data.everything(sets):
        if method not in options.methods:
            continue
        started = perf_counter()
        client = Client(library, chosen.collection(method), options)
        for spelling in sql_cells.SPELLINGS:
            if spelling.name in options.spellings and client.has(spelling):
                for cell in sql_cells.cells(spelling):
                    if options.cells in cell.name:
                        yield {"set": chosen.name, "method": method} | client.measure(
                            spelling, cell
                        )
        client.close()
        say(f"{client.stored.table}: {perf_counter() - started:.0f} s")


class Client:
    """Asks one collection, as a client does, and compares."""

    def __init__(self, library: Library, table: str, options: argparse.Namespace) -> None:
        self.stored = Stored.read(library, table, QUESTIONS, options.seed)
        self._url = sql_data.plain_url(library)
        self._set = options.set
        self._hand, self._asking = self._connect(hand=True), self._connect()
        self._compare = options.hand
        self._best: dict[str, Plan | None] = {}
        self._kept = options.keep and options.keep / f"hand_{table}.json"
        if self._kept and self._kept.exists():
            found = json.loads(self._kept.read_text())
            self._best = {key: plan and Plan(**plan) for key, plan in found.items()}

    def close(self) -> None:
        """Disconnect, and keep the plans by hand."""
        self._hand.close()
        self._asking.close()
        if self._kept:
            found = {key: plan and vars(plan) for key, plan in self._best.items()}
            self._kept.write_text(json.dumps(found, indent=1))

    def has(self, spelling: Spelling) -> bool:
        """Return whether the database has what a spelling needs."""
        name = spelling.needs.format(table=self.stored.table)
        return not name or bool(
            self._hand.execute("SELECT 1 FROM pg_proc WHERE proname = %s", [name]).fetchall()
        )

    def measure(self, spelling: Spelling, cell: Cell) -> dict[str, Any]:
        """Return what a cell measures."""
        found: dict[str, Any] = {
            "spelling": spelling.name,
            "cell": cell.name,
            "k": cell.k,
            "sorts": cell.ordered,
        }
        try:
            found |= self._ask(spelling, cell)
            best = self._by_hand(cell) if cell.ordered and self._compare else None
            if best is not None:
                for _ in range(AGAIN):  # side by side, for the machine may have been busy
                    if found["ms"] <= SLOWEST * best.ms:
                        break
                    now = replace(best, ms=self.stored.time(self._hand, best))
                    ms = self._ask(spelling, cell)["ms"]
                    if ms / now.ms < found["ms"] / best.ms:
                        found["ms"], best = ms, now
                found |= {"best": best.name, "best_ms": best.ms, "ratio": found["ms"] / best.ms}
        except (psycopg.Error, subprocess.CalledProcessError) as error:
            self._asking.close()
            self._asking = self._connect()
            return found | {"error": str(error).partition("\n")[0]}
        return found

    def _connect(self, *, hand: bool = False) -> Connection:
        connection = psycopg.connect(self._url, autocommit=True, prepare_threshold=None)
        connection.execute("SELECT '[1]'::halfvec")  # loads pgvector, whose settings some are
        for setting in () if hand else self._set:
            name, _, value = setting.partition("=")
            connection.execute(f"SET {name} = '{value}'")
        connection.execute(f"SET statement_timeout = '{TIMEOUT}'")
        return connection

    def _by_hand(self, cell: Cell) -> Plan | None:
        key = f"{cell.condition.name}, {cell.k}"
        if key not in self._best:
            self._best[key] = self.stored.best(self._hand, cell.condition, cell.k)
        return self._best[key]

    def _ask(self, spelling: Spelling, cell: Cell) -> dict[str, Any]:
        stored, connection = self.stored, self._asking
        connection.execute("DEALLOCATE ALL")
        explained, ask = self._asker(connection, spelling, cell)
        # From the sixth execution on, the plan of a prepared statement may be generic.
        skipped = QUESTIONS if cell.form in sql_cells.WITH_PARAMETERS else 0
        at_once = cell.k is None or cell.form == sql_cells.LATERAL
        images = stored.images[: 1 if at_once else QUESTIONS]
        seconds: list[list[float]] = [[] for _ in images]
        answers: list[Rows] = []
        for number in range(skipped + len(images) * ROUNDS):
            if len(answers) >= len(images) and sum(map(sum, seconds)) > LONG_S:
                break
            started = perf_counter()
            rows = ask(images[number % len(images)])
            if number >= skipped:
                seconds[number % len(images)].append(perf_counter() - started)
                answers.append(rows)
        ms = 1000 * typical(seconds)
        if cell.form == sql_cells.LATERAL:
            ms /= QUESTIONS
            parts: dict[str, Rows] = {image.id: [] for image in stored.images}
            for row in answers[0]:
                parts[str(row[2])].append(row)
            answers = list(parts.values())
        mask = stored.mask(self._hand, cell.condition)
        targets = stored.unstored if cell.form == "vector" else stored.targets
        scores = [
            stored.score(rows, target, mask, cell.k, ordered=cell.ordered)
            for rows, target in zip(answers, targets[: None if cell.k else 1], strict=False)
        ]
        return {
            "rows": min(score.rows - score.expected for score in scores) + scores[0].expected,
            "expected": scores[0].expected,
            "recall": float(np.mean([score.recall for score in scores])),
            "ordered": all(score.ordered for score in scores),
            "disorder": max(score.disorder for score in scores),
            "wrong": next((score.wrong for score in scores if score.wrong), ""),
            "plan": scan(connection, explained, stored.table),
            "ms": ms,
        }

    def _asker(
        self, connection: Connection, spelling: Spelling, cell: Cell
    ) -> tuple[str, Callable[[Image], Rows]]:
        """Return a cell's first statement, and a function that asks for an image."""
        table = self.stored.table
        first = next(iter(spelling.names))
        name = cell.form.removesuffix(f", {sql_cells.UNORDERED}")
        named = spelling.names.get(name, spelling.names[first])

        def text(image: Image) -> str:
            return spelling.sql(
                table, named(table, image), cell.condition, cell.k, ordered=cell.ordered
            )

        def fetched(image: Image) -> Rows:
            return connection.execute(text(image)).fetchall()

        def declared(image: Image) -> Rows:
            rows: Rows = []
            with connection.transaction():
                connection.execute(f"DECLARE asked CURSOR FOR {text(image)}")
                while part := connection.execute(fetch).fetchall():
                    rows += part
            return rows

        def executed(image: Image) -> Rows:
            return connection.execute(sql_cells.execute(image, cell)).fetchall()

        fetch = f"FETCH {sql_cells.FETCH} FROM asked"
        image = self.stored.images[0]
        if cell.form == sql_cells.LATERAL:
            joined = sql_cells.lateral(spelling, table, self.stored.images, cell)
            return joined, lambda _: connection.execute(joined).fetchall()
        if cell.form in sql_cells.WITH_PARAMETERS:
            connection.execute(sql_cells.prepared(spelling, table, cell))
            return sql_cells.execute(image, cell), executed
        if cell.form == sql_cells.CURSOR:
            return f"DECLARE asked CURSOR FOR {text(image)}", declared
        if cell.form == sql_cells.PSQL:
            return text(image), lambda image: self._printed(text(image))
        return text(image), fetched

    def _printed(self, text: str) -> Rows:
        """Return what psql prints for a statement, by parts of 1,000 rows."""
        command = [str(program("psql")), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", self._url]
        settings = "".join(f"SET {one.replace('=', ' = ', 1)};\n" for one in self._set)
        script = f"{settings}\\set FETCH_COUNT {sql_cells.FETCH}\n{text};\n"
        done = subprocess.run(command, input=script, capture_output=True, text=True, check=True)
        lines = (line.rpartition("|") for line in done.stdout.splitlines())
        return [(path, float(distance)) for path, _, distance in lines]


def faults(cell: dict[str, Any]) -> list[str]:
    """Return what is wrong with a cell.

    `recall` is below 0.99, `order` is not that of the distances in half precision, `short` lacks
    rows, `wrong` has rows or distances that are not right, `slow` takes over three times as long as
    the best plan by hand, and a millisecond more.
    """
    if "error" in cell:
        return ["error"]
    found = []
    if cell["sorts"] and cell["recall"] < RECALL:
        found.append("recall")
    if cell["sorts"] and not cell["ordered"]:
        found.append("order")
    if cell["rows"] < cell["expected"]:
        found.append("short")
    if cell["wrong"]:
        found.append("wrong")
    if cell.get("ratio", 0) > SLOWEST and cell["ms"] - cell["best_ms"] > LEAST_MS:
        found.append("slow")
    return found


def summary(cells: list[dict[str, Any]]) -> list[str]:
    """Return the numbers of faults of each spelling on each collection, and the faults."""
    kinds = ("error", "recall", "order", "short", "wrong", "slow")
    lines = [
        "| collection | spelling | cells | "
        + " | ".join(kinds)
        + " | lowest recall | highest ratio |",
        "|---|---|" + "--:|" * (len(kinds) + 3),
    ]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for cell in cells:
        groups[f"{cell['method']} {cell['set']}", cell["spelling"]].append(cell)
    for (collection, spelling), group in groups.items():
        counts = [sum(kind in faults(cell) for cell in group) for kind in kinds]
        recalls = [cell["recall"] for cell in group if cell["sorts"] and "recall" in cell]
        ratios = [cell["ratio"] for cell in group if "ratio" in cell]
        numbers = [len(group), *counts, f"{min(recalls, default=0):.3f}"]
        numbers.append(f"{max(ratios, default=0):.1f}")
        lines.append(f"| {collection} | {spelling} | {' | '.join(map(str, numbers))} |")
    bad = [cell for cell in cells if faults(cell)]
    totals = {kind: sum(kind in faults(cell) for cell in cells) for kind in kinds}
    lines += [
        "",
        f"{len(cells)} cells: {', '.join(f'{n} {kind}' for kind, n in totals.items())}.",
        "",
    ]
    return lines + (table(bad) if bad else [])


def table(cells: list[dict[str, Any]]) -> list[str]:
    """Return cells as a Markdown table."""
    lines = [
        "| collection | spelling | cell | k | rows | recall | plan | ms | best | ms | × | fault |",
        "|---|---|---|--:|--:|--:|---|--:|---|--:|--:|---|",
    ]
    for cell in cells:
        start = [f"{cell['method']} {cell['set']}", cell["spelling"], cell["cell"]]
        start.append(str(cell["k"] or "all"))
        if "error" in cell:
            lines.append(f"| {' | '.join(start)} | {cell['error']} |||||||| error |")
            continue
        start += [f"{cell['rows']}/{cell['expected']}", f"{cell['recall']:.3f}"]
        start += [cell["plan"], f"{cell['ms']:.2f}"]
        if "best" in cell:
            start += [cell["best"], f"{cell['best_ms']:.2f}", f"{cell['ratio']:.1f}"]
        else:
            start += ["", "", ""]
        lines.append(f"| {' | '.join(start)} | {', '.join(faults(cell))} |")
    return lines


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)


def _arguments() -> argparse.Namespace:
    names = [one.name for one in sql_data.SETS]
    spellings = [one.name for one in sql_cells.SPELLINGS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="SET")
    parser.add_argument("--quick", action="store_const", dest="only", const=[sql_data.REAL.name])
    parser.add_argument("--methods", nargs="+", default=list(sql_data.METHODS))
    parser.add_argument("--spellings", nargs="+", choices=spellings, default=spellings[:4])
    parser.add_argument("--cells", default="", help="only those whose name contains this")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--no-hand", action="store_false", dest="hand", help="no plans by hand")
    parser.add_argument("--table", action="store_true", help="print every cell")
    parser.add_argument("--pictures", type=Path, help="a tar of pictures for the real set")
    parser.add_argument("--keep", type=Path, help="a folder for data and plans by hand, used again")
    parser.add_argument("--database-url", help="another server, with the collections")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="a JSON file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
