"""DuckDB's extension postgres; it sends the statement as it is by `postgres_query`.

Without a network, the extension comes from the package duckdb-extension-postgres-scanner.
"""

import importlib.util
from pathlib import Path

import duckdb
from said import ASKED, PAGE, URL, rows, types, version

version(duckdb.__version__)
client = duckdb.connect()
package = importlib.util.find_spec("duckdb_extension_postgres_scanner")
if package is None:
    client.execute("INSTALL postgres_scanner; LOAD postgres_scanner")
else:
    (file,) = Path(str(package.origin)).parent.rglob("*.duckdb_extension")
    client.execute(f"LOAD '{file}'")
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
