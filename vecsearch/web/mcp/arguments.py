"""What an assistant may ask: the arguments of the tools, which their schemas are made of."""

import base64
import binascii
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from vecsearch.errors import InvalidInput
from vecsearch.imaging import formats
from vecsearch.imaging.sources import remote
from vecsearch.search.query import Query
from vecsearch.search.questions.pictures import Picture
from vecsearch.search.questions.terms import Term
from vecsearch.vocabulary import MAX_UPLOAD_MB
from vecsearch.web.parameters import (
    CollectionName,
    Listed,
    Named,
    Optional,
    Several,
    Text,
    described_k,
)

# An assistant reads all of an answer, and remembers only so much.
MOST_HITS, MOST_THUMBNAILS, MOST_ROWS = 100, 20, 1_000
ROWS, THUMBNAILS = 100, 5


def _decoded(value: Any) -> bytes:
    """Return the bytes of base64, of which browsers make `data:` URLs."""
    text = value.partition(",")[2] if str(value).startswith("data:") else value
    try:
        content = base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise ValueError("it is not base64") from error
    if len(content) > MAX_UPLOAD_MB * 2**20:
        raise ValueError(f"it has more than {MAX_UPLOAD_MB} MB, the limit")
    return content


Base64 = Annotated[
    bytes,
    BeforeValidator(_decoded),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
]
PATHS = "absolute paths on the machine of this server"


class Search(Named):
    """What to search for, and how: several parts are added up to one question."""

    most = MOST_HITS

    path: Annotated[list[Text], Listed, Several] = Field(
        default_factory=list, description=f"Image files to search by: {PATHS}."
    )
    image: Annotated[list[Base64], Listed, Several] = Field(
        default_factory=list,
        description=f"Image files to search by, as base64: {', '.join(formats.NAMED)}.",
    )
    not_path: Annotated[list[Text], Listed, Several] = Field(
        default_factory=list, description=f"Image files that the hits should be unlike: {PATHS}."
    )
    where: Annotated[Text | None, Optional] = None
    """An SQL condition on the columns of the collection's table, such as
    width > 1000 AND metadata ->> 'author' = 'Ada'."""
    k: Annotated[
        Annotated[int, Field(ge=1, le=MOST_HITS)] | None,
        Optional,
        Field(description=described_k(MOST_HITS)),
    ] = None
    thumbnails: Annotated[int, Field(ge=0, le=MOST_THUMBNAILS)] = THUMBNAILS
    """Show so many of the hits as small pictures, the nearest first; 0 for none."""

    def terms(self) -> list[Term]:
        """Return the parts of the question.

        Raises:
            InvalidInput: a path names no file of this machine.

        """
        return [
            *(Term(_read(path)) for path in self.path),
            *(Term(Picture(content)) for content in self.image),
            *self.named(1),
            *(Term(_read(path), weight=-1) for path in self.not_path),
            *self.named(-1),
        ]

    def asked(self) -> Query:
        """Return the query.

        Raises:
            InvalidInput: a path names no file of this machine, or the crop is not four numbers.

        """
        return replace(self.query(self.terms()), where=self.where)


class Statement(BaseModel):
    """A statement to run, and how much of its answer to return."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    statement: Annotated[str, Field(max_length=100_000)]
    """One SQL statement that reads, in PostgreSQL's dialect."""
    limit: Annotated[int, Field(ge=1, le=MOST_ROWS)] = ROWS
    """The number of rows to return, at most."""


class Image(BaseModel):
    """Which image to look at."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    image: Text
    """Its id, or its path as it is stored."""
    collection: Annotated[CollectionName | None, Optional] = None
    """The collection that has it. Default: the server's."""
    thumbnail: bool = True
    """Show it as a small picture, too."""


class Nothing(BaseModel):
    """No arguments."""

    model_config = ConfigDict(extra="forbid")


def _read(path: str) -> Picture:
    """Return a picture of this machine's; nothing is fetched for an assistant.

    Raises:
        InvalidInput: it is a URL, no absolute path, or no file that can be read.

    """
    if remote.is_url(path):
        raise InvalidInput(
            f"{path} is a URL, and none is fetched here. Send the file's bytes as `image`."
        )
    file = Path(path)
    if not file.is_absolute():
        raise InvalidInput(f"{path} is not an absolute path. Begin it with /.")
    # A pipe or a device could keep the server waiting.
    if file.exists() and not file.is_file():
        raise InvalidInput(f"{path} is not a file. Name an image file.")
    return Picture.read(file)
