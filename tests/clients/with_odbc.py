"""ODBC, with PostgreSQL's driver and its cursors, as Power BI and Excel connect."""

import os

import pyodbc
from said import ASKED, PAGE, rows, types, version

words = {
    "DRIVER": "{PostgreSQL Unicode}",
    "Server": os.environ["PGHOST"],
    "Port": os.environ["PGPORT"],
    "Uid": os.environ["PGUSER"],
    "Pwd": os.environ["PGPASSWORD"],
    "Database": os.environ["PGDATABASE"],
    "UseDeclareFetch": "1",
    "Fetch": str(PAGE),
}
with pyodbc.connect(";".join(f"{name}={value}" for name, value in words.items())) as client:
    driver = client.getinfo(pyodbc.SQL_DRIVER_VER)
    version(f"psqlODBC {driver}, pyodbc {pyodbc.version}")
    cursor = client.cursor()
    described = cursor.execute(ASKED["types"]).description
    types({name: type_.__name__ for name, type_, *_ in described})
    for question in ("nearest", "hundred", "filter"):
        rows(question, (row[0] for row in cursor.execute(ASKED[question]).fetchall()))
    cursor.execute(ASKED["all"])
    while page := cursor.fetchmany(PAGE):
        rows("all", (row[0] for row in page))
