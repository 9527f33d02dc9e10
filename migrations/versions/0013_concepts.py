"""Words by which images can be searched, and a function that looks one up."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import UserDefinedType

revision = "0013"
down_revision = "0012"


class Halfvec(UserDefinedType[object]):
    """pgvector's type, under its name in this database."""

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: object) -> str:
        """Return the type's SQL."""
        return self.name


def upgrade() -> None:
    connection = op.get_bind()
    # The type and its operators are where the extension is, whatever the search_path.
    extension_schema = connection.scalar(
        sa.text(
            "SELECT quote_ident(nspname) FROM pg_extension"
            " JOIN pg_namespace AS n ON n.oid = extnamespace WHERE extname = 'vector'"
        )
    )
    halfvec = f"{extension_schema}.halfvec"
    op.create_table(
        "concepts",
        sa.Column(
            "encoder",
            sa.Text,
            primary_key=True,
            comment="Encoder in whose space the embedding is: weights_sha256 of its collections",
        ),
        sa.Column(
            "number", sa.Integer, primary_key=True, comment="Class of the classifier, from 0"
        ),
        sa.Column("name", sa.Text, nullable=False, comment="The word"),
        sa.Column("synonyms", ARRAY(sa.Text), nullable=False, comment="Other words for it"),
        sa.Column("definition", sa.Text, nullable=False, comment="What it means"),
        sa.Column(
            "embedding",
            Halfvec(halfvec),
            nullable=False,
            comment="The class's weights: images that show it have a small cosine distance to them",
        ),
        sa.Column(
            "bias",
            sa.REAL,
            nullable=False,
            comment="With the inner product of image and embedding, the class's logit",
        ),
        schema="vecsearch",
        comment="Words by which images can be searched: the classes of each encoder's classifier",
    )
    # Who may search may read what searches need.
    grantees = connection.scalars(
        sa.text(
            "SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee))"
            " END FROM pg_class, aclexplode(relacl) AS held"
            " WHERE oid = 'vecsearch.collections'::regclass AND privilege_type = 'SELECT'"
            " AND grantee <> relowner"
        )
    )
    for grantee in grantees.all():
        connection.exec_driver_sql(f"GRANT SELECT ON vecsearch.concepts TO {grantee}")
    op.execute(
        f"""
        CREATE FUNCTION vecsearch.concept(word text, collection text DEFAULT 'images')
        RETURNS {halfvec}
        LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
        SET search_path = pg_catalog, {extension_schema}
        AS $$
        DECLARE
            found record;
        BEGIN
            SELECT count(*) AS concepts, min(number) AS number
            INTO found
            FROM (
                SELECT c.number, lower(c.name) = lower(word) AS is_name,
                    bool_or(lower(c.name) = lower(word)) OVER () AS has_name
                FROM vecsearch.concepts AS c
                JOIN vecsearch.collections AS owner ON owner.weights_sha256 = c.encoder
                WHERE owner.name = collection AND owner.layer = 'pooled' AND (
                    lower(word) = lower(c.name) OR word = CAST(c.number AS text)
                    OR lower(word) IN (SELECT lower(unnest(c.synonyms))))
            ) AS matching
            WHERE is_name OR NOT has_name;
            IF found.concepts = 0 THEN
                RAISE EXCEPTION 'collection "%" has no concept "%"', collection, word
                    USING HINT = 'The table vecsearch.concepts lists all.';
            ELSIF found.concepts > 1 THEN
                RAISE EXCEPTION '"%" is the name of % concepts', word, found.concepts
                    USING HINT = 'Name one by its number; see the table vecsearch.concepts.';
            END IF;
            RETURN (
                SELECT c.embedding
                FROM vecsearch.concepts AS c
                JOIN vecsearch.collections AS owner ON owner.weights_sha256 = c.encoder
                WHERE owner.name = collection AND c.number = found.number
            );
        END
        $$"""
    )
    op.execute(
        "COMMENT ON FUNCTION vecsearch.concept(text, text) IS 'Embedding of a concept, for"
        " ORDER BY embedding <=> concept(''golden retriever'') LIMIT 10; the word is a name, a"
        " synonym or a number of the table concepts; an error if there is none, or several'"
    )
