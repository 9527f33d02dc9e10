"""DuckDB's extension postgres; it sends the statement as it is by `postgres_query`.

Without a network, the extension comes from the package duckdb-extension-postgres-scanner.
"""

import contextlib
import importlib.util

import duckdb
from said import ASKED, PAGE, URL, rows, types, version

if importlib.util.find_spec("duckdb_extensions"):
    from duckdb_extensions import import_extension

    with contextlib.suppress(duckdb.Error):
        import_extension("postgres_scanner")
version(duckdb.__version__)
client = duckdb.connect()
client.execute("LOAD postgres_scanner")
client.execute(f"ATTACH '{URL}' AS photos (TYPE postgres, READ_ONLY)")


def ask(question: str) -> duckdb.DuckDBPyConnection:
    """Return the answer to a question."""
    return client.execute("FROM postgres_query('photos', ?)", [ASKED[question]])


types({name: type_ for name, type_, *_ in ask("types").description})
for question in ("nearest", "hundred", "filter"):
    rows(question, (row[0] for row in ask(question).fetchall()))
answer = ask("all")
while page := answer.fetchmany(PAGE):
    rows("all", (row[0] for row in page))
