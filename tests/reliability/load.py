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
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from reliability.database_killed import TOKEN, serving
from reliability.figures import RESULTS, code, machine
from reliability.frame import Place, Workshop, workshop
from reliability.kills import Templates

from vecsearch.config import Settings
from vecsearch.library import Library
from vecsearch.postgres.rows import image_id

OVER_HTTP, IN_LIBRARY = 12, 4
SAMPLE_S = 2.0
# A tenth of the rows may be pruned without a yes.
ADDED = 15
BOUNDARY = "5fd0a3e8b6c14d27"
# The memory of a process settles first.
SETTLED = 0.3


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


def http_client(
    address: str,
    photos: Sequence[Path],
    chance: random.Random,
    over: Callable[[], bool],
    pause: float,
) -> Times:
    """Ask by HTTP until it is over."""
    times = Times()
    for kind in cycle(("by id, HTTP", "by picture, HTTP", "filtered, HTTP")):
        time.sleep(chance.expovariate(1 / pause) if pause else 0)
        if over():
            return times
        photo = chance.choice(photos)
        fields = {"k": "10"}
        picture = None
        if kind.startswith("by picture"):
            # No stored image has this content.
            picture = photo.read_bytes() + chance.randbytes(8)
        else:
            fields["id"] = str(image_id(str(photo)))
        if kind.startswith("filtered"):
            fields["label"] = photo.parent.name
        times.measure(kind, lambda: hits(posted(address, fields, picture)["hits"]))  # noqa: B023
    raise AssertionError


def library_client(
    data: Path,
    photos: Sequence[Path],
    chance: random.Random,
    over: Callable[[], bool],
    pause: float,
) -> Times:
    """Ask the library until it is over."""
    times = Times()
    with Library.open(Settings.load(data_dir=data)) as library:
        for kind in cycle(("by id, library", "filtered, library")):
            time.sleep(chance.expovariate(1 / pause) if pause else 0)
            if over():
                return times
            photo = chance.choice(photos)
            where = "width > 100" if kind.startswith("filtered") else None
            id_ = image_id(str(photo))
            times.measure(kind, lambda: hits(library.query(id=id_, k=10, where=where).hits))  # noqa: B023
    raise AssertionError


def hits(found: Sequence[object]) -> None:
    """Raise an error if there are none: every question has an answer."""
    if not found:
        raise RuntimeError("no hits")


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
    files = sorted(Path(photos).rglob("*.*"))
    times = library_client(
        Path(data), files, random.Random(seed), lambda: time.monotonic() > ends, float(pause)
    )
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
    files = sorted(photos.rglob("*.*"))

    def run(number: int) -> None:
        chance = random.Random(f"{seed}/{number}")
        if number < counts[0]:
            times = http_client(address, files, chance, lambda: time.monotonic() > ends, pause)
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
        added = self.photos / "added"
        steps = self._steps(added)
        while not over():
            name, words = next(steps)
            done = self.place.run(*words)
            self.counts[name] += 1
            self.times.seconds[name].append(done.seconds)
            if done.status:
                self.times.errors[f"{name}: {done.said}"] += 1

    def _steps(self, added: Path) -> Iterator[tuple[str, tuple[str | Path, ...]]]:
        stored = sorted(self.photos.rglob("*.*"))
        for number in cycle(range(100)):
            added.mkdir(exist_ok=True)
            for photo in self.chance.sample(stored, ADDED):
                content = photo.read_bytes() + self.chance.randbytes(8)
                (added / f"{number} {photo.name}").write_bytes(content)
            yield "ingest, adding", ("ingest", self.photos)
            yield "duplicates", ("duplicates", "--format", "json")
            shutil.rmtree(added)
            yield "ingest, pruning", ("ingest", self.photos, "--prune")
            method = ("hnsw", "compact")[number % 2]
            yield f"index create, {method}", ("index", "create", "--method", method)
            yield "refresh", ("refresh",)


class Memory:
    """The memory of processes over time."""

    def __init__(self, process: int, place: Place) -> None:
        self.process, self.place = process, place
        self.samples: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def watch(self, over: Callable[[], bool]) -> None:
        """Sample the memory until it is over."""
        started = time.monotonic()
        while not over():
            now = time.monotonic() - started
            found = {"serve": megabytes(self.process)}
            if postmaster := self.place.postmaster():
                found["the server's processes"] = megabytes(postmaster)
            for name, size in found.items():
                self.samples[name].append((now, size))
            time.sleep(SAMPLE_S)

    def lines(self) -> list[dict[str, Any]]:
        """Return, for each process, its memory and the slope of a line through it."""
        found = []
        for name, samples in self.samples.items():
            settled = samples[int(SETTLED * len(samples)) :]
            moments, sizes = (np.array(values) for values in zip(*settled, strict=True))
            slope = float(np.polyfit(moments, sizes, 1)[0]) if len(settled) > 1 else 0.0
            found.append(
                {
                    "table": "memory",
                    "memory of": name,
                    "median_mb": round(float(np.median(sizes)), 1),
                    "largest_mb": round(float(sizes.max()), 1),
                    "growth_mb_a_minute": round(60 * slope, 3),
                    "flat": bool(slope * moments.max() < np.median(sizes) / 10),
                }
            )
        return found


def megabytes(root: int) -> float:
    """Return the memory of a process and its children, each shared page counted once."""
    total = 0
    for process in (root, *children(root)):
        with suppress(OSError):
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def children(parent: int) -> list[int]:
    """Return the children of a process."""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(folder.name))
    return found


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
