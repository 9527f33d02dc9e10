"""Pictures behind URLs: in a bucket, on a web server, and behind those that refuse."""

import functools
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from servers import free_port
from support import PixelEncoder, counts, ingest, once, picture, run_command, scalar

from vecsearch.errors import InvalidInput
from vecsearch.imaging.sources import remote
from vecsearch.ingest import choose
from vecsearch.library import Library
from vecsearch.postgres.rows import image_id

pytestmark = once
BUCKET = "s3://album"


class Bucket:
    """A bucket, and what a user does with it behind our back."""

    def __init__(self, endpoint: str) -> None:
        self.client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
        self.client.create_bucket(Bucket="album")

    def put(self, folder: Path) -> None:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            self.client.upload_file(str(file), "album", str(file.relative_to(folder)))

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket="album", Key=key)


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return what sets the address of the server that s3:// means."""

    def to(address: str) -> None:
        for name, value in {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "anything",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
        }.items():
            monkeypatch.setenv(name, value)
        forget()

    return to


def forget() -> None:
    """Forget the connections that are made once a process."""
    remote.file_system.cache_clear()
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def bucket(endpoint: Callable[[str], None], photos: Path) -> Iterator[Bucket]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint(f"http://{host}:{port}")
    try:
        # All its servers of a process share what they hold.
        urllib.request.urlopen(
            urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")
        )
        bucket = Bucket(f"http://{host}:{port}")
        bucket.put(photos)
        yield bucket
    finally:
        server.stop()


@pytest.fixture
def serving() -> Iterator[Callable[[Any], str]]:
    """Return what starts a web server with a handler, and returns its address."""
    servers = []

    def start(handler: Any) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


class Quiet(SimpleHTTPRequestHandler):
    """A web server of a folder."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_bucket_is_a_folder(library: Library, bucket: Bucket, photos: Path) -> None:
    assert counts(ingest(library.engine, [BUCKET], PixelEncoder())) == {"added": 12}
    assert counts(ingest(library.engine, [photos], PixelEncoder())) == {"copied": 12}
    with library.sql(
        "SELECT count(*) FROM images AS there JOIN images AS here"
        " ON here.path = replace(there.path, 's3://album', '" + str(photos) + "')"
        " AND here.sha256 = there.sha256 AND here.label = there.label"
        " AND here.file_size = there.file_size AND here.embedding = there.embedding"
        " WHERE there.path LIKE 's3:%'"
    ) as (_, rows, _):
        assert [*rows] == [(12,)]
    url = f"{BUCKET}/cats/03.png"
    assert scalar(library, f"SELECT id FROM images WHERE path = '{url}'") == image_id(url)
    assert counts(ingest(library.engine, [f"{BUCKET}/"], PixelEncoder())) == {"unchanged": 12}


def test_what_changes_in_a_bucket_is_noticed(
    library: Library, bucket: Bucket, photos: Path, tmp_path: Path
) -> None:
    ingest(library.engine, [f"{BUCKET}/cats"], PixelEncoder())
    bucket.delete("cats/01.png")
    bucket.client.copy_object(Bucket="album", Key="cats/new.png", CopySource="album/cats/03.png")
    bucket.delete("cats/03.png")
    picture(99).save(tmp_path / "other.png")
    bucket.client.upload_file(str(tmp_path / "other.png"), "album", "cats/05.png")
    found = counts(ingest(library.engine, [f"{BUCKET}/cats"], PixelEncoder(), prune=True))
    assert found == {"unchanged": 3, "updated": 1, "moved": 1, "pruned": 1}


def test_a_picture_is_asked_by_its_url(library: Library, bucket: Bucket) -> None:
    ingest(library.engine, [BUCKET], PixelEncoder())
    code, out, _ = run_command(
        library, "query", f"{BUCKET}/cats/03.png", "-k", "1", "--format", "paths"
    )
    assert (code, out) == (0, f"{BUCKET}/cats/03.png\n")
    code, out, err = run_command(library, "query", f"{BUCKET}/cats/no.png")
    assert (code, out) == (1, "")
    assert f"error: {BUCKET}/cats/no.png cannot be read: No such file." in err


def test_metadata_names_a_url(library: Library, bucket: Bucket, tmp_path: Path) -> None:
    captions = tmp_path / "captions.csv"
    captions.write_text(f"path,caption\n{BUCKET}/cats/03.png,mine\n")
    ingest(library.engine, [BUCKET], PixelEncoder(), metadata_file=captions)
    url = scalar(library, "SELECT path FROM images WHERE metadata->>'caption' = 'mine'")
    assert url == f"{BUCKET}/cats/03.png"


def test_odd_keys_are_stored_or_named(library: Library, bucket: Bucket, photos: Path) -> None:
    keys = ["odd/a b.png", "odd/ü.png", "odd/a?b#c%20d+e.png", "odd/*[1].png"]
    for key in [*keys, "odd//double.png", "odd/"]:
        bucket.client.upload_file(str(photos / "cats" / "03.png"), "album", key)
    bucket.client.put_object(Bucket="album", Key="odd/empty.png", Body=b"")
    found = counts(ingest(library.engine, ["S3://album/odd"], PixelEncoder()))
    assert (found["added"] + found["copied"], found["failed"]) == (len(keys), 2)
    for key in keys:
        assert scalar(library, f"SELECT count(*) FROM images WHERE path = '{BUCKET}/{key}'") == 1
    assert {error.path: error.error for error in library.collection().errors()} == {
        f"{BUCKET}/odd": "It has a folder without a name, as in a//b.",
        f"{BUCKET}/odd/empty.png": "The file is empty.",
    }


def test_a_key_that_vanishes_is_recorded(
    library: Library, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = remote.walk

    def vanishing(*arguments: Any, **named: Any) -> Iterator[remote.Found]:
        yield from walk(*arguments, **named)
        bucket.delete("cats/03.png")

    monkeypatch.setattr(remote, "walk", vanishing)
    summary = ingest(library.engine, [f"{BUCKET}/cats"], PixelEncoder())
    assert counts(summary) == {"added": 5, "failed": 1}
    [error] = library.collection().errors()
    assert (error.path, error.error) == (f"{BUCKET}/cats/03.png", "No such file.")
    assert counts(ingest(library.engine, [f"{BUCKET}/cats"], PixelEncoder())) == {"unchanged": 5}
    assert library.collection().errors() == []


def test_an_emptied_bucket_needs_a_yes(library: Library, bucket: Bucket, photos: Path) -> None:
    ingest(library.engine, [BUCKET], PixelEncoder())
    for file in photos.rglob("*.png"):
        bucket.delete(str(file.relative_to(photos)))
    code, _, err = run_command(library, "ingest", f"{BUCKET}/cats", "--prune", "--yes")
    assert code == 1
    assert f"{BUCKET}/cats is gone, and the collection has 6 rows from it." in err
    code, out, _ = run_command(library, "forget", f"{BUCKET}/cats", "--yes", "--format", "table")
    assert (code, out) == (0, "deleted 6 rows, 0 errors\n")


def test_rows_stay_while_a_store_does_not_answer(
    library: Library,
    bucket: Bucket,
    endpoint: Callable[[str], None],
    serving: Callable[[Any], str],
    photos: Path,
) -> None:
    address = serving(functools.partial(Quiet, directory=str(photos)))
    page = f"{address}/cats/03.png"
    ingest(library.engine, [BUCKET, page], PixelEncoder())
    dead = f"http://127.0.0.1:{free_port()}"
    endpoint(dead)
    paths = [f"{BUCKET}/cats/03.png", BUCKET, f"{dead}/x.png"]
    assert remote.missing([*paths, f"{address}/none.png"]) == {f"{address}/none.png"}
    code, out, err = run_command(library, "ingest", BUCKET, "--prune", "--yes")
    assert (code, out) == (1, "")
    assert f"error: {BUCKET} cannot be read: Could not connect" in err
    assert scalar(library, "SELECT count(*) FROM images") == 13


class Refusing(BaseHTTPRequestHandler):
    """What S3 answers those who have no rights."""

    def do_GET(self) -> None:
        body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_PUT = do_POST = do_GET  # noqa: N815 - the base class's names

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_bucket_that_refuses_is_named(
    library: Library,
    endpoint: Callable[[str], None],
    serving: Callable[[Any], str],
) -> None:
    endpoint(serving(Refusing))
    code, out, err = run_command(library, "ingest", f"{BUCKET}/cats")
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {BUCKET}/cats cannot be read: ")
    assert err.endswith("Check the URL, the credentials and the network.\n")


def test_pictures_on_a_web_server(
    library: Library, serving: Callable[[Any], str], photos: Path
) -> None:
    address = serving(functools.partial(Quiet, directory=str(photos)))
    urls = [f"{address}/cats/{name}.png" for name in ("01", "03", "05")]
    assert counts(ingest(library.engine, urls, PixelEncoder())) == {"added": 3}
    # Such a server tells no times, so contents are compared.
    picture(99).save(photos / "cats" / "03.png")
    found = counts(ingest(library.engine, urls, PixelEncoder()))
    assert found == {"unchanged": 2, "updated": 1}


class Endless(Refusing):
    """A web server that never stops sending."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):  # once nobody listens
            while self.command == "GET":
                self.wfile.write(bytes(1000))


def test_no_more_is_read_than_was_asked_for(serving: Callable[[Any], str]) -> None:
    assert len(remote.read(f"{serving(Endless)}/a.png", 10_000)) == 10_001


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"{BUCKET}/nothing", "does not exist, or may not be seen"),
        ("s3://nobody/x", "does not exist, or may not be seen"),
        ("gs://album", r"needs a package: pip install 'vecsearch\[gcs\]'"),
        ("ftpx://album", "no store that can be read"),
        ("https://me:secret@host/x.png", "holds a user or a password"),
    ],
)
def test_what_is_no_source_is_refused(
    library: Library, bucket: Bucket, url: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "encoder", lambda *_, **__: (PixelEncoder(), []))
    with pytest.raises(InvalidInput, match=said):
        library.collection().ingest([url])
