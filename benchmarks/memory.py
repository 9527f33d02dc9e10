"""Compare the peak memory of an ingest of few files with one of many.

    python benchmarks/memory.py FOLDER --model test_resnet.r160_in1k --weights FILE

Runs `vecsearch ingest` on copies of the folder's pictures, each with unique bytes, into a new
database each time, and samples the memory of the command and all its descendants, including
Postgres. Shared memory counts once (PSS), where the system reports it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from common import conditions, memory, parents, proportional
from ingest import copy_pictures

EVERY_S = 0.05


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("images", type=Path, help="a folder of pictures, to be copied")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--weights", type=Path, help="the model's weights; default: the model hub")
    parser.add_argument("--few", type=int, default=1_000)
    parser.add_argument("--many", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    print(conditions())
    peaks: dict[int, list[tuple[int, int]]] = {arguments.few: [], arguments.many: []}
    for _ in range(arguments.rounds):
        for files, found in peaks.items():
            found.append(_measure(files, arguments))
            command, everything = found[-1]
            print(
                f"{files} files: the command {command / 1e6:.0f} MB, "
                f"with Postgres {everything / 1e6:.0f} MB",
                flush=True,
            )
    for what, number in (("the command", 0), ("with Postgres", 1)):
        few, many = (
            sorted(peak[number] for peak in peaks[files])[len(peaks[files]) // 2]
            for files in (arguments.few, arguments.many)
        )
        print(f"{what}: {arguments.many} files to {arguments.few}: {many / few:.3f}")


def _measure(files: int, arguments: argparse.Namespace) -> tuple[int, int]:
    """Return peak bytes of the command, and of the command with its descendants."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "pictures"
        copy_pictures(arguments.images, folder, files)
        command = [sys.executable, "-m", "vecsearch", "ingest", str(folder)]
        command += ["--model", arguments.model, "--data-dir", f"{temporary}/data"]
        if arguments.weights is not None:
            command += ["--weights", str(arguments.weights)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        peaks, ended = [0, 0], threading.Event()
        data_dir = f"{temporary}/data"

        def watch() -> None:
            while not ended.wait(EVERY_S):
                peaks[0] = max(peaks[0], proportional(process.pid))
                peaks[1] = max(peaks[1], memory({process.pid, *_servers(data_dir)}))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            answer, _ = process.communicate()
        finally:
            ended.set()
            watcher.join()
        if process.returncode or json.loads(answer)["added"] != files:
            raise SystemExit(f"The ingest failed: {answer}")
        return peaks[0], peaks[1]


def _servers(data_dir: str) -> set[int]:
    """Return the processes of a data folder's server, a daemon and so no descendant of ours."""
    found = set()
    for process in parents():
        try:
            command = Path(f"/proc/{process}/cmdline").read_text()
        except OSError:
            continue  # it has ended
        if data_dir in command and "postgres" in command.partition("\0")[0]:
            found.add(process)
    return found


if __name__ == "__main__":
    main()
