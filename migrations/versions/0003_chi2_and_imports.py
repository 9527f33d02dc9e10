"""Chi-squared in SQL, and rows whose embeddings came without their files."""

import sqlalchemy as sa
from alembic import op

from vecsearch.postgres.migrate import collection_names

revision = "0003"
down_revision = "0002"

# What is known of an image only where its file is at hand, and how the column says so.
FROM_THE_FILE = {
    "sha256": "SHA-256 of the file, in hex; NULL: imported without its file",
    "width": "Pixels, after EXIF orientation; NULL: imported without its file",
    "height": "Pixels, after EXIF orientation; NULL: imported without its file",
    "format": "JPEG, PNG, WEBP, …; NULL: imported without its file",
    "file_size": "Bytes; NULL: imported without its file",
    "modified_at": "When the file was last modified; NULL: imported without its file",
}


def upgrade() -> None:
    op.alter_column(
        "collections",
        "weights_sha256",
        nullable=True,
        comment="SHA-256 of the loaded tensors, whatever file format they came in; "
        "NULL: imported vectors whose weights are not known",
        schema="vecsearch",
    )
    op.alter_column(
        "collections",
        "default_metric",
        comment="Metric of a query that names none: cosine, l2, l1, ip or chi2",
        schema="vecsearch",
    )
    for name in collection_names(op.get_bind()):
        for column, comment in FROM_THE_FILE.items():
            op.alter_column(name, column, nullable=True, comment=comment, schema="vecsearch")
    # The operators it uses are where the extension is, whatever a caller's search_path.
    extension_schema = op.get_bind().scalar(
        sa.text(
            "SELECT quote_ident(nspname) FROM pg_extension"
            " JOIN pg_namespace AS n ON n.oid = extnamespace WHERE extname = 'vector'"
        )
    )
    halfvec = f"{extension_schema}.halfvec"
    op.execute(
        f"""
        CREATE FUNCTION vecsearch.chi2_distance(a {halfvec}, b {halfvec})
        RETURNS double precision
        LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE COST 5000
        SET search_path = pg_catalog, {extension_schema}
        AS $$
        DECLARE
            total double precision;
            smallest real;
        BEGIN
            -- In single precision, where sums and differences of half-precision numbers are exact.
            SELECT sum(difference * difference / (plus + 1e-10)), min(plus - abs(difference))
            INTO total, smallest
            FROM (
                SELECT unnest((a::vector - b::vector)::real[]) AS difference,
                    unnest((a::vector + b::vector)::real[]) AS plus
            ) AS pairs;
            IF smallest < 0 THEN
                RAISE EXCEPTION
                    'chi-squared is not defined for embeddings with negative numbers'
                    USING ERRCODE = 'numeric_value_out_of_range',
                    HINT = 'Use cosine, l2 or l1.';
            END IF;
            RETURN total / 2;
        END
        $$"""
    )
    op.execute(
        f"COMMENT ON FUNCTION vecsearch.chi2_distance({halfvec}, {halfvec}) IS "
        "'Chi-squared distance, half the sum of (a - b)^2 / (a + b + 1e-10);"
        " an error where a number is negative'"
    )
