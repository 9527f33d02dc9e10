"""What is a URL, and what stores tell of their files."""

from datetime import UTC, datetime
from typing import Any

import fsspec
import pytest

from vecsearch.errors import InvalidInput
from vecsearch.imaging import scan
from vecsearch.imaging.sources import remote
from vecsearch.postgres.rows import image_id

TOLD = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)


def refused(url: str, reason: str) -> None:
    raise AssertionError(f"{url}: {reason}")


@pytest.mark.parametrize(
    ("path", "is_url"),
    [
        ("s3://bucket/a.png", True),
        ("https://host/a.png?x=1", True),
        ("memory://a", True),
        ("S3://bucket/a.png", True),
        ("s3://", False),
        ("s3:/bucket", False),
        ("C://a.png", False),
        ("/a/s3://b", False),
        ("simplecache::s3://bucket", False),
        ("a.png", False),
    ],
)
def test_urls(path: str, is_url: bool) -> None:
    assert remote.is_url(path) is is_url


def test_a_file_url_is_a_path() -> None:
    assert scan.absolute("file:///photos/a%20b.png") == "/photos/a b.png"
    assert scan.absolute("S3://bucket/photos/") == "s3://bucket/photos"
    assert image_id(scan.absolute("file:///a.png")) == image_id("/a.png")
    assert image_id("s3://bucket/a.png") != image_id("s3://bucket/b.png")


def test_a_password_is_refused() -> None:
    with pytest.raises(InvalidInput, match="user or a password"):
        scan.absolute("https://me:secret@host/a.png")
    assert scan.absolute("s3://bucket/me@home.png") == "s3://bucket/me@home.png"


@pytest.mark.parametrize(
    "told",
    [
        {"LastModified": TOLD},
        {"mtime": TOLD.timestamp()},
        {"updated": "2024-05-06T07:08:09Z"},
        {"created": TOLD.replace(tzinfo=None)},
    ],
)
def test_modification_times(told: dict[str, Any]) -> None:
    [found] = remote.walk(
        "memory://a.png", {"type": "file", "size": 3, **told}, enters=bool, left=refused
    )
    assert found == remote.Found("memory://a.png", 3, TOLD)


@pytest.mark.parametrize("told", [{}, {"updated": "yesterday"}, {"mtime": 1e30}])
def test_a_time_that_is_not_told_is_now(told: dict[str, Any]) -> None:
    before = datetime.now(UTC)
    [found] = remote.walk(
        "memory://a.png", {"type": "file", "size": None, **told}, enters=bool, left=refused
    )
    assert found.modified_at >= before
    assert found.size == 0


def test_a_walk_skips_what_is_hidden_and_what_is_no_picture() -> None:
    system = fsspec.filesystem("memory")
    names = ("b/2.png", "a/1.png", "a/x.txt", ".hidden/3.png", "a/.4.png", "@eaDir/5.png")
    for name in names:
        system.pipe_file(f"/album/{name}", b"content")
    walk = scan.Walk(["memory://album"])
    found = [(file.path, file.relative, file.label, file.file_size) for file in walk]
    assert found == [
        ("memory://album/a/1.png", "a/1.png", "a", 7),
        ("memory://album/b/2.png", "b/2.png", "b", 7),
    ]
    assert (walk.skipped.total(), walk.unreadable) == (1, [])
    [file] = scan.Walk(["memory://album/a/x.txt"])
    assert (file.path, file.relative) == ("memory://album/a/x.txt", "x.txt")
