"""ibis, which parses every statement with sqlglot; and its own expressions."""

import os

import ibis
from said import ASKED, IMAGE, LABEL, PAGE, rows, types, version


@ibis.udf.scalar.builtin
def embedding_distance(a: str, b: str) -> float:
    """Cosine distance, by the database's function."""


version(ibis.__version__)
client = ibis.postgres.connect(
    host=os.environ["PGHOST"],
    port=int(os.environ["PGPORT"]),
    user=os.environ["PGUSER"],
    password=os.environ["PGPASSWORD"],
    database=os.environ["PGDATABASE"],
    schema="vecsearch",
)
images = client.table("images")
types(images.schema())
rows("nearest", client.sql(ASKED["nearest"], dialect="postgres").execute()["id"])
rows("hundred", client.sql(ASKED["hundred"]).execute()["id"])
own = images.filter(images.id == IMAGE).embedding.as_scalar()
near = images.mutate(distance=embedding_distance(images.embedding, own)).order_by("distance")
rows("filter", near.filter(near.label == LABEL).select("id").limit(20).execute()["id"])
for batch in client.sql(ASKED["all"]).to_pyarrow_batches(chunk_size=PAGE):
    rows("all", batch["id"].to_pylist())
