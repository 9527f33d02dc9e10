"""The demo: pictures drawn on the spot, ingested, queried, shown. Needs no network."""
