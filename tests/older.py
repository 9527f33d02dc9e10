"""Collections as earlier versions made them."""

import sqlalchemy as sa
from support import Corpus, clustered, stored_corpus

from vecsearch.library import Library
from vecsearch.postgres import database, schema


def create_old_table(connection: sa.Connection, name: str) -> None:
    """Create a collection's table as it was before later indexes."""
    table = schema.collection_table(name, 8).to_metadata(sa.MetaData())
    table.indexes -= {index for index in table.indexes if index.name != f"{name}_sha256"}
    table.create(connection)


def old_corpus(library: Library, name: str, rows: int) -> Corpus:
    """Make a collection as it was before anything stood beside its table."""
    vectors = clustered(rows, 8, seed=0)
    with database.writing(library.engine) as connection:
        create_old_table(connection, name)
        connection.execute(
            sa.text(
                "INSERT INTO vecsearch.collections (name, model, layer, weights_sha256,"
                " preprocessing, dimensions) VALUES (:name, 'seeded', 'pooled', :sha256, '{}', 8)"
            ),
            {"name": name, "sha256": "0" * 64},
        )
        return stored_corpus(library, connection, name, vectors)
