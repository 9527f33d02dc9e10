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

from ingest import conditions, copy_pictures

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
                sizes = _sizes(process.pid, data_dir)
                peaks[0] = max(peaks[0], sizes.get(process.pid, 0))
                peaks[1] = max(peaks[1], sum(sizes.values()))

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


def _sizes(root: int, data_dir: str) -> dict[int, int]:
    """Return the bytes of a process, its descendants, and the server of a data folder."""
    parents: dict[int, int] = {}
    roots = {root}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            arguments = (entry / "cmdline").read_text()
        except OSError:
            continue  # it has ended
        parents[int(entry.name)] = int(fields[1])
        # The server is a daemon, so it is not a descendant.
        if data_dir in arguments and "postgres" in arguments.partition("\0")[0]:
            roots.add(int(entry.name))
    family = set(roots)
    while grown := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= grown
    return {pid: _size(pid) for pid in family}


def _size(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


if __name__ == "__main__":
    main()
