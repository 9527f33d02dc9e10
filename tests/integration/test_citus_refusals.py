"""No statement that the code sends about a distributed collection is one that Citus refuses."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql
from refusals import REFUSALS, STUBS, Refusal, refused
from support import PixelEncoder, clustered, ingest, make_corpus, once, store_concepts

from vecsearch.config import Settings
from vecsearch.library import Library
from vecsearch.postgres import database
from vecsearch.search.query import Query

pytestmark = once

IMAGES = frozenset({"vecsearch.images"})


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Every statement that psycopg is given from now on."""
    found: set[str] = set()

    def listened(name: str) -> None:
        original: Any = getattr(psycopg.Cursor, name)

        def call(self: Any, query: Any, *arguments: Any, **options: Any) -> Any:
            text = query.as_string(self) if isinstance(query, sql.Composable) else query
            found.add(text.decode() if isinstance(text, bytes) else text)
            return original(self, query, *arguments, **options)

        monkeypatch.setattr(psycopg.Cursor, name, call)

    for name in ("execute", "executemany", "copy"):
        listened(name)
    return found


@pytest.fixture
def spread(database_url: str, tmp_path: Path) -> Iterator[Library]:
    """A library that takes its collections for distributed."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(STUBS.encode())
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET vecsearch.shards = 4".encode())
    with Library.open(Settings.load(database_url=database_url, data_dir=tmp_path)) as library:
        yield library


def sharded(library: Library) -> frozenset[str]:
    with database.reading(library.engine) as connection:
        return frozenset(
            connection.scalars(
                sa.text(
                    "SELECT relnamespace::regnamespace || '.' || relname FROM pg_trigger"
                    " JOIN pg_class ON pg_class.oid = tgrelid WHERE tgname = 'truncate_trigger'"
                )
            )
        )


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.matches.__name__)
def test_each_refusal_is_recognised_in_its_example(refusal: Refusal) -> None:
    assert refusal.what in refused(refusal.example, IMAGES)
    # Of a table that is not in shards, nothing is refused but what reaches no shard.
    assert not refused(refusal.example, frozenset()) or "set_config" in refusal.example


def test_what_citus_takes_instead_is_not_refused() -> None:
    for text in (
        "WITH q AS MATERIALIZED (SELECT embedding AS e FROM vecsearch.images WHERE id = $1)"  # noqa: ISC004 - a statement a line
        " SELECT id FROM vecsearch.images ORDER BY embedding <=> (SELECT e FROM q) LIMIT 3",
        "SELECT id FROM vecsearch.images AS i LEFT JOIN seen USING (path) WHERE seen.path IS NULL",
        "INSERT INTO vecsearch.images (id) SELECT id FROM staged ON CONFLICT (id)"  # noqa: ISC004 - likewise
        " DO UPDATE SET ingested_at = excluded.ingested_at",
        "SET LOCAL hnsw.ef_search = '100'",
    ):
        assert refused(text, IMAGES) == []


def test_nothing_that_is_sent_is_refused(
    spread: Library, photos: Path, tmp_path: Path, sent: set[str]
) -> None:
    _ingest(spread, photos, tmp_path)
    _search(spread)
    _analyse(spread)
    tables = sharded(spread)
    spread.collection("corpus").drop()
    assert tables >= {"vecsearch.images", "vecsearch.corpus"}
    assert any(name.startswith("vecsearch_internal.corpus_compact_") for name in tables)
    # Those that a later build dropped, too.
    tables |= {
        name for text in sent for name in re.findall(r"vecsearch_internal\.\w+_compact_\d+", text)
    }
    assert len(sent) > 200
    assert any("MATERIALIZED" in text and "query_embedding" in text for text in sent)
    found = {text: said for text in sent if (said := refused(text, tables))}
    assert found == {}


def _ingest(library: Library, photos: Path, tmp_path: Path) -> None:
    captions = tmp_path / "captions.csv"
    captions.write_text("path,title\ncats/01.png,one\n")
    ingest(library.engine, [photos], PixelEncoder(), metadata_file=captions)
    (photos / "cats" / "01.png").touch()
    shutil.copy(photos / "cats" / "03.png", photos / "cats" / "copy.png")
    (photos / "cats" / "05.png").rename(photos / "dogs" / "moved.png")
    (photos / "cats" / "07.png").unlink()
    (photos / "dogs" / "00.png").write_bytes((photos / "cats" / "09.png").read_bytes())
    (photos / "dogs" / "bad.png").write_bytes(b"no picture")
    ingest(library.engine, [photos], PixelEncoder(), prune=True)
    library.collection().errors()
    file = tmp_path / "images.csv"
    library.collection().export_file(file)
    for _ in range(2):
        library.collection("imported").import_file(file)
    library.collection().forget([photos / "dogs" / "02.png"], confirm=lambda _: True, existing=True)


def _search(library: Library) -> None:
    vectors = clustered(220, 16, seed=5)
    corpus = make_corpus(library, "corpus", vectors)
    words = np.stack([vectors[5], vectors[200]])
    store_concepts(library, ["crane", "clock"], words.astype(np.float16), [0.0] * 2)
    collection = library.collection("corpus")
    collection.tags.ensure()
    collection.tags.listed(limit=3)
    collection.tags.counted(where="width > 3")
    for method in ("hnsw", "compact", "ranking"):
        if method == "ranking":
            collection.set_ranking("compact", dims=8)
        else:
            collection.create_index(method)
        for query in (
            Query(id=corpus.ids[3]),
            Query(id=corpus.ids[3], metric="chi2", exclude_self=True),
            Query(id=corpus.ids[3], where="width % 2 = 1", k=1_000),
            Query(id=corpus.ids[3], max_distance=0.3, exact=True),
            Query(id=corpus.ids[3], expand=5),
            Query(text="crane"),
        ):
            collection.ask(query)
        collection.index_status()
        collection.evaluate(k=5)
        collection.tune_index(recall=0.9)
    library.status()
    library.repair()


def _analyse(library: Library) -> None:
    collection = library.collection("corpus")
    for exact in (False, True):
        collection.duplicates(exact=exact)
    collection.refresh()
    library.collection().duplicates(max_distance=0.2)
