"""Dumps of collections: written and restored by pg_dump and pg_restore, or row by row."""
