"""polars over ADBC, with batches; and over connectorx, where that is installed."""

import importlib.util

import adbc_driver_postgresql
import adbc_driver_postgresql.dbapi as adbc
import polars as pl
from said import ASKED, PAGE, URL, rows, types, version

version(f"{pl.__version__}, ADBC {adbc_driver_postgresql.__version__}")
engines = ["adbc"] + ["connectorx"] * (importlib.util.find_spec("connectorx") is not None)
types(pl.read_database_uri(ASKED["types"], URL, engine="adbc").schema)
for question in ("nearest", "hundred", "filter"):
    answers = [pl.read_database_uri(ASKED[question], URL, engine=name)["id"] for name in engines]
    # A UUID is text in both, or bytes in one.
    rows(question, (value.hex() if isinstance(value, bytes) else value for value in answers[0]))
    if any(len(answer) != len(answers[0]) for answer in answers):
        raise SystemExit("the engines differ")
with adbc.connect(URL) as connection:
    batches = pl.read_database(ASKED["all"], connection, iter_batches=True, batch_size=PAGE)
    for batch in batches:
        rows("all", (v.hex() if isinstance(v, bytes) else v for v in batch["id"]))
