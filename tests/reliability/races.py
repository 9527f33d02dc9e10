"""Ingests that meet: of one folder, with prunes, of a renamed folder, beside index builds.

    python -m reliability.races PICTURES [--times 10] [--only WORD]

Commands start at random moments within a second. None may fail, hang or deadlock. In the end the
table equals the folder, and what the commands say that they added and pruned adds up to the rows.
"""

import hashlib
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import psycopg
from reliability.figures import Attempt, Outcome
from reliability.frame import Done, Place, Workshop, main
from reliability.kills import Templates
from reliability.together import Words, at_once

# Picture files that a try ingests.
FILES = 60
# Columns and tables that must agree with the rows, as queries that count those that do not.
WRONG = {
    "thumbnails missing": "SELECT count(*) FROM vecsearch.images AS i WHERE NOT EXISTS"
    " (SELECT FROM vecsearch_internal.thumbnails AS t WHERE t.sha256 = i.sha256)",
    "thumbnails left over": "SELECT count(*) FROM vecsearch_internal.thumbnails AS t WHERE NOT"
    " EXISTS (SELECT FROM vecsearch.images AS i WHERE t.sha256 = i.sha256)",
    "tags of no image": "SELECT count(*) FROM vecsearch_internal.tags AS t WHERE NOT EXISTS"
    " (SELECT FROM vecsearch.images AS i WHERE t.id = i.id)",
    "indexes invalid": "SELECT count(*) FROM pg_index WHERE NOT (indisvalid AND indisready)",
    "serving indexes missing": "SELECT 1 - least(1, count(*)) FROM pg_class"
    " WHERE relkind = 'i' AND relname ~ '^images_.*hnsw$'",
    "deadlocks": "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()",
}


def copied(shop: Workshop, folder: Path) -> Path:
    """Copy some of the pictures into a folder, and return it."""
    for number, file in enumerate(sorted(shop.photos.rglob("*.*"))[:FILES]):
        copy = folder / f"half{number % 2}" / f"{number:03}{file.suffix}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    return folder


def rewritten(folder: Path) -> None:
    """Delete a twentieth of a folder's files, change some, and rename one half."""
    files = sorted(folder.rglob("*.*"))
    for number, file in enumerate(files):
        if number % 20 == 0:
            file.unlink()
        elif number % 20 == 1:
            shutil.copyfile(files[-1 - number], file)
    (folder / "half1").rename(folder / "renamed")


@dataclass
class Race:
    """Runs ingests at once, and compares the table with the folder.

    Attributes:
        commands: from the folder of pictures, the commands to run at once.
        begun: whether the folder has been ingested, and rewritten since.

    """

    shop: Workshop
    template: Callable[[], Path] | None
    commands: Callable[[Path], list[Words]]
    begun: bool = False

    def __call__(self, chance: random.Random) -> Outcome:
        """Make one try."""
        outcome = Outcome()
        with self.shop.copy(self.template and self.template()) as place:
            folder = copied(self.shop, place.data.parent / "photos")
            if self.begun:
                place.must("ingest", folder, *self.shop.encoder)
                rewritten(folder)
            done = at_once(place, chance, self.commands(folder))
            noted(outcome, done)
            # What one run has not seen, because it began early, the next does.
            place.must("ingest", folder, "--prune", "--yes")
            check(place, folder, outcome, added=0 if self.begun else added(done))
        return outcome


def noted(outcome: Outcome, done: list[Done]) -> None:
    """Note the commands that failed, and how long the longest took."""
    for one in done:
        outcome.worst["command_s"] = max(one.seconds, outcome.worst.get("command_s", 0))
        if one.status:
            outcome.fail(one.said)
        if "deadlock" in one.stderr:
            outcome.counts["deadlocks"] += 1
        outcome.counts["waits that were named"] += one.stderr.count("Waiting for ")


def added(done: list[Done]) -> int:
    """Return how many rows the ingests say that they added."""
    lines = [line for one in done for line in one.stdout.splitlines() if line.startswith("{")]
    found = [json.loads(line) for line in lines]
    return sum(one.get("added", 0) + one.get("copied", 0) for one in found)


def check(place: Place, folder: Path, outcome: Outcome, *, added: int) -> None:
    """Compare the table with the folder, and what was said with the rows; 0: nothing was said."""
    expected = {
        str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.rglob("*.*")
    }
    with place.url() as url, psycopg.connect(url) as connection:
        rows = connection.execute("SELECT path, sha256 FROM vecsearch.images").fetchall()
        paths = Counter(path for path, _ in rows)
        outcome.lost = len(expected.keys() - paths.keys())
        outcome.doubled = paths.total() - len(paths.keys() & expected.keys())
        if dict(rows) != expected or outcome.lost or outcome.doubled:
            outcome.fail(f"{outcome.lost} lost, {outcome.doubled} doubled, or of other contents")
        wrong(connection, outcome)
    if added and added != len(expected):
        outcome.fail(f"{added} said to be added of {len(expected)}")


def wrong(connection: "psycopg.Connection[tuple[int]]", outcome: Outcome) -> None:
    """Note what does not agree with the rows."""
    for what, query in WRONG.items():
        row = connection.execute(query.encode()).fetchone()
        if row and row[0]:
            outcome.fail(f"{row[0]} {what}")


@dataclass
class Import:
    """Imports a file of vectors into a collection whose index is built at the same time."""

    shop: Workshop
    templates: Templates
    method: str

    def __call__(self, chance: random.Random) -> Outcome:
        """Make one try."""
        outcome = Outcome()
        file = self._more()
        with self.shop.copy(self.templates.vectors()) as place:
            create: Words = ("index", "create", "--method", self.method)
            noted(outcome, at_once(place, chance, [("import", file), create]))
            with place.url() as url, psycopg.connect(url) as connection:
                row = connection.execute(
                    "SELECT count(*), count(DISTINCT path) FROM vecsearch.images"
                ).fetchone()
                assert row
                outcome.lost = self.templates.size[0] * 3 // 2 - row[1]
                outcome.doubled = row[0] - row[1]
                if outcome.lost or outcome.doubled:
                    outcome.fail(f"{outcome.lost} lost, {outcome.doubled} doubled")
                for what in ("indexes invalid", "serving indexes missing", "deadlocks"):
                    found = connection.execute(WRONG[what].encode()).fetchone()
                    if found and found[0]:
                        outcome.fail(f"{found[0]} {what}")
        return outcome

    def _more(self) -> Path:
        """Return a file of which one half is imported already."""
        file = self.shop.folder / "more.npz"
        with self.shop.making:
            if file.exists():
                return file
            with np.load(self.templates.file()) as known:
                half = len(known["paths"]) // 2
                paths = np.array([f"/photos/new{number:06}.jpg" for number in range(half)])
                np.savez(
                    file,
                    paths=np.concatenate([known["paths"][:half], paths]),
                    embeddings=np.concatenate([known["embeddings"][:half]] * 2),
                )
        return file


def faults(shop: Workshop) -> Mapping[str, Attempt]:
    """Return the tries of this script."""
    templates = Templates(shop)
    encoder = tuple(shop.encoder)
    prune: Words = ("--prune", "--yes")

    def ingests(number: int, folder: Path) -> list[Words]:
        return [("ingest", folder, *encoder)] * number

    def pruned(number: int, folder: Path) -> list[Words]:
        return [("ingest", folder, *(prune if turn % 2 else ())) for turn in range(number)]

    def halves(folder: Path) -> list[Words]:
        return [("ingest", folder / "half0", *prune), ("ingest", folder / "renamed", *prune)]

    def beside_build(folder: Path) -> list[Words]:
        create: Words = ("index", "create", "--method", "hnsw")
        return [("ingest", folder), ("ingest", folder), create]

    return {
        "two first ingests": Race(shop, None, partial(ingests, 2)),
        "two ingests of a new collection": Race(shop, templates.empty, partial(ingests, 2)),
        "five ingests of a new collection": Race(shop, templates.empty, partial(ingests, 5)),
        "two ingests, one prunes": Race(shop, templates.empty, partial(pruned, 2), begun=True),
        "five ingests, two prune": Race(shop, templates.empty, partial(pruned, 5), begun=True),
        "prunes of two folders": Race(shop, templates.empty, halves, begun=True),
        "two ingests beside index create": Race(shop, templates.empty, beside_build, begun=True),
        "import beside index create hnsw": Import(shop, templates, "hnsw"),
        "import beside index create compact": Import(shop, templates, "compact"),
    }


if __name__ == "__main__":
    main("races", faults, times=10)
