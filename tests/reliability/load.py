"""Mixed work: queries from sixteen clients while the collection changes under them.

    python -m reliability.load PICTURES [--minutes 10] [--quiet 30] [--pause 1.0] [--seed 1]

Twelve clients ask `vecsearch serve` by HTTP, four the library, each in a process of its own: by id,
by picture, with filters. Each waits a second, on average, between two questions. Meanwhile commands
add pictures and prune them, rebuild the index by either method, look for duplicates, and refresh
the derived tables. First, one client of each kind asks while nothing else goes on.
"""

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from reliability.database_killed import TOKEN, serving
from reliability.figures import RESULTS, code, machine
from reliability.frame import Place, Workshop, workshop
from reliability.kills import Templates
from reliability.memory import Memory

from vecsearch.config import Settings
from vecsearch.library import Library
from vecsearch.postgres.rows import image_id

OVER_HTTP, IN_LIBRARY = 12, 4
ADDED = 15
PASSING = "added"
BOUNDARY = "5fd0a3e8b6c14d27"


@dataclass
class Times:
    """Seconds that questions of each kind took, and the errors."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: Counter[str] = field(default_factory=Counter)

    def measure(self, kind: str, ask: Callable[[], object]) -> None:
        """Ask, and note how long it took, or why it failed."""
        started = time.perf_counter()
        try:
            ask()
            self.seconds[kind].append(time.perf_counter() - started)
        except Exception as error:  # noqa: BLE001  # each is a finding
            self.errors[f"{kind}: {type(error).__name__}: {error}"[:160]] += 1

    def add(self, other: "Times") -> None:
        """Add another client's times."""
        for kind, seconds in other.seconds.items():
            self.seconds[kind] += seconds
        self.errors += other.errors


def posted(address: str, fields: dict[str, str], picture: bytes | None) -> Any:
    """Ask the API, and return its answer."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    if picture is not None:
        head = 'Content-Disposition: form-data; name="image"; filename="a.jpg"'
        parts.append(f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + picture + b"\r\n")
    request = urllib.request.Request(  # noqa: S310  # http, on this machine
        f"{address}/api/query",
        b"".join(parts) + f"--{BOUNDARY}--\r\n".encode(),
        {
            "Authorization": f"Bearer {TOKEN}",
            "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"status {error.code}: {error.read()[:100]!r}") from None


Ask = Callable[[Path], Sequence[object]]


def keep_asking(
    kinds: Mapping[str, Ask],
    photos: Sequence[Path],
    chance: random.Random,
    ends: float,
    pause: float,
) -> Times:
    """Ask one kind of question after another until it is time."""
    times = Times()
    for kind in cycle(kinds):
        time.sleep(chance.expovariate(1 / pause) if pause else 0)
        if time.monotonic() > ends:
            break
        times.measure(kind, partial(answered, kinds[kind], chance.choice(photos)))
    return times


def answered(ask: Ask, photo: Path) -> None:
    """Ask; it is an error if there are no hits, for every question has some."""
    if not ask(photo):
        raise RuntimeError("no hits")


def over_http(address: str, chance: random.Random) -> dict[str, Ask]:
    """Return the kinds of questions to the API."""

    def ask(picture: bytes | None = None, **fields: str) -> Sequence[object]:
        found: Sequence[object] = posted(address, {"k": "10", **fields}, picture)["hits"]
        return found

    return {
        "by id, HTTP": lambda photo: ask(id=stored_id(photo)),
        # No stored image has this content.
        "by picture, HTTP": lambda photo: ask(photo.read_bytes() + chance.randbytes(8)),
        "filtered, HTTP": lambda photo: ask(id=stored_id(photo), label=photo.parent.name),
    }


def in_library(library: Library) -> dict[str, Ask]:
    """Return the kinds of questions to the library."""
    return {
        "by id, library": lambda photo: library.query(id=stored_id(photo), k=10).hits,
        "filtered, library": lambda photo: (
            library.query(id=stored_id(photo), k=10, where="width > 100").hits
        ),
    }


def stored_id(photo: Path) -> str:
    """Return the id of a stored picture."""
    return str(image_id(str(photo)))


def kept(photos: Path) -> list[Path]:
    """Return the pictures that stay."""
    return sorted(file for file in photos.rglob("*.*") if file.parent.name != PASSING)


def in_process(place: Place, photos: Path, seed: int, seconds: float, pause: float) -> Times:
    """Run a client of the library in a process of its own."""
    words = [str(place.data), str(photos), str(seed), str(seconds), str(pause)]
    done = subprocess.run(
        [sys.executable, "-m", "reliability.load", "--client", *words],
        env={**place.environment},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return Times(errors=Counter([f"client: {done.stderr.strip().splitlines()[-1]}"]))
    said = json.loads(done.stdout)
    return Times(said["seconds"], Counter(said["errors"]))


def client(words: Sequence[str]) -> None:
    """Be a client of the library, and print its times."""
    data, photos, seed, seconds, pause = words
    ends = time.monotonic() + float(seconds)
    with Library.open(Settings.load(data_dir=data)) as library:
        kinds = in_library(library)
        chance = random.Random(seed)
        times = keep_asking(kinds, kept(Path(photos)), chance, ends, float(pause))
    print(json.dumps({"seconds": times.seconds, "errors": times.errors}))


def clients(
    place: Place,
    photos: Path,
    address: str,
    counts: tuple[int, int],
    seconds: float,
    pause: float,
    seed: int,
) -> Times:
    """Let clients ask for so many seconds; return their times together."""
    total, lock = Times(), threading.Lock()
    ends = time.monotonic() + seconds
    files = kept(photos)

    def run(number: int) -> None:
        chance = random.Random(f"{seed}/{number}")
        if number < counts[0]:
            times = keep_asking(over_http(address, chance), files, chance, ends, pause)
        else:
            times = in_process(place, photos, seed + number, seconds, pause)
        with lock:
            total.add(times)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(sum(counts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return total


class Changes:
    """Commands that change the collection, one after another, and how each ended."""

    def __init__(self, place: Place, photos: Path, chance: random.Random) -> None:
        self.place, self.photos, self.chance = place, photos, chance
        self.times = Times()
        self.counts: Counter[str] = Counter()

    def run(self, over: Callable[[], bool]) -> None:
        """Run commands until it is over."""
        added = self.photos / PASSING
        steps = self._steps(added)
        while not over():
            name, words = next(steps)
            done = self.place.run(*words)
            self.counts[name] += 1
            self.times.seconds[name].append(done.seconds)
            if done.status:
                self.times.errors[f"{name}: {done.said}"] += 1

    def _steps(self, added: Path) -> Iterator[tuple[str, tuple[str | Path, ...]]]:
        stored = kept(self.photos)
        for number in cycle(range(100)):
            added.mkdir(exist_ok=True)
            for photo in self.chance.sample(stored, ADDED):
                content = photo.read_bytes() + self.chance.randbytes(8)
                (added / f"{number} {photo.name}").write_bytes(content)
            yield "ingest, adding", ("ingest", self.photos)
            yield "duplicates", ("duplicates", "--format", "json")
            shutil.rmtree(added)
            yield "ingest, pruning", ("ingest", self.photos, "--prune", "--yes")
            method = ("hnsw", "compact")[number % 2]
            yield f"index create, {method}", ("index", "create", "--method", method)
            yield "refresh", ("refresh",)


def measured(given: argparse.Namespace, shop: Workshop) -> list[dict[str, Any]]:
    """Measure, and return the lines of the results."""
    with shop.copy(Templates(shop).whole()) as place:
        # The rows' files; Templates ingested them where they are.
        photos = shop.photos
        with serving(place) as (address, process):
            # The encoder loads with the first picture.
            first = next(photos.rglob("*.*")).read_bytes() + b"first"
            posted(address, {}, first)
            arguments = (place, photos, address)
            quiet = clients(*arguments, (1, 0), given.quiet, 0.0, given.seed)
            quiet.add(clients(*arguments, (0, 1), given.quiet, 0.0, given.seed))
            seconds = 60 * given.minutes
            ends = time.monotonic() + seconds
            over = lambda: time.monotonic() > ends  # noqa: E731
            memory = Memory(process, place)
            changes = Changes(place, photos, random.Random(given.seed))
            works = (memory.watch, changes.run)
            threads = [threading.Thread(target=work, args=(over,)) for work in works]
            for thread in threads:
                thread.start()
            counts = (OVER_HTTP, IN_LIBRARY)
            busy = clients(*arguments, counts, seconds, given.pause, given.seed + 1)
            for thread in threads:
                thread.join()
    lines = [query_line(kind, quiet, busy) for kind in sorted(busy.seconds)]
    lines += [
        {
            "table": "commands",
            "command": name,
            "run": changes.counts[name],
            "failed": sum(n for said, n in changes.times.errors.items() if said.startswith(name)),
            "median_s": round(statistics.median(values), 2),
            "largest_s": round(max(values), 2),
        }
        for name, values in sorted(changes.times.seconds.items())
    ]
    lines += memory.lines()
    errors = quiet.errors + busy.errors + changes.times.errors
    return [
        *lines,
        {
            "table": "in all",
            "minutes": given.minutes,
            "clients": OVER_HTTP + IN_LIBRARY,
            "pause_s": given.pause,
            "queries": sum(map(len, busy.seconds.values())),
            "errors": errors.total(),
            "said": dict(errors),
            "code": code(),
            "machine": machine(),
        },
    ]


def query_line(kind: str, quiet: Times, busy: Times) -> dict[str, Any]:
    """Return the figures of one kind of query."""
    rest = 1000 * statistics.median(quiet.seconds[kind])
    p50, p99 = (1000 * float(np.percentile(busy.seconds[kind], share)) for share in (50, 99))
    return {
        "table": "queries",
        "query": kind,
        "asked": len(busy.seconds[kind]),
        "errors": sum(n for said, n in busy.errors.items() if said.startswith(kind)),
        "p50_at_rest_ms": round(rest, 1),
        "p50_ms": round(p50, 1),
        "p99_ms": round(p99, 1),
        "p99_to_p50_at_rest": round(p99 / rest, 1),
    }


def main() -> None:
    """Measure, print, and write the results."""
    if "--client" in sys.argv:
        client(sys.argv[sys.argv.index("--client") + 1 :])
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("pictures", type=Path, help="a folder of images")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--quiet", type=float, default=30.0, help="seconds at rest")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two questions")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where to work")
    parser.add_argument("--no-record", action="store_true", help="only print the figures")
    given = parser.parse_args()
    with workshop(given.pictures, given.folder) as shop:
        lines = "".join(f"{json.dumps(line)}\n" for line in measured(given, shop))
    print(lines, end="")
    if not given.no_record:
        (RESULTS / "load.json").write_text(lines)


if __name__ == "__main__":
    main()
