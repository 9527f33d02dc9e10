"""The questions that the page and the API take: typed values, checked before anything runs."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import date
from typing import Annotated, Any, ClassVar
from uuid import UUID

from fastapi import UploadFile
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from vecsearch.analysis.duplicates import groups
from vecsearch.errors import InvalidInput, fault
from vecsearch.imaging import formats
from vecsearch.search.filters import Filters
from vecsearch.search.query import Query
from vecsearch.search.questions.pictures import Crop, Picture
from vecsearch.search.questions.terms import WEIGHT, Term, terms
from vecsearch.vocabulary import (
    DEFAULT_K,
    LONGEST_TEXT,
    MAX_DIFFERENCE,
    MAXIMUM_EXPANSION,
    MAXIMUM_WEIGHT,
    Axes,
    Colouring,
    KeepRule,
    Metric,
    Ranking,
)

# Kinds of faults that pydantic, or a validator here, describes better than the field; or neither.
OWN_WORDS = {"value_error", "too_long", "string_too_long"}
IN_WORDS = {"missing": "it is missing", "extra_forbidden": "there is no such field"}
# What an error repeats of a request.
LONGEST_NAME = 100
MOST_FAULTS = 10
PAGE_K = 30
MAXIMUM_K = 1_000
# Of each kind of part, in one question.
MOST_PARTS = 50
# Of duplicates, to act on at once.
MAXIMUM_SELECTED = 10_000


def _given(value: Any) -> Any:
    """Treat an empty field of a form as one that was left out."""
    return None if value == "" else value


def _listed(value: Any) -> list[Any]:
    """Treat empty fields of a form as left out, and one value as a list of one."""
    values = value if isinstance(value, list) else [value]
    return [each for each in values if each not in ("", None)]


def _weighted_id(text: str) -> str:
    if re.fullmatch(_WEIGHTED_ID, text) is None:
        raise ValueError(f"it is not an id, such as {UUID(int=0)}, or 2:{UUID(int=0)}")
    return text


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("it holds a NUL character, which Postgres cannot store")
    return text


def described_k(most: int) -> str:
    """Return what the number of hits is, if an answer has at most so many."""
    return (
        f"The number of images, at most. Default: {DEFAULT_K}; with a cut-off, every image within "
        f"it, up to {most:,}."
    )


# Where a field is in what was sent, and what it takes, as JSON schema tells it.
Place = tuple[int | str, ...]
Schema = Mapping[str, Any]
# On their way, links gather parameters that are not ours, such as utm_source.
OF_LINKS = ConfigDict(extra="ignore")
Optional = BeforeValidator(_given)
Listed = BeforeValidator(_listed)
Several = Field(max_length=MOST_PARTS)
CollectionName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$", examples=["images"])]
# The names alone: pydantic would publish the docstring of the enumeration, too.
MetricName = Annotated[Metric, WithJsonSchema({"type": "string", "enum": list(Metric)})]
RankingName = Annotated[Ranking, WithJsonSchema({"type": "string", "enum": list(Ranking)})]
AxesName = Annotated[Axes, WithJsonSchema({"type": "string", "enum": list(Axes)})]
ColouringName = Annotated[Colouring, WithJsonSchema({"type": "string", "enum": list(Colouring)})]
Text = Annotated[str, Field(max_length=4_096), AfterValidator(_without_nul)]
Words = Annotated[str, Field(max_length=LONGEST_TEXT), AfterValidator(_without_nul)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Distance = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Pixels = Annotated[int, Field(ge=1, le=2**31 - 1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Weight = Annotated[float, Field(gt=0, le=MAXIMUM_WEIGHT)]
# Each perhaps with a weight: 2:snow.
_WEIGHT = f"({WEIGHT}:)?"
_WEIGHTED_ID = f"^{_WEIGHT}[0-9a-fA-F]{{8}}(-?[0-9a-fA-F]{{4}}){{3}}-?[0-9a-fA-F]{{12}}$"
WeightedId = Annotated[
    str,
    AfterValidator(_weighted_id),
    WithJsonSchema({"type": "string", "pattern": _WEIGHTED_ID}),
]
WEIGHTED_SHA256 = f"^{_WEIGHT}[0-9a-f]{{64}}$"
WeightedSha256 = Annotated[str, Field(pattern=WEIGHTED_SHA256)]


class Question(BaseModel):
    """How to search: everything but the parts of the question."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    most: ClassVar[int] = MAXIMUM_K
    """The number of hits that an answer has, at most."""

    collection: Annotated[CollectionName | None, Optional] = None
    """The collection to search. Default: the server's."""
    k: Annotated[
        Annotated[int, Field(ge=1, le=MAXIMUM_K)] | None,
        Optional,
        Field(description=described_k(MAXIMUM_K)),
    ] = None
    metric: Annotated[MetricName | None, Optional] = None
    """Default: the collection's own."""
    max_distance: Annotated[Number | None, Optional] = None
    """Leave out images that are farther."""
    min_similarity: Annotated[
        Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)] | None, Optional
    ] = None
    """Leave out images that are less similar; cosine only."""
    crop: Annotated[Annotated[str, Field(max_length=60)] | None, Optional] = None
    """Search by this part of the first image or id: X,Y,WIDTH,HEIGHT in pixels, from the upper left
    corner of the upright picture."""
    expand: Annotated[
        Annotated[int, Field(ge=0, le=MAXIMUM_EXPANSION)] | None,
        Optional,
    ] = None
    """Add so many of the nearest images to the question, and search again; 0 for none. Default: the
    collection's own number."""
    ranking: Annotated[RankingName | None, Optional] = None
    """What orders the hits: the embeddings (full) or compact vectors. Default: the collection's."""
    exact: bool = False
    """Compare with every image, without the index."""
    exclude_self: bool = False
    """Leave out the query images themselves."""
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

    def limit(self) -> int | None:
        """Return the largest number of hits; None for the query's own default."""
        return self.most if self.is_bounded() else self.k

    def is_bounded(self) -> bool:
        """Return whether every hit within a cut-off is asked for, as many as an answer has."""
        return self.k is None and (self.max_distance, self.min_similarity) != (None, None)

    def notes(self, hits: int) -> list[str]:
        """Return what an answer with so many hits should say about what is missing."""
        if not self.is_bounded() or hits < self.most:
            return []
        most = f"Cut short after {hits:,} images, the most that an answer has"
        return [f"{most}; more may be within the cut-off. Use a closer one."]

    def filters(self) -> Filters:
        """Return the filters among the fields."""
        return Filters(**{field.name: getattr(self, field.name) for field in fields(Filters)})

    def query(self, parts: Sequence[Term]) -> Query:
        """Return the query for the parts of a question.

        Every field of `Query` that anybody may set is set here; a test holds that.

        Raises:
            InvalidInput: the crop is not four numbers.

        """
        return Query(
            terms=parts,
            crop=None if self.crop is None else Crop.parse(self.crop),
            expand=self.expand,
            ranking=self.ranking,
            k=self.limit(),
            metric=self.metric,
            filters=self.filters(),
            min_similarity=self.min_similarity,
            max_distance=self.max_distance,
            exact=self.exact,
            exclude_self=self.exclude_self,
        )


class Named(Question):
    """What to search for: ids of stored images and words, one or several; and how.

    Several are added up to one question. An id or words may have a weight: 2:snow.
    """

    id: Annotated[list[WeightedId], Listed, Several] = []
    """Ids of stored images."""
    text: Annotated[list[Words], Listed, Several] = []
    """Words: a concept such as "golden retriever", a phrase or, with a model of open_clip, any
    sentence."""
    not_id: Annotated[list[WeightedId], Listed, Several] = []
    """Ids of stored images that the hits should be unlike."""
    not_text: Annotated[list[Words], Listed, Several] = []
    """Words that the hits should be unlike."""

    def named(self, sign: int) -> list[Term]:
        """Return the ids and words of one sign."""
        if sign > 0:
            return terms(ids=self.id, texts=self.text)
        return terms(ids=self.not_id, texts=self.not_text, sign=-1)


class QueryForm(Named):
    """What to search for: files, ids of stored images and words, one or several; and how.

    Several are added up to one question. An id or words may have a weight: 2:snow.
    """

    image: Annotated[
        list[UploadFile],
        Listed,
        Several,
        Field(description=f"Image files: {', '.join(formats.NAMED)}."),
    ] = []
    not_image: Annotated[list[UploadFile], Listed, Several] = []
    """Image files that the hits should be unlike."""
    image_weight: Annotated[list[Weight], Listed, Several] = []
    """The weight of each `image`, in their order; none for 1 each."""
    not_image_weight: Annotated[list[Weight], Listed, Several] = []
    """The weight of each `not_image`, in their order; none for 1 each."""
    full_sql: bool = False
    """Write vectors out in `sql`; otherwise psql's variables stand for them: :'q1'."""

    def terms(self) -> list[Term]:
        """Return the parts of the question.

        Raises:
            InvalidInput: there are weights, but not one for each file.

        """
        return [
            *_files("image", self.image, self.image_weight),
            *self.named(1),
            *_files("not_image", self.not_image, self.not_image_weight, sign=-1),
            *self.named(-1),
        ]


class PageQuestion(Question):
    """The address of the search page; each part may have a weight: 2:snow."""

    model_config = OF_LINKS

    id: Annotated[list[Text], Listed, Several] = []
    """Stored images: their ids, or paths."""
    image: Annotated[list[WeightedSha256], Listed, Several] = []
    """Uploaded pictures."""
    text: Annotated[list[Text], Listed, Several] = []
    """Words."""
    not_id: Annotated[list[Text], Listed, Several] = []
    not_image: Annotated[list[WeightedSha256], Listed, Several] = []
    not_text: Annotated[list[Text], Listed, Several] = []
    after: Annotated[UUID | None, Optional] = None
    """Without a question: show the images of the collection that follow this one."""
    before: Annotated[UUID | None, Optional] = None
    """Without a question: show the images of the collection that precede this one."""
    exclude_self: bool = True
    """Leave out the query images themselves: they are beside the hits."""

    def limit(self) -> int:
        """Return the largest number of hits."""
        return self.k or PAGE_K


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

    def options(self) -> groups.Options:
        """Return the options of `Collection.duplicates`."""
        return {
            "max_distance": self.max_distance,
            "max_difference": self.max_difference,
            "mirrored": self.mirrored,
            "keep": self.keep,
        }


class DuplicatesQuestion(DuplicatesRule):
    """The address of the page of near-duplicates."""

    model_config = OF_LINKS

    collection: Annotated[CollectionName | None, Optional] = None
    page: Annotated[Annotated[int, Field(ge=1, le=1_000_000)] | None, Optional] = None


class MapRule(BaseModel):
    """Where on a map the images are, and which share a colour."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    by: AxesName = Axes.likeness
    """likeness, as `vecsearch refresh map` placed them, or place: longitude and latitude."""
    colour: ColouringName = Colouring.label
    """label, or cluster, as `vecsearch refresh clusters` made them."""


class MapQuestion(MapRule):
    """The address of the page of the map."""

    model_config = OF_LINKS

    collection: Annotated[CollectionName | None, Optional] = None


def taken(model: type[BaseModel]) -> dict[Place, Schema]:
    """Return what each field of a model takes, by its place."""
    return {(name,): each for name, each in model.model_json_schema()["properties"].items()}


def faulty(faults: Iterable[tuple[Place, str, str, Schema | None]]) -> str:
    """Return a sentence about fields that are not as they should be.

    Args:
        faults: the place, the kind and the message of each, as pydantic tells them, and what the
            field takes, if it is known.

    """
    said = []
    for place, kind, why, schema in list(faults)[:MOST_FAULTS]:
        wanted = "" if kind in OWN_WORDS else _wanted(schema)
        name = ".".join(map(str, place))[:LONGEST_NAME] or "request"
        said.append(f"{name}: {IN_WORDS.get(kind) or (f'give {wanted}' if wanted else fault(why))}")
    # A form chooses its encoding, so names may hold lone surrogates.
    return f"{'; '.join(said).encode(errors='replace').decode()}."


def _wanted(schema: Schema | None) -> str:
    """Return what a field takes, as a phrase; empty if that is not simple."""
    one = schema or {}
    # A field that may be left out is a choice of its kind and null; a list is of one kind.
    for kind in one.get("anyOf", ()):
        one = kind if kind.get("type") != "null" else one
    one = one.get("items", one)
    least, most, above = map(one.get, ("minimum", "maximum", "exclusiveMinimum"))
    between = "" if least is None else f" of at least {least:,}"
    if least is not None and most is not None:
        between = f" from {least:,} to {most:,}"
    if above is not None and most is not None:
        between = f" above {above:,}, up to {most:,}"
    if "enum" in one:
        return f"{', '.join(one['enum'][:-1])} or {one['enum'][-1]}"
    if one.get("pattern") == WEIGHTED_SHA256:
        return "the name that an uploaded picture got here"
    return {
        "date": "a day such as 2024-05-31",
        "uuid": f"an id such as {UUID(int=0)}",
        "integer": f"a whole number{between}",
        "number": f"a number{between}",
        "boolean": "true or false",
    }.get(one.get("format") or one.get("type", ""), "")


def _files(
    name: str, files: list[UploadFile], weights: list[float], *, sign: int = 1
) -> Iterator[Term]:
    """Yield a term for each file of a field of this name."""
    if weights and len(weights) != len(files):
        raise InvalidInput(
            f"Fields {name}: {len(files)}, fields {name}_weight: {len(weights)}. "
            "Send a weight for each file, in the same order, or none."
        )
    for file, weight in zip(files, weights or [1.0] * len(files), strict=True):
        yield Term(Picture(file.file.read()), weight=sign * weight)
