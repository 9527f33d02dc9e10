"""ibis, by its own expressions, which sqlglot writes.

`client.sql(…)` would need a temporary view, which the reader cannot create.
"""

import os

import ibis
from said import IMAGE, LABEL, PAGE, rows, types, version


@ibis.udf.scalar.builtin
def embedding_distance(a, b) -> float:
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
own = images.filter(images.id == IMAGE).embedding.as_scalar()
near = images.mutate(distance=embedding_distance(images.embedding, own)).order_by("distance")
rows("nearest", near.limit(10).select("id").execute()["id"])
rows("hundred", near.limit(100).select("id").execute()["id"])
rows("filter", near.filter(near.label == LABEL).limit(20).select("id").execute()["id"])
# As text: to Arrow, ibis hands UUIDs in a form that Arrow refuses.
every = near.select(id=near.id.cast("string"))
for batch in every.to_pyarrow_batches(chunk_size=PAGE):
    rows("all", batch["id"].to_pylist())
