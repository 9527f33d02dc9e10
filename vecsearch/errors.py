"""Every error vecsearch raises on purpose.

Each message is one sentence that says what happened and one that says what to do next.

    VecsearchError
    ├── InvalidInput            an argument that cannot be served
    │   └── ImageNotFound       no stored image has this id or path
    ├── ImageUnreadable         a query picture that cannot be decoded
    ├── EncoderError
    │   ├── UnknownModel        no such model
    │   ├── WeightsUnavailable  not downloadable, moved, unreadable
    │   ├── WeightsMismatch     weights of another model, or changed since
    │   └── EncoderMismatch     a second encoder for an existing collection
    ├── CollectionNotFound
    └── DatabaseError           whatever Postgres refused
        ├── DatabaseUnavailable
        ├── DatabaseBusy        a statement took longer than it may
        ├── ExtensionMissing    pgvector is absent or too old
        └── SchemaError
            ├── SchemaMissing   no vecsearch tables yet
            ├── SchemaOutdated  older than this vecsearch
            └── SchemaNewer     newer than this vecsearch
"""


class VecsearchError(Exception):
    """The root of the family; its message is written for a user."""


class InvalidInput(VecsearchError):
    """An argument, path or option value that cannot be served."""


class ImageNotFound(InvalidInput):
    """No stored image has this id or path."""


class ImageUnreadable(VecsearchError):
    """The query picture cannot be decoded."""


class EncoderError(VecsearchError):
    """The encoder cannot be used."""


class UnknownModel(EncoderError):
    """No encoder has this name."""


class WeightsUnavailable(EncoderError):
    """The weights cannot be downloaded or read."""


class WeightsMismatch(EncoderError):
    """The weights do not belong to the model, or changed since the collection was made."""


class EncoderMismatch(EncoderError):
    """The collection's vectors were made by another encoder."""


class CollectionNotFound(VecsearchError):
    """No collection has this name."""


class DatabaseError(VecsearchError):
    """Postgres refused a statement."""


class DatabaseUnavailable(DatabaseError):
    """No connection can be made."""


class DatabaseBusy(DatabaseError):
    """A statement took longer than it may, or no connection came free."""


class ExtensionMissing(DatabaseError):
    """pgvector is absent from the server, or too old."""


class SchemaError(DatabaseError):
    """The tables do not fit this version of vecsearch."""


class SchemaMissing(SchemaError):
    """The database has no vecsearch tables yet."""


class SchemaOutdated(SchemaError):
    """The tables are older than this vecsearch."""


class SchemaNewer(SchemaError):
    """The tables are newer than this vecsearch."""
