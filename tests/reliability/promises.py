"""Run the tests that hold what no script of this folder tries again and again, and count them.

    python -m reliability.promises [--junit FILE] > reliability/results/promises.json

Run it in tests/. Prints a line of JSON for each promise: how many tests there were, parametrised
ones by each of their parameters and kinds of server, and how many passed. FILE is what `pytest
--junitxml=FILE` wrote of all tests, in place of a run of these.
"""

import argparse
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from reliability.figures import PROJECT, Tally, code, machine

# Files of tests of each promise.
PROMISES = {
    "--prune, forget, drop and db repair delete what was meant, and ask first": (
        "integration/test_pruning.py",
        "integration/test_drop.py",
        "integration/test_repair.py",
    ),
    "the embedded server: a stale or reused PID, a killed initdb, locks, signals": (
        "integration/test_server.py",
        "integration/test_server_faults.py",
        "integration/test_lost_server.py",
    ),
    "the data folder: modes, root, two users, deep and read-only paths, links, pipes": (
        "integration/test_data_folder.py",
        "integration/test_full_disk.py",
    ),
    "waits for locks are bounded and named": ("integration/test_waits.py",),
    "db dump and db restore give back the same collection, from 16 to 18 and back": (
        "integration/test_dump.py",
        "integration/test_dump_majors.py",
        "integration/test_dump_programs.py",
    ),
    "odd files and folders: long paths, moves, changes, clocks, stalls, permissions": (
        "integration/test_ingest_odd.py",
        "integration/test_ingest_failures.py",
        "integration/test_ingest_shares.py",
        "unit/test_walk.py",
    ),
    "odd pictures and bombs: every mode and format, absurd headers, 16 bits, animations": (
        "unit/test_decode.py",
        "unit/test_exif.py",
        "unit/test_pictures.py",
        "unit/test_processes.py",
    ),
    "degenerate vectors are refused with the name of their file": (
        "integration/test_ingest_failures.py",
        "unit/test_exchange.py",
        "unit/test_import_worker.py",
    ),
    "laws, by hypothesis: paths, metadata, metrics, k, filters": (
        "integration/test_laws.py",
        "integration/test_ingest_law.py",
        "integration/test_terms.py",
        "unit/test_ranking.py",
    ),
    "no pickle runs; what the hub gives is pinned by its hash": (
        "unit/test_no_code.py",
        "unit/test_packaged.py",
    ),
    "read paths: a least role, one statement, time limits, no files, no programs": (
        "integration/test_least_role.py",
        "integration/test_reader.py",
        "integration/test_roles.py",
    ),
    "serve: tokens, other users, other sites, bodies": (
        "unit/test_guard.py",
        "acceptance/test_serve_attacks.py",
    ),
    "SECURITY.md names tests that exist": ("unit/test_security.py",),
}


def main() -> None:
    """Run the tests of each promise, and print their figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--junit", type=Path, help="report of a run of all tests")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = given.junit or ran(Path(folder) / "report.xml")
        cases = [*ET.parse(report).getroot().iter("testcase")]  # noqa: S314  # pytest's own
    for fault, tests in PROMISES.items():
        print(figures(fault, tests, cases).line(), flush=True)


def ran(report: Path) -> Path:
    """Run the tests of every promise, and return the report of it."""
    files = sorted({str(PROJECT / "tests" / test) for tests in PROMISES.values() for test in tests})
    options = ["-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    words = [sys.executable, "-m", "pytest", *options, *files]
    subprocess.run(words, cwd=PROJECT, stdout=sys.stderr, check=False)
    return report


def figures(fault: str, tests: Sequence[str], cases: Sequence[ET.Element]) -> Tally:
    """Return how many of a promise's tests passed; one that was left out is no try."""
    tally = Tally(fault, code=code(), machine=machine())
    for test in tests:
        module = test.removesuffix(".py").replace("/", ".")
        found = [case for case in cases if f".{case.get('classname')}".endswith(f".{module}")]
        if not found:
            tally.failures.append(f"{test}: not run")
        for case in found:
            tally.seconds = round(tally.seconds + float(case.get("time", 0)), 1)
            ends = {child.tag for child in case}
            if "skipped" in ends:
                tally.counts["left out"] = tally.counts.get("left out", 0) + 1
                continue
            tally.tried += 1
            if ends & {"failure", "error"}:
                tally.failures.append(f"{test}: {case.get('name')}"[:400])
            else:
                tally.survived += 1
    return tally


if __name__ == "__main__":
    main()
