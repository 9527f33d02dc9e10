"""Every SQL statement: a connection in, dataclasses out.

`catalog` knows collections, errors and sizes; `survey` and `writes` are ingest's side; `nearest` is
search, `pairs` near-duplicates, `labels` what evaluation reads; `transfer` imports and exports;
`copy` is how many rows arrive; `analysts` and `reader` are for people whose tools speak only SQL.
"""
