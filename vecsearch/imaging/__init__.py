"""Image files: found, read, decoded, drawn small. No database, no encoder."""
