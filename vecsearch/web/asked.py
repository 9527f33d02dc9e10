"""The question as the page shows it: its parts, as the address of the page names them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING
from uuid import UUID

from vecsearch.errors import InvalidInput
from vecsearch.imaging import formats, pictures
from vecsearch.search.gallery import StoredImage
from vecsearch.search.questions.pictures import Crop
from vecsearch.search.questions.terms import Term, weighted
from vecsearch.web.parameters import PageQuestion
from vecsearch.web.uploads import Uploads

if TYPE_CHECKING:
    from vecsearch.library import Collection


@dataclass(frozen=True)
class Part:
    """A part of the question.

    Attributes:
        field, value: the parameter of the address that names it.
        term: what is searched for.
        name: what to call it.
        thumbnail: the address of its thumbnail; None for words.
        image: the stored image; None for words, and for an upload that is not in the collection.
        size: width and height of the upright picture; None for words, and if it is not known.

    """

    field: str
    value: str
    term: Term
    name: str
    thumbnail: str | None = None
    image: StoredImage | None = None
    size: tuple[int, int] | None = None

    @property
    def is_like(self) -> bool:
        """Whether the hits should be like it, rather than unlike."""
        return self.term.weight > 0


@dataclass(frozen=True)
class Asked:
    """A question of at least one part.

    Attributes:
        parts: what to search for first, then what the hits should be unlike.
        crop: the part of the first picture by which to search.

    """

    parts: tuple[Part, ...]
    crop: Crop | None

    @property
    def is_single(self) -> bool:
        """Whether there is one part."""
        return len(self.parts) == 1

    @property
    def has_chips(self) -> bool:
        """Whether to list its parts, so that each can be removed."""
        return not self.is_single or not self.parts[0].is_like

    @property
    def by_cosine(self) -> bool:
        """Whether only cosine can compare it."""
        return not self.is_single or self.parts[0].term.text is not None

    @property
    def terms(self) -> list[Term]:
        """What is searched for."""
        return [part.term for part in self.parts]

    @property
    def picture(self) -> Part | None:
        """The picture to show, of which a part may be searched by: the first one."""
        pictures = (part for part in self.parts if part.thumbnail is not None and part.is_like)
        return next(pictures, None)

    @property
    def image(self) -> StoredImage | None:
        """The stored image that is searched by, alone."""
        return self.parts[0].image if self.is_single else None

    @property
    def ids(self) -> set[UUID]:
        """The ids of the stored images in it."""
        return {part.image.id for part in self.parts if part.image is not None}

    @property
    def name(self) -> str:
        """The question as a title."""
        if not self.has_chips:
            return self.parts[0].name
        words = []
        for part in self.parts:
            weight = abs(part.term.weight)
            words.append("+" if part.is_like else "\N{MINUS SIGN}")
            words.append(part.name if weight == 1 else f"{weight:g} × {part.name}")
        return " ".join(words).removeprefix("+ ")

    def canonical(self, question: PageQuestion) -> PageQuestion:
        """Return the question with ids in the place of paths, as the links of hits name images."""
        fields = ("id", "not_id")
        ids = {field: [p.value for p in self.parts if p.field == field] for field in fields}
        return question.model_copy(update=ids)

    def found(self, collection: str, image: StoredImage) -> "Asked":
        """Return the question for the stored image with the content of the only upload."""
        [part] = self.parts
        stored = _stored(collection, image, part.field, 1, part.term)
        return replace(self, parts=(replace(stored, value=part.value),))


def read(question: PageQuestion, collection: "Collection", uploads: Uploads) -> Asked | None:
    """Return what the address of a page asks for; None if it asks for nothing.

    Raises:
        ImageNotFound: a picture does not exist.
        Unclear: several images have such a path.

    """
    parts = tuple(
        part
        for prefix, sign in (("", 1), ("not_", -1))
        for part in _parts(question, prefix, sign, collection, uploads)
    )
    if not parts:
        return None
    try:
        crop = None if question.crop is None else Crop.parse(question.crop)
    except InvalidInput:
        crop = None  # the search refuses it
    return Asked(parts, crop)


def _parts(
    question: PageQuestion, prefix: str, sign: int, collection: "Collection", uploads: Uploads
) -> Iterator[Part]:
    """Yield the parts of one sign, in the order of `vecsearch.search.query.terms`."""
    for value in getattr(question, field := f"{prefix}image"):
        weight, sha256 = weighted(value)
        picture = uploads.find(sha256)
        yield Part(
            field,
            value,
            Term(picture, weight=sign * weight),
            "Your picture",
            f"/uploads/{sha256}",
            size=pictures.size_of(picture.content),
        )
    for value in getattr(question, field := f"{prefix}id"):
        weight, name = weighted(value)
        image = collection.image(name.strip())
        term = Term(id=image.id, weight=sign * weight)
        yield _stored(collection.name, image, field, weight, term)
    for value in getattr(question, field := f"{prefix}text"):
        weight, text = weighted(value)
        yield Part(field, value, Term(text=text, weight=sign * weight), text)


def _stored(collection: str, image: StoredImage, field: str, weight: float, term: Term) -> Part:
    return Part(
        field,
        str(image.id) if weight == 1 else f"{weight:g}:{image.id}",
        term,
        PurePath(image.path).name,
        f"/api/collections/{collection}/images/{image.id}/thumbnail",
        image,
        None if image.width is None or image.height is None else (image.width, image.height),
    )


def is_name(text: str) -> bool:
    """Return whether somebody typed an image's id or path, or the end of one, rather than words."""
    name = weighted(text)[1]
    try:
        UUID(name)
    except ValueError:
        return name.startswith("/") or PurePath(name).suffix.lower() in formats.SUFFIXES
    return True
