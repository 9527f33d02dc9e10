"""Every error vecsearch raises on purpose.

Each message is one sentence that says what happened and one that says what to do next.

    VecsearchError
    ├── InvalidInput            an invalid argument, path or option value
    │   ├── ImageNotFound       no stored image has this id or path
    │   ├── Unclear             words, a label or a path that mean nothing, or several things
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

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# What may be meant, by kind, and how a sentence about it begins.
LEADS = {
    "labels": "The closest labels",
    "concepts": "The closest concepts",
    "paths": "Some of them",
}


class VecsearchError(Exception):
    """The base class of all errors of vecsearch; messages are for users.

    Attributes:
        sentence: what happened, and what everybody can do about it.
        step: what to run next, for whoever has a terminal; it ends the message.

    """

    def __init__(self, sentence: object = "", *, step: str = "") -> None:
        super().__init__(f"{sentence} {step}".rstrip())
        self.sentence = str(sentence)
        self.step = step


class InvalidInput(VecsearchError):
    """An argument, path or option value is invalid."""


class ImageNotFound(InvalidInput):
    """No stored image has this id or path."""


class Unclear(InvalidInput):
    """What somebody named is nothing that there is, or several things.

    Attributes:
        fault: what is wrong, without what may be meant; `sentence` has both.
        labelled: labels that it names, each with a number of images.
        near: what else may be meant, by the kinds of `LEADS`.

    """

    def __init__(
        self,
        fault: str,
        *,
        step: str = "",
        labelled: "Mapping[str, int] | None" = None,
        near: "Mapping[str, Sequence[str]] | None" = None,
    ) -> None:
        self.fault = fault
        self.labelled = dict(labelled or {})
        self.near = {kind: list(names) for kind, names in (near or {}).items() if names}
        having = [f"{having_label(label, images)}." for label, images in self.labelled.items()]
        closest = [f"{LEADS[kind]}: {', '.join(names)}." for kind, names in self.near.items()]
        super().__init__(" ".join([fault, *having, *closest]), step=step)


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


def having_label(label: str, images: int) -> str:
    """Return how many images have a label, as a clause."""
    return f"{images:,} {'image has' if images == 1 else 'images have'} the label {label!r}"


def fault(message: str) -> str:
    """Return a message of pydantic without its name for errors that we have written."""
    return message.removeprefix("Value error, ")


def first_line(error: object) -> str:
    """Return an error's first line, without a full stop; the name of its class if it has none.

    Of an error of the system this is its reason, without the number and the file.
    """
    text = str(getattr(error, "strerror", None) or error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
