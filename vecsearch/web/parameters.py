"""What may be asked of the page and of the API: typed values, checked before anything runs."""

from dataclasses import fields
from datetime import date
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import UploadFile
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from vecsearch.search.filters import Filters

MAXIMUM_K = 1_000
Metric = Literal["cosine", "l2", "l1", "ip", "chi2"]


def _given(value: Any) -> Any:
    """Take a form's empty field for one that was left out."""
    return None if value == "" else value


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("it holds a NUL character, which Postgres cannot store")
    return text


Optional = BeforeValidator(_given)
CollectionName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$", examples=["images"])]
Text = Annotated[str, Field(max_length=4_096), AfterValidator(_without_nul)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Pixels = Annotated[int, Field(ge=1, le=2**31 - 1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Question(BaseModel):
    """How to search: everything but the picture."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    collection: Annotated[CollectionName | None, Optional] = None
    """Which collection. Default: the server's."""
    k: Annotated[Annotated[int, Field(ge=1, le=MAXIMUM_K)] | None, Optional] = None
    """How many images at most. Default: 30."""
    metric: Annotated[Metric | None, Optional] = None
    """Default: the collection's own."""
    max_distance: Annotated[Number | None, Optional] = None
    """Leave out what is farther."""
    min_similarity: Annotated[
        Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)] | None, Optional
    ] = None
    """Leave out what is less similar; cosine only."""
    exact: bool = False
    """Compare with every row, without the index."""
    exclude_self: bool = False
    """Leave out the query image's own row."""
    label: Annotated[Text | None, Optional] = None
    """Only images of this label: the name of their folder."""
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


class QueryForm(Question):
    """A picture, as a file or by the id of a stored one, and how to search."""

    image: Annotated[UploadFile | None, Optional] = None
    """The picture's file: JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC."""
    id: Annotated[UUID | None, Optional] = None
    """Of a stored image to search by, instead."""


class PageQuestion(Question):
    """The page's address."""

    id: Annotated[Text | None, Optional] = None
    """A stored image to search by: its id, or its path."""
    image: Annotated[Sha256 | None, Optional] = None
    """A picture that was uploaded."""
    after: Annotated[UUID | None, Optional] = None
    """Without a picture: show the collection's images that follow this one."""


class DuplicatesQuestion(BaseModel):
    """The duplicates page's address."""

    model_config = ConfigDict(extra="forbid")

    collection: Annotated[CollectionName | None, Optional] = None
    max_distance: Annotated[Annotated[float, Field(ge=0, allow_inf_nan=False)] | None, Optional] = (
        None
    )
    keep: Annotated[Literal["oldest", "newest", "largest", "path"] | None, Optional] = None
    page: Annotated[Annotated[int, Field(ge=1, le=1_000_000)] | None, Optional] = None
