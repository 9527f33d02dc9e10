"""A plain SQL client for tests, and what it asks."""

from typing import Any

import psycopg
from support import Corpus

from vecsearch.library import Library

Client = psycopg.Connection[Any]


def connect(library: Library, **options: Any) -> Client:
    """Return a plain client, with pgvector's own settings, under which index scans end early."""
    connection = psycopg.connect(library.url, autocommit=True, **options)
    connection.execute("SELECT CAST('[1]' AS public.vector)")
    for setting in (
        "hnsw.iterative_scan = off",
        "hnsw.max_scan_tuples = 20000",
        "hnsw.scan_mem_multiplier = 1",
        "search_path = vecsearch, public",
    ):
        connection.execute(f"SET {setting}".encode())
    return connection


def rows(client: Client, statement: str, *values: Any) -> list[Any]:
    return client.execute(statement.encode(), values or None).fetchall()


def plan(client: Client, statement: str) -> str:
    return "\n".join(row[0] for row in rows(client, f"EXPLAIN {statement}"))


def path(corpus: Corpus, position: int) -> str:
    return f"/corpus/{position * 7919 % len(corpus):05}.png"
