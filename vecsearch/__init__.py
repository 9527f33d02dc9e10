"""Image search that is Postgres: a folder becomes a table, a search is one SQL statement."""

__version__ = "0.1.0"
