"""psycopg 3, with a named cursor."""

import psycopg
from said import ASKED, PAGE, URL, rows, types, version

version(psycopg.__version__)
with psycopg.connect(URL) as connection:
    cursor = connection.execute(ASKED["types"])
    row = cursor.fetchone()
    types({column.name: type(value).__name__ for column, value in zip(cursor.description, row)})
    for question in ("nearest", "hundred", "filter"):
        rows(question, (row[0] for row in connection.execute(ASKED[question])))
    with connection.cursor("every") as cursor:
        cursor.itersize = PAGE
        rows("all", (row[0] for row in cursor.execute(ASKED["all"])))
