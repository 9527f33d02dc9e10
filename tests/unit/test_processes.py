"""Worker processes: what crashes, hangs or takes too much memory ends there, with a sentence."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vecsearch.errors import VecsearchError
from vecsearch.imaging.processes.pool import Pool
from vecsearch.imaging.processes.process import Ended

WORKER = """
import os, signal, time
from vecsearch.imaging.processes import child

def main():
    child.serve(job)

def job(channel, message):
    fields, blobs = message
    match fields["do"]:
        case "echo":
            channel.send({"pid": os.getpid(), "said": fields["say"]}, blobs)
        case "ask":
            channel.send({"said": child.ask(channel, {"question": 1})})
        case "hang":
            time.sleep(3600)
        case "crash":
            print("a library's chatter", flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        case "leave":
            os._exit(3)
        case "spin":
            child.bound_time(0)
            while True:
                pass
        case "fill":
            child.bound_memory(100_000_000)
            try:
                bytearray(200_000_000)
            except MemoryError:
                channel.send({"said": child.out_of_memory(), "is_last": True})
        case "cut":
            os.write(channel._end.fileno(), b"\\xff" * 64)
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("worker")
    (folder / "misbehaving.py").write_text(WORKER)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", str(folder))
        yield "misbehaving"


@pytest.fixture
def pool(module: str) -> Iterator[Pool]:
    made = Pool(module, 2)
    yield made
    made.close()


def pid(pool: Pool) -> int:
    return int(pool.ask({"do": "echo", "say": ""}, seconds=60)[0]["pid"])


def test_a_message_comes_back_as_it_was_sent(pool: Pool) -> None:
    blobs = [b"", b"\0\xff" * 1_000_000, b"end"]
    fields, found = pool.ask({"do": "echo", "say": "ä\ud800"}, blobs, seconds=60)
    assert (fields["said"], [bytes(blob) for blob in found]) == ("ä\ud800", blobs)
    assert pid(pool) == fields["pid"]


def test_a_question_of_the_worker_is_answered(pool: Pool) -> None:
    reply, _ = pool.ask({"do": "ask"}, seconds=60, answer=lambda asked: (asked, 60))
    assert reply["said"] == {"question": 1}


@pytest.mark.parametrize("error", [VecsearchError, OSError, ValueError, TimeoutError])
def test_what_answers_may_raise_and_the_worker_is_not_used_again(
    pool: Pool, error: type[Exception]
) -> None:
    before = pid(pool)

    def refuse(_: object) -> tuple[dict[str, object], float]:
        raise error("No.")

    with pytest.raises(error, match="No"):
        pool.ask({"do": "ask"}, seconds=60, answer=refuse)
    assert pid(pool) != before


@pytest.mark.parametrize(
    ("request_", "seconds", "words"),
    [
        ("hang", 0.2, "It took longer than 0 s"),
        ("spin", 60, "It took longer than 60 s"),
        ("crash", 60, "It crashed the process that read it (SIGSEGV)"),
        ("leave", 60, "It crashed the process that read it (exit status 3)"),
        ("cut", 60, "It confused the process that read it"),
    ],
)
def test_a_worker_that_does_not_reply_is_replaced(
    pool: Pool, request_: str, seconds: float, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = pid(pool)
    with pytest.raises(Ended) as ended:
        pool.ask({"do": request_}, seconds=seconds)
    assert ended.value.words.startswith(words)
    assert pid(pool) != before
    assert capfd.readouterr() == ("", "")


def test_memory_is_bounded_and_the_worker_says_so_before_it_ends(pool: Pool) -> None:
    before = pid(pool)
    reply, _ = pool.ask({"do": "fill"}, seconds=60)
    assert reply["said"] == "more than 100 MB of memory, its limit"
    assert pid(pool) != before


def test_one_that_died_while_it_waited_is_replaced_without_a_word(pool: Pool) -> None:
    before = pid(pool)
    os.kill(before, signal.SIGKILL)
    assert pid(pool) != before


def test_many_threads_share_few_workers(pool: Pool) -> None:
    pids: list[int] = []
    threads = [threading.Thread(target=lambda: pids.append(pid(pool))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pids) == 20
    assert len(set(pids)) <= pool.size


def test_a_worker_that_cannot_start_says_why(module: str) -> None:
    with pytest.raises(VecsearchError, match=r"does not start: .*No module named 'missing'"):
        Pool("missing", 1).ask({}, seconds=60)


def test_a_module_in_the_current_folder_is_not_taken(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "socket.py").write_text("raise SystemExit('a stranger ran')")
    (tmp_path / "vecsearch.py").write_text("raise SystemExit('a stranger ran')")
    monkeypatch.chdir(tmp_path)
    assert pid(pool)


def test_workers_end_with_their_parent_and_ignore_the_terminal(module: str) -> None:
    program = f"""
import os, sys
from vecsearch.imaging.processes.pool import Pool
pool = Pool({module!r}, 1)
print(pool.ask({{"do": "echo", "say": ""}}, seconds=60)[0]["pid"], flush=True)
sys.stdin.read()
os._exit(1)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        os.kill(worker, signal.SIGINT)
        parent.kill()
    deadline = time.monotonic() + 60
    while is_running(worker):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(process: int) -> bool:
    """Return whether a process runs; nobody may have waited for one that has ended."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in {"Z", "X"}
