"""Attack a running `vecsearch serve`, and measure what it costs whom.

    cd tests
    python -m reliability.serve_attacks PICTURES [--seconds 10] [--files 1024] [--only NAME]

PICTURES is a folder of images. They are stored in a database of this script's own, and served with
a token and at most so many open files. Each attack goes on for so many seconds while somebody with
access asks for the nearest images, ten times a second. Prints a line of JSON for each attack: what
was sent and answered, the largest memory, disk and number of open files of the server, the time of
the good requests in milliseconds, and the bytes that the server logged.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from asyncio import StreamReader, StreamWriter
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

TOKEN = "a long token that nobody guesses"  # noqa: S105 - of a server that lives for minutes
BEARER = f"Authorization: Bearer {TOKEN}\r\n"
SAMPLE_S = 0.1
PATIENCE_S = 30.0
# The argument of the process that asks.
ASK = "--ask"


@dataclass
class Server:
    """A server under attack."""

    pid: int
    port: int
    log: Path

    def memory(self) -> int:
        """Return the bytes of memory of the process."""
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.pid}/status").read_text())
        return int(found[1]) * 1024 if found else 0

    def files(self) -> tuple[int, int]:
        """Return the number of open files, and the bytes of those that have no name."""
        links = list(Path(f"/proc/{self.pid}/fd").iterdir())
        size = 0
        for link in links:
            with contextlib.suppress(OSError):
                if " (deleted)" in str(link.readlink()):
                    size += link.stat().st_size
        return len(links), size


@dataclass
class Figures:
    """What an attack came to."""

    attack: str
    seconds: float
    connections: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    memory_before: int = 0
    memory: int = 0
    disk: int = 0
    open_files: int = 0
    good: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    log_bytes: int = 0


Attack = Callable[[Server, Counter[str]], Awaitable[None]]


@contextlib.contextmanager
def served(environment: Mapping[str, str], log: Path, files: int) -> Iterator[Server]:
    """Serve with a token on a free port, with so many open files; stop the server at the end."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    with log.open("w") as opened:
        process = subprocess.Popen(
            ["vecsearch", "serve", "--port", "0", "--token", TOKEN],
            env=dict(environment),
            stderr=opened,
            preexec_fn=limit,  # noqa: PLW1509 - this process has one thread
        )
    try:
        deadline = time.monotonic() + 120
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)/", log.read_text())):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text())
            time.sleep(SAMPLE_S)
        yield Server(process.pid, int(found[1]), log)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
    """Open a connection, and drop it at the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def status(port: int, request: bytes, *, patience: float = PATIENCE_S) -> str:
    """Send a request on a connection of its own; return the answer's status."""
    try:
        async with asyncio.timeout(patience), connected(port) as (reader, writer):
            writer.write(request)
            line = await reader.readline()
    except TimeoutError:
        return "no answer"
    except OSError:
        return "closed"
    return line.split()[1].decode() if line else "closed"


def good_request(row: str) -> bytes:
    """Return a request for the nearest images of a stored one, with access."""
    body = f'--x\r\nContent-Disposition: form-data; name="id"\r\n\r\n{row}\r\n--x--\r\n'
    return (
        f"POST /api/query HTTP/1.1\r\nHost: localhost\r\n{BEARER}Connection: close\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def stored_row(server: Server) -> str:
    """Return the id of a stored image."""
    request = f"GET / HTTP/1.1\r\nHost: localhost\r\n{BEARER}Connection: close\r\n\r\n"

    async def ask() -> bytes:
        async with connected(server.port) as (reader, writer):
            writer.write(request.encode())
            return await reader.read()

    found = re.search(rb"images/([0-9a-f-]{36})/thumbnail", asyncio.run(ask()))
    if found is None:
        raise RuntimeError("The page shows no image.")
    return found[1].decode()


def attack(
    name: str, tried: Attack, server: Server, row: str, seconds: float, pause: float = 0.1
) -> Figures:
    """Let an attack go on for some seconds, and measure the server meanwhile."""
    figures = Figures(name, seconds, memory_before=server.memory())
    times: list[float] = []
    logged = server.log.stat().st_size

    async def measure() -> None:
        while True:
            figures.memory = max(figures.memory, server.memory())
            count, size = server.files()
            figures.open_files, figures.disk = (
                max(figures.open_files, count),
                max(figures.disk, size),
            )
            await asyncio.sleep(SAMPLE_S)

    async def both() -> None:
        others = [
            asyncio.ensure_future(each) for each in (tried(server, figures.answers), measure())
        ]
        await asyncio.sleep(min(1.0, seconds / 4))  # the attack begins
        nonlocal times
        times, figures.bad = await asked(server, row, seconds, pause)
        for each in others:
            if each.done():
                each.result()
            each.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(SAMPLE_S)  # connections close

    asyncio.run(both())
    figures.connections = sum(figures.answers.values())
    figures.good = len(times)
    if times:
        ordered = sorted(times)
        figures.p50_ms = round(ordered[len(ordered) // 2] * 1000, 1)
        figures.p99_ms = round(ordered[int(len(ordered) * 0.99)] * 1000, 1)
    figures.log_bytes = server.log.stat().st_size - logged
    return figures


async def asked(
    server: Server, row: str, seconds: float, pause: float
) -> tuple[list[float], Counter[str]]:
    """Ask for some seconds; return how long each answer took, and what came in place of others.

    In a process of its own: the attack must not hold up its victim's request.
    """
    words = [__file__, ASK, str(server.port), row, str(seconds), str(pause)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", *words, stdout=subprocess.PIPE
    )
    printed, _ = await process.communicate()
    times, bad = json.loads(printed)
    return times, Counter(bad)


async def ask(port: int, row: str, seconds: float, pause: float) -> None:
    """Be who has access, and print what `asked` returns."""
    times: list[float] = []
    bad: Counter[str] = Counter()
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        started = time.perf_counter()
        if (answer := await status(port, good_request(row))) == "200":
            times.append(time.perf_counter() - started)
        else:
            bad[answer] += 1
        await asyncio.sleep(pause)
    sys.stdout.write(json.dumps([times, bad]))


async def nothing(_: Server, __: Counter[str]) -> None:
    """Do nothing: what a quiet server takes."""


def half_sent(count: int) -> Attack:
    """Keep so many heads open that never end, and bring each byte by byte."""

    async def one(server: Server, answers: Counter[str]) -> None:
        while True:
            try:
                async with connected(server.port) as (reader, writer):
                    answers["sent half a head"] += 1
                    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
                    while not reader.at_eof():
                        writer.write(b"X-A: b\r\n")
                        await writer.drain()
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(2):
                                await reader.read(1)
            except OSError:
                await asyncio.sleep(0.05)

    return _times(count, one)


def multipart_tokens(count: int, size: int = 30 * 2**20) -> Attack:
    """Send large multipart bodies to the address of the token, slowly."""
    head = (
        b"POST /token HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\n"
    )
    part = b'--x\r\nContent-Disposition: form-data; name="given"; filename="a"\r\n\r\n'

    async def one(server: Server, answers: Counter[str]) -> None:
        await _upload(server, answers, head, part, size)

    return _times(count, one)


def uploads(count: int, size: int = 30 * 2**20) -> Attack:
    """Send large bodies with access, slowly: more of them than are read at once."""
    head = (
        f"POST /api/query HTTP/1.1\r\nHost: localhost\r\n{BEARER}"
        "Content-Type: multipart/form-data; boundary=x\r\n"
    ).encode()
    part = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'

    async def one(server: Server, answers: Counter[str]) -> None:
        await _upload(server, answers, head, part, size)

    return _times(count, one)


def guesses(count: int) -> Attack:
    """Guess the token, as fast as answers come."""

    async def one(server: Server, answers: Counter[str]) -> None:
        while True:
            body = f"given=guess{sum(answers.values())}"
            request = (
                "POST /token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                "Content-Type: application/x-www-form-urlencoded\r\nX-Forwarded-For: 192.0.2.7\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}"
            )
            answers[await status(server.port, request.encode())] += 1

    return _times(count, one)


def garbage(count: int) -> Attack:
    """Send what is no HTTP, as fast as it is refused."""

    async def one(server: Server, answers: Counter[str]) -> None:
        while True:
            answers[await status(server.port, b"\x1b[2J\x00 nonsense\r\n\r\n")] += 1

    return _times(count, one)


def unread(count: int) -> Attack:
    """Ask for pages, many on one connection, and read no answer."""
    request = f"GET / HTTP/1.1\r\nHost: localhost\r\n{BEARER}\r\n".encode()

    async def one(server: Server, answers: Counter[str]) -> None:
        while True:
            try:
                async with connected(server.port) as (_, writer):
                    writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a Transport
                    for _ in range(100):
                        writer.write(request)
                        answers["asked"] += 1
                        await writer.drain()
                        await asyncio.sleep(0.2)
            except OSError:
                await asyncio.sleep(0.05)

    return _times(count, one)


async def _upload(
    server: Server, answers: Counter[str], head: bytes, part: bytes, size: int
) -> None:
    """Send a body in pieces until the server answers or closes."""
    while True:
        line = b""
        try:
            async with connected(server.port) as (reader, writer):
                writer.write(head + f"Content-Length: {size}\r\n\r\n".encode() + part)
                answered = asyncio.ensure_future(reader.readline())
                for _ in range(size // 2**18 - 1):
                    writer.write(bytes(2**18))
                    await writer.drain()
                    await asyncio.sleep(0.02)
                    if answered.done():
                        break
                line = await answered
        except OSError:
            pass
        answers[line.split()[1].decode() if line else "closed"] += 1
        await asyncio.sleep(0.05)


def _times(count: int, one: Attack) -> Attack:
    async def all_of_them(server: Server, answers: Counter[str]) -> None:
        await asyncio.gather(*(one(server, answers) for _ in range(count)))

    return all_of_them


def attacks(files: int) -> dict[str, Attack]:
    """Return the attacks by name, for a server that may open so many files."""
    return {
        "none": nothing,
        "half-sent heads": half_sent(files + 100),
        "multipart bodies of /token": multipart_tokens(30),
        "guesses of the token": guesses(50),
        "no HTTP": garbage(50),
        "large uploads with the token": uploads(40),
        "answers that nobody reads": unread(50),
    }


def main() -> None:
    """Run the attacks, and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--files", type=int, default=1024)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as resources:
        environment = {**os.environ, "VECSEARCH_DATA_DIR": f"{folder}/data"}
        ingest = ["vecsearch", "ingest", str(given.pictures), "--model", "tf_efficientnet_lite0"]
        subprocess.run(ingest, env=environment, check=True, capture_output=True)
        server = resources.enter_context(served(environment, Path(folder) / "log", given.files))
        row = stored_row(server)
        for name, tried in attacks(given.files).items():
            if given.only in name:
                figures = attack(name, tried, server, row, given.seconds)
                sys.stdout.write(f"{json.dumps(vars(figures))}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1:2] == [ASK]:
        asyncio.run(ask(int(sys.argv[2]), sys.argv[3], *map(float, sys.argv[4:])))
    else:
        main()
