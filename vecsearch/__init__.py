"""Image search that is Postgres: a folder becomes a table, a search is one SQL statement."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vecsearch.library import Library

__all__ = ["Library", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import `Library` when it is asked for, so that `vecsearch --help` need not."""
    if name == "Library":
        from vecsearch.library import Library

        return Library
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
