"""kill -9 at any moment of an ingest loses at most a batch, and the next run carries on."""

import json
import random
import signal
import subprocess
from pathlib import Path

import psycopg
import pytest
from acceptance.conftest import Run
from support import picture

KILLS = 10
PICTURES = 1500


@pytest.mark.slow
def test_killed_runs_and_then_a_clean_one_equal_a_run_never_killed(
    vecsearch: Run,
    environment: dict[str, str],
    tmp_path: Path,
    data_dir: Path,
    small_model: str,
    weights: Path,
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(PICTURES):
        picture(number).save(folder / f"{number:04}.png")
    encoder = ("--model", small_model, "--weights", str(weights))
    rows = "SELECT id, path, sha256, label, width, height, embedding::text FROM {} ORDER BY id"
    # The server stays up, so that what a killed command leaves behind is not swept by a restart.
    url = vecsearch("db", "url").stdout.strip()
    moments = random.Random(5)
    for _ in range(KILLS):
        process = subprocess.Popen(
            ["vecsearch", "ingest", str(folder), *encoder],
            env={**environment, "VECSEARCH_DATABASE_URL": url},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        # Killed once it has stored a random number of rows more, or has ended by itself.
        goal = _count(url) + moments.randrange(1, 80)
        while process.poll() is None and _count(url) < goal:
            pass
        process.send_signal(signal.SIGKILL)
        process.communicate()
    killed = _count(url)
    assert 0 < killed < PICTURES
    summary = json.loads(vecsearch("ingest", folder, *encoder).stdout)
    assert summary["added"] == PICTURES - killed
    assert summary["unchanged"] == killed
    vecsearch("ingest", folder, "--collection", "never_killed", *encoder)
    assert (
        vecsearch("sql", rows.format("images")).stdout
        == vecsearch("sql", rows.format("never_killed")).stdout
    )
    assert _count(url) == PICTURES


def _count(url: str) -> int:
    with psycopg.connect(url) as connection:
        (there,) = connection.execute("SELECT to_regclass('images') IS NOT NULL").fetchone() or [0]
        if not there:
            return 0
        (count,) = connection.execute("SELECT count(*) FROM images").fetchone() or [0]
        return int(count)
