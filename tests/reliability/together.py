"""Commands that meet: an upgrade beside queries, a stop beside an ingest, two builds, a drop.

    python -m reliability.together PICTURES [--times 10] [--only WORD]

Commands start at random moments within a second. None may fail, hang or deadlock; where one has to
give way it says so in a sentence, and works when it is repeated. In the end all is as if they had
run one after the other. Ingests that meet are in races.py.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from uuid import UUID

from reliability.contents import Contents, compare, contents
from reliability.figures import Attempt, Outcome
from reliability.frame import RERUNS, Done, Place, Workshop, main
from reliability.kills import AGAIN_S, Templates

from vecsearch.config import Settings
from vecsearch.errors import CollectionNotFound, SchemaOutdated, VecsearchError
from vecsearch.library import Library
from vecsearch.postgres.rows import image_id

Words = tuple[str | Path, ...]
QUERIES = 4


def at_once(place: Place, chance: random.Random, commands: list[Words]) -> list[Done]:
    """Run commands that start within a second of each other."""
    found: dict[int, Done] = {}

    def run(number: int, delay: float) -> None:
        time.sleep(delay)
        found[number] = place.run(*commands[number])

    threads = [
        threading.Thread(target=run, args=(number, chance.uniform(0, 1)))
        for number in range(len(commands))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[number] for number in sorted(found)]


@contextmanager
def asking(
    place: Place, id_: UUID, fine: tuple[type[VecsearchError], ...], outcome: Outcome
) -> Iterator[None]:
    """Ask in several threads all the while; note errors other than those that are fine."""
    over = threading.Event()
    errors: Counter[str] = Counter()
    answered: Counter[str] = Counter()
    settings = Settings.load(data_dir=place.data)

    def ask() -> None:
        with Library.open(settings) as library:
            while not over.is_set():
                try:
                    library.query(id=id_)
                    answered["queries answered"] += 1
                except fine as error:
                    answered[f"queries told: {type(error).__name__}"] += 1
                except Exception as error:  # noqa: BLE001  # each is a finding
                    errors[f"{type(error).__name__}: {error}"[:120]] += 1

    threads = [threading.Thread(target=ask) for _ in range(QUERIES)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
        outcome.counts += answered
        for error, times in errors.items():
            outcome.fail(f"{times} queries: {error}")


@dataclass
class Together:
    """Runs commands at once, and beside queries if `id_` is given.

    Attributes:
        give_way: what a command may say when another is in its way; it is then repeated.
        fine: what queries may be told meanwhile.
        expected: what is run one by one to compare with; empty: the commands.
        after: what is run at the end, both times.

    """

    shop: Workshop
    template: Callable[[], Path]
    commands: list[Words]
    give_way: str = ""
    id_: Callable[[], UUID] | None = None
    fine: tuple[type[VecsearchError], ...] = ()
    expected: list[Words] = field(default_factory=list)
    after: tuple[Words, ...] = ()
    lock: threading.Lock = field(default_factory=threading.Lock)
    known: Contents | None = None

    def __call__(self, chance: random.Random) -> Outcome:
        """Make one try."""
        with self.lock:
            self.known = self.known or self._one_by_one()
        outcome = Outcome()
        with self.shop.copy(self.template()) as place:
            if self.id_:
                with asking(place, self.id_(), self.fine, outcome):
                    done = at_once(place, chance, self.commands)
            else:
                done = at_once(place, chance, self.commands)
            for words, one in zip(self.commands, done, strict=True):
                outcome.worst["command_s"] = max(one.seconds, outcome.worst.get("command_s", 0))
                if one.status:
                    self._repeat(place, words, one, outcome)
            for words in self.after:
                place.must(*words)
            with place.url() as url:
                difference = compare(contents(url), self.known)
            outcome.lost, outcome.doubled = difference.lost, difference.doubled
            if difference:
                outcome.fail(difference.words)
        return outcome

    def _repeat(self, place: Place, words: Words, done: Done, outcome: Outcome) -> None:
        outcome.counts[f"{words[0]}: {done.said}"[:120]] += 1
        if not (self.give_way and self.give_way in done.said):
            outcome.fail(f"{words[0]}: {done.said}")
        for rerun in range(RERUNS):
            again = place.run(*words)
            if again.status == 0:
                return
            outcome.first_rerun_failed = True
            if rerun == RERUNS - 1:
                outcome.fail(f"{words[0]} repeated: {again.said}")
            time.sleep(AGAIN_S)

    def _one_by_one(self) -> Contents:
        with self.shop.copy(self.template()) as place:
            for words in [*(self.expected or self.commands), *self.after]:
                place.must(*words)
            with place.url() as url:
                return contents(url)


def faults(shop: Workshop) -> Mapping[str, Attempt]:
    """Return the tries of this script."""
    templates = Templates(shop)
    make = partial(Together, shop)

    def stored(path: str | Path) -> Callable[[], UUID]:
        return lambda: image_id(str(path))

    hnsw: Words = ("index", "create", "--method", "hnsw")
    compact: Words = ("index", "create", "--method", "compact")
    ingest: Words = ("ingest", shop.photos)
    first = stored("/corpus/00000.png")
    photo = lambda: image_id(str(next(shop.photos.rglob("*.*"))))  # noqa: E731
    busy = "is building"
    return {
        "db upgrade beside queries": make(
            templates.old, [("db", "upgrade")], id_=first, fine=(SchemaOutdated,)
        ),
        "two db upgrades": make(templates.old, [("db", "upgrade")] * 2),
        "db stop beside ingest": make(
            templates.begun, [ingest, *[("db", "stop")] * 3], expected=[ingest]
        ),
        "two index creates, hnsw": make(templates.vectors, [hnsw] * 2, busy),
        "two index creates, compact": make(templates.vectors, [compact] * 2, busy),
        "index create beside queries": make(
            templates.vectors, [compact], id_=stored("/photos/000007.jpg")
        ),
        "drop beside queries": make(
            templates.whole, [("drop", "images", "--yes")], id_=photo, fine=(CollectionNotFound,)
        ),
        "refresh beside ingest": make(
            templates.begun, [ingest, ("refresh",)], after=(("refresh", "--whole", "--exact"),)
        ),
        "export and dump beside ingest": make(
            templates.begun,
            [ingest, ("export", "e.npz"), ("db", "dump", "e.dump")],
            expected=[ingest],
        ),
    }


if __name__ == "__main__":
    main("together", faults, times=10)
