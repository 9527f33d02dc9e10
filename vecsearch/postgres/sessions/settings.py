"""The settings of sessions, declared only here.

SEARCH are those under which plain SQL gives the right answer; a large collection needs more of
`EF_SEARCH`, as `vecsearch.vocabulary.least_ef_search` says.
"""

from vecsearch.vocabulary import MINIMUM_EF_SEARCH, READING_S

EF_SEARCH = "hnsw.ef_search"
# With pgvector's defaults, an index search returns fewer rows than asked for, without a warning, if
# LIMIT is above 40, WHERE filters rows out, 20,000 rows are scanned, or work_mem is full.
SEARCH = {
    # strict_order leaves out rows that the index finds late; relaxed_order returns every row, a few
    # of them slightly out of order.
    "hnsw.iterative_scan": "relaxed_order",
    "hnsw.max_scan_tuples": str(2**31 - 1),
    # Times work_mem; a scanned row takes about 100 bytes.
    "hnsw.scan_mem_multiplier": "1000",
    # With more, the planner would compare 3,000 rows rather than use the index for LIMIT 10.
    EF_SEARCH: str(MINIMUM_EF_SEARCH),
    # A cursor is planned for reading all its rows, as BI tools do, and not for the first tenth.
    "cursor_tuple_fraction": "1",
}

# While SQL that a user wrote is run to read: a statement, or the condition of a search. A session
# with stricter ones keeps them.
READING_LIMITS = {"statement_timeout": f"{READING_S}s"}
