"""The questions that the page and the API take: typed values, checked before anything runs."""

from dataclasses import fields
from datetime import date
from typing import Annotated, Any
from uuid import UUID

from fastapi import UploadFile
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from vecsearch.analysis import duplicates
from vecsearch.errors import InvalidInput
from vecsearch.imaging import formats
from vecsearch.search.embedder import Picture
from vecsearch.search.filters import Filters
from vecsearch.search.query import Query
from vecsearch.vocabulary import LONGEST_TEXT, MAX_DIFFERENCE, KeepRule, Metric

PAGE_K = 30
MAXIMUM_K = 1_000


def _given(value: Any) -> Any:
    """Treat an empty field of a form as one that was left out."""
    return None if value == "" else value


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("it holds a NUL character, which Postgres cannot store")
    return text


Optional = BeforeValidator(_given)
CollectionName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$", examples=["images"])]
# The names alone: pydantic would publish the docstring of the enumeration, too.
MetricName = Annotated[Metric, WithJsonSchema({"type": "string", "enum": list(Metric)})]
Text = Annotated[str, Field(max_length=4_096), AfterValidator(_without_nul)]
Words = Annotated[str, Field(max_length=LONGEST_TEXT), AfterValidator(_without_nul)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Distance = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Pixels = Annotated[int, Field(ge=1, le=2**31 - 1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Question(BaseModel):
    """How to search: everything but the query image."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    collection: Annotated[CollectionName | None, Optional] = None
    """The collection to search. Default: the server's."""
    k: Annotated[
        Annotated[int, Field(ge=1, le=MAXIMUM_K)] | None,
        Optional,
        Field(description=f"The number of images, at most. Default: {PAGE_K}."),
    ] = None
    metric: Annotated[MetricName | None, Optional] = None
    """Default: the collection's own."""
    max_distance: Annotated[Number | None, Optional] = None
    """Leave out images that are farther."""
    min_similarity: Annotated[
        Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)] | None, Optional
    ] = None
    """Leave out images that are less similar; cosine only."""
    exact: bool = False
    """Compare with every image, without the index."""
    exclude_self: bool = False
    """Leave out the query image itself."""
    label: Annotated[Text | None, Optional] = None
    """Only images with this label: the name of their folder."""
    date_from: Annotated[date | None, Optional] = None
    """Only images taken (or, if that is not known, last modified) on this day or later."""
    date_to: Annotated[date | None, Optional] = None
    """Only images taken (or last modified) on this day or earlier."""
    min_width: Annotated[Pixels | None, Optional] = None
    max_width: Annotated[Pixels | None, Optional] = None
    min_height: Annotated[Pixels | None, Optional] = None
    max_height: Annotated[Pixels | None, Optional] = None

    def filters(self) -> Filters:
        """Return the filters among the fields."""
        return Filters(**{field.name: getattr(self, field.name) for field in fields(Filters)})

    def query(self, target: Picture | UUID | str) -> Query:
        """Return the query for a picture, a stored image, or words.

        Every field of `Query` that anybody may set is set here; a test holds that.
        """
        return Query(
            target if isinstance(target, Picture) else None,
            id=target if isinstance(target, UUID) else None,
            text=target if isinstance(target, str) else None,
            k=self.k or PAGE_K,
            metric=self.metric,
            filters=self.filters(),
            min_similarity=self.min_similarity,
            max_distance=self.max_distance,
            exact=self.exact,
            exclude_self=self.exclude_self,
        )


class QueryForm(Question):
    """What to search for: a file, the id of a stored image, or words; and how."""

    image: Annotated[
        UploadFile | None,
        Optional,
        Field(description=f"The image file: {', '.join(formats.FORMATS)}."),
    ] = None
    id: Annotated[UUID | None, Optional] = None
    """The id of a stored image, instead of a file."""
    text: Annotated[Words | None, Optional] = None
    """A concept, such as "golden retriever", instead of a file."""

    def target(self) -> Picture | UUID | str:
        """Return what to search for.

        Raises:
            InvalidInput: there is nothing, or more than one.

        """
        match (self.image, self.id, self.text):
            case (image, None, None) if image is not None:
                return Picture(image.file.read())
            case (None, id_, None) if id_ is not None:
                return id_
            case (None, None, text) if text is not None:
                return text
        raise InvalidInput("Send one of image, id and text.")


class PageQuestion(Question):
    """The address of the search page."""

    id: Annotated[Text | None, Optional] = None
    """The stored query image: its id, or its path."""
    image: Annotated[Sha256 | None, Optional] = None
    """The uploaded query image."""
    text: Annotated[Words | None, Optional] = None
    """Words to search for, without a query image."""
    after: Annotated[UUID | None, Optional] = None
    """Without a query image: show the images of the collection that follow this one."""


class DuplicatesRule(BaseModel):
    """What counts as a near-duplicate, and which image of a group to keep."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    max_distance: Annotated[Distance | None, Optional] = None
    """The largest cosine distance of two embeddings. Default: chosen from the collection's own."""
    max_difference: Annotated[
        Distance | None,
        Optional,
        Field(description=f"The largest difference of two thumbnails. Default: {MAX_DIFFERENCE}."),
    ] = None
    mirrored: bool = False
    """Find mirrored copies, too."""
    keep: Annotated[KeepRule | None, Optional] = None
    """Mark the images of a group that could go if this one is kept."""

    def options(self) -> duplicates.Options:
        """Return the options of `Collection.duplicates`."""
        return {
            "max_distance": self.max_distance,
            "max_difference": self.max_difference,
            "mirrored": self.mirrored,
            "keep": self.keep,
        }


class DuplicatesQuestion(DuplicatesRule):
    """The address of the page of near-duplicates."""

    collection: Annotated[CollectionName | None, Optional] = None
    page: Annotated[Annotated[int, Field(ge=1, le=1_000_000)] | None, Optional] = None
