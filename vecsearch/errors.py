"""Every error vecsearch raises on purpose.

Each message is one sentence that says what happened and one that says what to do next.

    VecsearchError
    ├── InvalidInput            an invalid argument, path or option value
    │   ├── ImageNotFound       no stored image has this id or path
    │   └── NotConfirmed        what was asked would delete more than it may unasked
    ├── ImageUnreadable         a query picture that cannot be decoded
    ├── EncoderError
    │   ├── UnknownModel        no such model
    │   ├── WeightsUnavailable  weights not downloadable, moved or unreadable
    │   ├── WeightsMismatch     weights of another model, or changed since
    │   └── EncoderMismatch     another encoder than the collection's
    ├── CollectionNotFound
    ├── ClusterUnavailable      Ray does not answer, or has no worker left
    └── DatabaseError           Postgres refused a statement
        ├── DatabaseUnavailable
        │   └── DatabaseLost    it ended, or the connection to it, in the middle of work
        ├── DatabaseBusy        time limit, a lock, or no free connection
        ├── ExtensionMissing    pgvector is absent or too old
        └── SchemaError
            ├── SchemaMissing   no vecsearch tables yet
            ├── SchemaOutdated  older than this vecsearch
            └── SchemaNewer     newer than this vecsearch
"""


class VecsearchError(Exception):
    """The base class of all errors of vecsearch; messages are for users."""


class InvalidInput(VecsearchError):
    """An argument, path or option value is invalid."""


class ImageNotFound(InvalidInput):
    """No stored image has this id or path."""


class NotConfirmed(InvalidInput):
    """What was asked deletes more than it may without a yes; nothing was deleted."""


class ImageUnreadable(VecsearchError):
    """The query picture cannot be decoded."""


class EncoderError(VecsearchError):
    """The encoder cannot be used."""


class UnknownModel(EncoderError):
    """No encoder has this name."""


class WeightsUnavailable(EncoderError):
    """The weights cannot be downloaded or read."""


class WeightsMismatch(EncoderError):
    """The weights are of another model, or changed after the collection was created."""


class EncoderMismatch(EncoderError):
    """The collection's vectors were made by another encoder."""


class CollectionNotFound(VecsearchError):
    """No collection has this name."""


class ClusterUnavailable(VecsearchError):
    """The Ray cluster cannot be reached, or has no worker left."""


class DatabaseError(VecsearchError):
    """Postgres refused a statement."""


class DatabaseUnavailable(DatabaseError):
    """The database cannot be reached."""


class DatabaseLost(DatabaseUnavailable):
    """The database, or the connection to it, ended in the middle of work."""


class DatabaseBusy(DatabaseError):
    """A statement reached its time limit, a lock is held, or all connections are in use."""


class ExtensionMissing(DatabaseError):
    """pgvector is absent from the server, or too old."""


class SchemaError(DatabaseError):
    """The tables are not of this version of vecsearch."""


class SchemaMissing(SchemaError):
    """The database has no vecsearch tables yet."""


class SchemaOutdated(SchemaError):
    """The tables are older than this vecsearch."""


class SchemaNewer(SchemaError):
    """The tables are newer than this vecsearch."""


def fault(message: str) -> str:
    """Return a message of pydantic without its name for errors that we have written."""
    return message.removeprefix("Value error, ")


def first_line(error: object) -> str:
    """Return an error's first line, without a full stop; the name of its class if it has none.

    Of an error of the system this is its reason, without the number and the file.
    """
    text = str(getattr(error, "strerror", None) or error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
