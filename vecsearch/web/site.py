"""What every route is given: the library, and how this server serves it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from vecsearch.errors import InvalidInput
from vecsearch.postgres import catalog
from vecsearch.search import gallery
from vecsearch.search.query import Answer
from vecsearch.web.metrics import Metrics
from vecsearch.web.parameters import Question
from vecsearch.web.uploads import Uploads

if TYPE_CHECKING:
    from uuid import UUID

    from vecsearch.library import Library

DEFAULT_K = 30


@dataclass(frozen=True)
class Options:
    """How a server serves.

    Attributes:
        collection: the one that is asked unless another is named.
        token: what a caller must know; None serves this machine alone.
        max_bytes: of a request's body.

    """

    collection: str
    token: str | None = None
    max_bytes: int = 32 * 2**20


@dataclass(frozen=True)
class Site:
    """A server's parts."""

    library: "Library"
    options: Options
    uploads: Uploads
    metrics: Metrics

    def choose(self, name: str | None) -> str:
        """Return the name of the collection that is meant; whether there is one, reading tells."""
        if name is not None:
            return name
        names = self.library.collection_names()
        default = self.options.collection
        return default if default in names or not names else names[0]

    def ask(self, target: "bytes | UUID", collection: str, question: Question) -> Answer:
        """Search a collection by a picture's bytes, or by a stored image.

        Raises:
            InvalidInput: no image has the label that is asked for.

        """
        picture = {"image": target} if isinstance(target, bytes) else {"id": target}
        answer = self.library.collection(collection).query(
            **picture,
            k=question.k or DEFAULT_K,
            filters=question.filters(),
            **question.model_dump(
                include={"metric", "max_distance", "min_similarity", "exact", "exclude_self"}
            ),
        )
        self.metrics.search_seconds.observe(answer.seconds)
        if not answer.hits:
            self.require_label(collection, question.label)
        return answer

    def require_label(self, collection: str, label: str | None) -> None:
        """Refuse a label that no image has.

        Raises:
            InvalidInput: it is more likely misspelt.

        """
        if label is None:
            return
        with catalog.reading(self.library.engine, collection) as (connection, stored):
            if not gallery.has_label(connection, stored.table, label):
                raise InvalidInput(
                    f"Collection {collection!r} has no image with the label {label!r}. "
                    "Choose one of its folders' names."
                )


async def _served(request: Request) -> Site:
    site: Site = request.app.state.site
    return site


Served = Annotated[Site, Depends(_served)]
