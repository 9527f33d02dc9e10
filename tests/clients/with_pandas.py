"""pandas over SQLAlchemy and psycopg, with a stream of chunks."""

import pandas as pd
import sqlalchemy as sa
from said import ASKED, PAGE, URL, rows, types, version

version(f"{pd.__version__}, SQLAlchemy {sa.__version__}")
engine = sa.create_engine(URL.replace("postgresql:", "postgresql+psycopg:"))
with engine.connect() as connection:
    # As text(), because pandas hands a plain string to the driver, which reads % in it.
    types(pd.read_sql(sa.text(ASKED["types"]), connection).dtypes)
    for question in ("nearest", "hundred", "filter"):
        rows(question, pd.read_sql(sa.text(ASKED[question]), connection)["id"])
    stream = connection.execution_options(stream_results=True, max_row_buffer=PAGE)
    for chunk in pd.read_sql(sa.text(ASKED["all"]), stream, chunksize=PAGE):
        rows("all", chunk["id"])
