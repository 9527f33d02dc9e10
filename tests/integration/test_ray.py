"""An ingest on a Ray cluster of two nodes: as on one machine, whatever a node does meanwhile."""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import numpy as np
import pytest
import sqlalchemy as sa
from moto.server import ThreadedMotoServer
from ray_support import Nodes, nodes
from server_support import kill
from support import counts, once, picture, scalar

from vecsearch.config import Settings
from vecsearch.errors import ClusterUnavailable, InvalidInput, WeightsUnavailable
from vecsearch.imaging import scan
from vecsearch.ingest import resuming
from vecsearch.ingest.stages import cluster as clusters
from vecsearch.ingest.stages import pool
from vecsearch.ingest.summary import Progress, Summary
from vecsearch.library import Library
from vecsearch.postgres import database, tables

pytestmark = [
    once,
    pytest.mark.slow,
    pytest.mark.usefixtures("small_chunks"),
    # Of Ray itself, which leaves files of its processes open.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
BUCKET = "s3://album"
Ingest = Callable[..., Summary]


@pytest.fixture(scope="module")
def store() -> Iterator[Any]:
    """A server of S3, which the nodes know from their environment; yield its client."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "anything",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        yield boto3.client("s3", endpoint_url=address, region_name="us-east-1")
    server.stop()


@pytest.fixture(scope="module")
def started(store: Any) -> Iterator[Nodes]:
    with nodes() as found:
        yield found


@pytest.fixture
def ray(started: Nodes) -> Nodes:
    """Two nodes of a core each, and a head without any."""
    started.have(2)
    return started


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sixty pictures in three folders, a copy of one, and a file that is none."""
    for number in range(60):
        file = tmp_path / "many" / str(number % 3) / f"{number:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(file)
    shutil.copy(tmp_path / "many" / "0" / "00.png", tmp_path / "many" / "copy.png")
    (tmp_path / "many" / "1" / "none.png").write_text("no picture")
    return tmp_path / "many"


@pytest.fixture
def run(library: Library, small_model: str, weights: Path) -> Ingest:
    """Return what ingests with the small model; without `ray`, as on one machine."""

    def ingest(*paths: Path | str, into: str = "images", **options: Any) -> Summary:
        given: dict[str, Any] = {"model": small_model, "weights": weights} | options
        return library.collection(into).ingest(paths, confirm=lambda _: True, **given)

    return ingest


def rows(library: Library, name: str = "images") -> dict[str, Any]:
    """Return the rows by path, without when they were ingested."""
    columns = "sha256, width, height, format, file_size, modified_at, label, metadata"
    with database.reading(library.engine) as connection:
        found = connection.execute(
            sa.text(f"SELECT path, {columns}, CAST(embedding AS real[]) FROM vecsearch.{name}")
        )
        return {path: (tuple(facts), np.array(vector)) for path, *facts, vector in found}


def assert_same(library: Library, one: str, other: str) -> None:
    """Check that two collections have the same rows, embeddings to half precision."""
    first, second = rows(library, one), rows(library, other)
    assert first.keys() == second.keys()
    for path, (facts, vector) in first.items():
        assert facts == second[path][0]
        np.testing.assert_allclose(vector, second[path][1], rtol=2e-3, atol=2e-3)
    tags = "SELECT path, rank, name FROM {}_tags ORDER BY path, rank"
    with database.reading(library.engine) as connection:
        assert [*connection.execute(sa.text(tags.format(one)))] == [
            *connection.execute(sa.text(tags.format(other)))
        ]
        assert not connection.scalar(
            sa.text(
                f"SELECT count(*) FROM vecsearch.{one} AS stored WHERE NOT EXISTS (SELECT FROM"
                f" {tables.thumbnails.fullname} WHERE thumbnails.sha256 = stored.sha256)"
            )
        )
    errors = [
        [(error.path, error.error) for error in library.collection(name).errors()]
        for name in (one, other)
    ]
    assert errors[0] == errors[1]


def killing(ray: Nodes, after: int) -> Callable[[Progress], None]:
    """Return what kills a raylet once so many files are done."""
    killed: list[int] = []

    def on_progress(now: Progress) -> None:
        if now.done >= after and not killed:
            killed.append(now.done)
            ray.kill()

    return on_progress


def wait_for_rows(library: Library, process: "subprocess.Popen[str]") -> None:
    """Wait until a command has stored its first rows, or has ended."""
    there = "SELECT to_regclass('vecsearch.images') IS NOT NULL"
    while process.poll() is None and not scalar(library, there):
        time.sleep(0.01)


def test_a_run_on_ray_is_like_one_on_this_machine(
    library: Library, ray: Nodes, run: Ingest, folder: Path
) -> None:
    steps: list[Progress] = []
    plain = run(folder, into="plain")
    assert counts(plain) == {"added": 60, "copied": 1, "failed": 1}
    assert run(folder, ray=ray.address, on_progress=steps.append) == plain
    assert_same(library, "plain", "images")
    done = [step.done for step in steps if step.step == "Ingesting"]
    assert done == sorted(done)
    assert len(done) > 10
    assert steps[-1].summary.counts() == plain.counts()


def unflagged(summary: Summary) -> Summary:
    """Return the summary as that of the default collection, which commands need not name."""
    notes = (note.removesuffix(" --collection plain") for note in summary.notes)
    return replace(summary, notes=tuple(notes))


def test_what_changes_is_found_as_on_this_machine(
    library: Library, ray: Nodes, run: Ingest, folder: Path
) -> None:
    run(folder, into="plain")
    run(folder)
    files = sorted(folder.rglob("*.png"))
    one, two, three = files[1], files[30], files[50]
    # Three pictures change places.
    one.rename(folder / "aside.png")
    two.rename(one)
    three.rename(two)
    (folder / "aside.png").rename(three)
    for number, file in enumerate(files[5:9]):
        picture(200 + number).save(file)
    files[10].rename(folder / "moved.png")
    files[11].unlink()
    shutil.copy(files[12], folder / "another copy.png")
    for number in range(300, 312):
        picture(number).save(folder / "2" / f"new {number}.png")
    shutil.copy(folder / "2" / "new 305.png", folder / "0" / "new too.png")
    os.utime(files[20], (1_700_000_000, 1_700_000_000))
    dry = run(folder, ray=ray.address, dry_run=True)
    assert dry == unflagged(run(folder, into="plain", dry_run=True))
    named = {"prune": True, "label_regex": "/[01]/(new|.)"}
    plain = run(folder, into="plain", **named)
    found = run(folder, ray=ray.address, **named)
    assert found == unflagged(plain)
    assert {"added", "updated", "moved", "copied", "pruned"} <= counts(found).keys()
    assert_same(library, "plain", "images")


def test_a_killed_raylet_costs_nothing(
    library: Library, ray: Nodes, run: Ingest, folder: Path
) -> None:
    plain = run(folder, into="plain")
    assert run(folder, ray=ray.address, on_progress=killing(ray, 15)) == plain
    assert_same(library, "plain", "images")


def test_when_no_node_is_left_the_next_run_finishes(
    library: Library,
    ray: Nodes,
    run: Ingest,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray.have(1)
    kill_one = killing(ray, 15)

    def on_progress(now: Progress) -> None:
        kill_one(now)
        if now.done >= 15:
            monkeypatch.setattr(pool, "JOIN_S", 1.0)

    with pytest.raises(ClusterUnavailable, match="run the command again; what is stored stays"):
        run(folder, ray=ray.address, on_progress=on_progress)
    monkeypatch.setattr(pool, "JOIN_S", 60.0)
    stored = len(rows(library))
    assert 15 <= stored < 61
    ray.have(2)
    again = run(folder, ray=ray.address)
    assert (again.added + again.copied, again.unchanged) == (61 - stored, stored)
    run(folder, into="plain")
    assert_same(library, "plain", "images")


def test_the_database_may_be_lost_in_the_middle(
    ray: Nodes,
    folder: Path,
    small_model: str,
    weights: Path,
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resuming, "WAITS_S", (0.1,) * 6)
    killed: list[int] = []

    def on_progress(now: Progress) -> None:
        if now.done >= 30 and not killed:
            killed.append(now.done)
            kill(data_dir)

    with Library.open(Settings.load(data_dir=data_dir)) as library:
        summary = library.collection().ingest(
            folder, model=small_model, weights=weights, ray=ray.address, on_progress=on_progress
        )
        assert scalar(library, "SELECT count(*) FROM vecsearch.images") == 61
    assert summary.failed == 1
    assert "The database was lost once during the run, which then went on." in summary.notes


def test_ctrl_c_stops_it_and_keeps_what_is_stored(
    library: Library, ray: Nodes, run: Ingest, folder: Path, small_model: str, weights: Path
) -> None:
    # So many that a fast machine is not done before it is told to stop.
    many = 2_000
    for number in range(many):
        picture(1_000 + number, (16, 16)).save(folder / f"{number}.png")
    words = [sys.executable, "-m", "vecsearch", "ingest", str(folder), "--ray", ray.address]
    words += ["--model", small_model, "--weights", str(weights), "--database-url", library.url]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        wait_for_rows(library, process)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert (process.returncode, said) == (
        130,
        "Stopping.\nInterrupted. Every finished batch is kept; run the same command to continue.\n",
    )
    stored = len(rows(library))
    assert 0 < stored < many + 61
    # Nothing is added by an actor that has been left behind.
    again = run(folder)
    assert (again.added + again.copied, again.unchanged) == (many + 61 - stored, stored)


def test_a_bucket_is_read_by_the_nodes(
    library: Library, ray: Nodes, run: Ingest, folder: Path, store: Any
) -> None:
    store.create_bucket(Bucket="album")
    for file in folder.rglob("*.png"):
        store.upload_file(str(file), "album", str(file.relative_to(folder)))
    found = run(BUCKET, ray=ray.address)
    assert counts(found) == {"added": 60, "copied": 1, "failed": 1}
    plain = run(folder, into="plain")
    assert plain.counts() == found.counts()
    here, there = rows(library, "plain"), rows(library)
    for path, (facts, vector) in here.items():
        other, embedding = there[path.replace(str(folder), BUCKET)]
        assert facts[:4] == other[:4]
        np.testing.assert_allclose(vector, embedding, rtol=2e-3, atol=2e-3)


def test_the_command_says_nothing_but_its_summary_whatever_ray_has_to_say(
    library: Library, ray: Nodes, folder: Path, small_model: str, weights: Path
) -> None:
    for number in range(1_000, 1_600):
        picture(number).save(folder / f"{number}.png")
    words = [sys.executable, "-m", "vecsearch", "ingest", str(folder), "--ray", "auto"]
    words += ["--model", small_model, "--weights", str(weights), "--database-url", library.url]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for_rows(library, process)
        ray.kill()
        out, err = process.communicate()
    # The next actor may be long in coming.
    said = err.replace("Waiting for a worker of the Ray cluster.\n", "")
    assert said == "To see which files failed, and why: vecsearch errors\n"
    assert process.returncode == 0
    found = {name: count for name, count in json.loads(out).items() if count}
    assert found == {"added": 660, "copied": 1, "failed": 1}


def test_an_error_of_an_actor_is_that_of_the_command(
    library: Library, ray: Nodes, folder: Path, small_model: str, weights: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copy(weights, tmp_path / "own.safetensors"))
    settings = Settings.load(database_url=library.url, engine="torch")
    with Library.open(settings) as other:
        images = other.collection()
        images.ingest(folder / "0", model=small_model, weights=own)
        own.unlink()
        with pytest.raises(WeightsUnavailable) as caught:
            images.ingest(folder, ray=ray.address)
    assert type(caught.value) is WeightsUnavailable
    assert str(caught.value) == (
        f"Node {platform.node()} has no file {own}. Put the weights there on every node."
    )


def test_another_version_on_a_node_is_refused(
    ray: Nodes, run: Ingest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "__version__", "0.0.1")
    with pytest.raises(InvalidInput, match=r"this command is 0\.0\.1\. Install the same version"):
        run(folder, ray=ray.address)


def test_the_embedded_database_is_not_for_other_machines(
    ray: Nodes, monkeypatch: pytest.MonkeyPatch, photos: Path, tmp_path: Path
) -> None:
    embedded: Any = SimpleNamespace(settings=Settings(None, tmp_path), url="postgresql:///none")
    walk = scan.Walk([photos])
    monkeypatch.setattr("platform.node", lambda: "elsewhere")
    with (
        pytest.raises(InvalidInput, match="VECSEARCH_DATABASE_URL"),
        clusters.connected(ray.address, embedded, "images", walk) as place,
    ):
        place()
