"""Files of embeddings: CSV, NPZ, Parquet."""

from vecsearch.ingest.formats.registry import (
    carries_columns,
    format_of,
    open_file,
    require_file,
    write_file,
)

__all__ = ["carries_columns", "format_of", "open_file", "require_file", "write_file"]
