"""The programs that a dump starts: which ones, and what they are told."""

import shutil
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support import once

from vecsearch.errors import CollectionNotFound
from vecsearch.library import Library
from vecsearch.postgres.dumping import dump


@once
def test_a_server_newer_than_every_pg_dump_here_is_told(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dump, "_server_major", lambda _: 99)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(Exception, match="PostgreSQL 99, and this machine has no pg_dump"):
        library.dump(tmp_path / "a.dump")
    assert not (tmp_path / "a.dump").exists()


@once
def test_no_server_is_started_for_a_collection_that_does_not_exist(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dump, "scratch", lambda _: pytest.fail("started"))
    with pytest.raises(CollectionNotFound):
        library.dump(tmp_path / "a.dump", collection="images")


@once
def test_a_password_is_not_on_the_command_line(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words: list[str] = []
    variables: dict[str, str] = {}

    def output(said: list[str], **more: str) -> Any:
        words.extend(said)
        variables.update(more)
        raise psycopg.OperationalError("enough")

    monkeypatch.setattr(dump, "_output", output)
    secret = library.engine.url.set(password="s3cret")
    monkeypatch.setattr(dump, "_server_major", lambda _: 18)
    monkeypatch.setattr(library.engine, "url", secret)
    with pytest.raises(Exception, match="enough"):
        library.dump(tmp_path / "a.dump")
    assert "s3cret" not in " ".join(words)
    assert variables == {"PGPASSWORD": "s3cret"}
