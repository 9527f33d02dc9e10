"""Every SQL statement: a connection in, dataclasses out.

`catalog` knows collections, errors and sizes; `survey` and `writes` are ingest's side; `nearest` is
search; `copy` is how many rows arrive; `reader` is the role for BI tools.
"""
