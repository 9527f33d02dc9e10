"""From files to rows: classified, embedded, written; and embeddings in and out."""
