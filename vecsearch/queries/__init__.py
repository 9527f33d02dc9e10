"""Every SQL statement: a connection in, dataclasses out.

`catalog` knows collections, errors and sizes; `writes` is ingest's side; `nearest` is search.
"""
