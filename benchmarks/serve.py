"""Measure `vecsearch serve`: queries by a stored image, and by new pictures from many clients.

    python benchmarks/serve.py --data-dir FOLDER
    python benchmarks/serve.py --weights FILE --images FOLDER

The first command queries an existing collection; the second creates one and deletes it afterwards.
New pictures are files of the collection with a few bytes appended: they take as long to decode and
embed, but are in no collection. The server runs in a process of its own, and this process mostly
waits.
"""

import argparse
import http.client
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import sqlalchemy as sa

from vecsearch.config import Runtime, Settings
from vecsearch.library import Library
from vecsearch.postgres import catalog

K = 30
REQUESTS = 300
BATCHES = (16, 32)
ROUNDS = 4
START_SECONDS = 120
BOUNDARY = "9d4d1f6c3b7e"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.data_dir is None:
            arguments.data_dir = Path(folder)
            ingest = [arguments.images, "--weights", arguments.weights]
            vecsearch("ingest", *ingest, data_dir=arguments.data_dir)
        with Library.open(Settings.load(data_dir=arguments.data_dir)) as library:
            _measure(library, arguments)


def _measure(library: Library, arguments: argparse.Namespace) -> None:
    name = arguments.collection
    with catalog.reading(library.engine, name) as (connection, stored):
        table = stored.table.c
        rows = connection.execute(sa.select(table.id, table.path).order_by(table.id)).all()
    pictures = [Path(row.path).read_bytes() for row in rows]
    print(f"{len(rows)} images, {os.cpu_count()} CPUs, load {_load()}")
    bare = [_bare(library, name, rows[0].path)]
    with serving(arguments.data_dir, arguments.port, name) as port:
        # The encoder loads in the background; queries by id, measured first, do not need it.
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
        _ask(client, form({"collection": name, "k": str(K)}, pictures[0] + os.urandom(8)))
        by_id = _by_id(port, name, [str(row.id) for row in rows])
        many = _by_new_pictures(port, name, pictures, arguments.clients, arguments.seconds)
    bare.append(_bare(library, name, rows[0].path))
    print(
        f"{K} nearest by id, {len(by_id.seconds)} requests, one after another: {by_id.times()}; "
        f"of which the database's search: p50 {1000 * statistics.median(by_id.database):.1f} ms"
    )
    print(f"encoder alone, before and after: {bare[0]:.2f}, {bare[1]:.2f} pictures/s")
    rate = len(many.seconds) / arguments.seconds
    print(
        f"{K} nearest by new pictures, {arguments.clients} clients, {arguments.seconds} s: "
        f"{len(many.errors)} errors, {rate:.2f} pictures/s, {many.times()}"
    )
    print(f"of the encoder's throughput: {rate / max(bare):.2f}; load {_load()}")
    for error in many.errors[:3]:
        print(error)


@dataclass
class Outcome:
    """The outcome of requests: seconds of each that was answered, and the errors."""

    seconds: list[float] = field(default_factory=list)
    database: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def times(self) -> str:
        """Return the median and the 95th percentile."""
        if len(self.seconds) < 2:  # noqa: PLR2004 - what quantiles need
            return "too few answers"
        percentiles = statistics.quantiles(self.seconds, n=20)
        return f"p50 {1000 * percentiles[9]:.1f} ms, p95 {1000 * percentiles[18]:.1f} ms"


def _by_id(port: int, collection: str, ids: list[str]) -> Outcome:
    """Query by stored images, one request after another, on one connection."""
    outcome = Outcome()
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for number, name in zip(range(-10, REQUESTS), itertools.cycle(ids), strict=False):
        body = form({"collection": collection, "k": str(K), "id": name})
        started = perf_counter()
        answer = _ask(client, body)
        elapsed = perf_counter() - started
        # The first few warm the connections and Postgres' cache.
        if number >= 0:
            outcome.seconds.append(elapsed)
            outcome.database.append(answer["seconds"])
    return outcome


def _by_new_pictures(
    port: int, collection: str, pictures: list[bytes], clients: int, seconds: float
) -> Outcome:
    """Query by new pictures, from many clients at once."""
    outcome = Outcome()
    numbers = itertools.count()
    run = os.urandom(8)
    # Warm-up with one request per client: connections, threads, the encoder.
    ready = threading.Barrier(clients + 1)
    ends: list[float] = []

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        fields = {"collection": collection, "k": str(K)}

        def ask() -> float:
            number = next(numbers)
            picture = pictures[number % len(pictures)] + run + number.to_bytes(4, "big")
            body = form(fields, picture)
            started = perf_counter()
            _ask(connection, body)
            return perf_counter() - started

        ask()
        ready.wait()
        while perf_counter() < ends[0]:
            try:
                elapsed = ask()
            except (OSError, http.client.HTTPException, ValueError) as error:
                outcome.errors.append(f"{type(error).__name__}: {error}")
                connection.close()
            else:
                if perf_counter() < ends[0]:
                    outcome.seconds.append(elapsed)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    ends.append(perf_counter() + 1e9)
    ready.wait()
    ends[0] = perf_counter() + seconds
    for thread in threads:
        thread.join()
    return outcome


def _ask(client: http.client.HTTPConnection, body: bytes) -> Any:
    client.request("POST", "/api/query", body, FORM)
    response = client.getresponse()
    content = response.read()
    if response.status != http.HTTPStatus.OK:
        raise ValueError(f"{response.status} {content[:300]!r}")
    answer = json.loads(content)
    if len(answer["hits"]) != K:
        raise ValueError(f"{len(answer['hits'])} hits")
    return answer


def form(fields: dict[str, str], picture: bytes | None = None) -> bytes:
    """Return the body of a form, of the type that FORM names."""
    part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{{}}"{{}}\r\n\r\n'
    text = "".join(f"{part.format(name, '')}{value}\r\n" for name, value in fields.items())
    end = f"--{BOUNDARY}--\r\n"
    if picture is None:
        return (text + end).encode()
    file = part.format("image", '; filename="new.jpg"')
    return (text + file).encode() + picture + f"\r\n{end}".encode()


def _bare(library: Library, collection: str, picture: str) -> float:
    """Return the encoder's best throughput in pictures per second, in its own process."""
    with catalog.reading(library.engine, collection) as (_, stored):
        pass
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_embed, (stored, picture, library.settings.runtime))


def _embed(stored: Any, picture: str, runtime: Runtime) -> float:
    import numpy as np

    from vecsearch.search.questions.embedder import collection_encoder

    encoder = collection_encoder(stored, None, None, runtime)
    from common import prepared

    [inputs] = prepared(encoder, [picture])
    best = 0.0
    for size in BATCHES:
        batch = np.stack([inputs] * size)
        encoder.embed(batch)
        for _ in range(ROUNDS):
            started = perf_counter()
            encoder.embed(batch)
            best = max(best, size / (perf_counter() - started))
    return best


@contextmanager
def serving(data_dir: Path, port: int, collection: str) -> Iterator[int]:
    """Run `vecsearch serve`, and yield its port when it answers."""
    command = _command("serve", "--port", str(port), data_dir=data_dir)
    server = subprocess.Popen([*command, "--collection", collection])
    try:
        deadline = perf_counter() + START_SECONDS
        while True:
            try:
                client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                client.request("GET", "/api/health")
                if client.getresponse().status == http.HTTPStatus.OK:
                    break
            except OSError:
                if server.poll() is not None or perf_counter() > deadline:
                    raise
            sleep(0.2)
        yield port
    finally:
        server.terminate()
        server.wait()


def vecsearch(*arguments: Any, data_dir: Path) -> None:
    """Run a command on the database in a folder; what it prints goes to standard error."""
    command = _command(*map(str, arguments), data_dir=data_dir)
    subprocess.run(command, check=True, stdout=sys.stderr)


def _command(*arguments: str, data_dir: Path) -> list[str]:
    return [sys.executable, "-m", "vecsearch", *arguments, "--data-dir", str(data_dir)]


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data-dir", type=Path, help="folder of a database with a collection")
    parser.add_argument("--weights", type=Path, help="ResNet50's weights, for a new collection")
    parser.add_argument("--images", type=Path, help="folder of pictures for a new collection")
    parser.add_argument("--collection", default="images")
    parser.add_argument("--port", type=int, default=8125)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=30)
    arguments = parser.parse_args()
    if arguments.data_dir is None and None in {arguments.weights, arguments.images}:
        parser.error("give --data-dir, or --weights and --images")
    return arguments


if __name__ == "__main__":
    main()
