"""The parts of a question, as people write them: pictures, stored images, words, each weighted."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from uuid import UUID

from vecsearch.errors import InvalidInput
from vecsearch.files import said_if_slow
from vecsearch.search.questions.pictures import Crop, Given, Picture
from vecsearch.vocabulary import LONGEST_TEXT, MAXIMUM_WEIGHT

# As people write it, before a colon.
WEIGHT = r"[0-9]{1,6}(?:\.[0-9]{1,6})?"
# Characters of a part's name, and parts, that one line shows.
LONGEST_NAME = 40
MOST_NAMED = 8


@dataclass(frozen=True)
class Term:
    """One part of a question: exactly one of `image`, `id` and `text`, with its weight.

    Attributes:
        image, id, text, crop: see `Query`.
        weight: what its normalised vector is multiplied by; negative to search for its opposite.

    """

    image: "Given | None" = None
    _: KW_ONLY
    id: UUID | str | None = None
    text: str | None = None
    crop: Crop | None = None
    weight: float = 1.0

    @property
    def name(self) -> str:
        """The term, as a person reads it."""
        if self.text is not None or self.id is not None:
            return str(self.text if self.text is not None else self.id)
        path = self.image.path if isinstance(self.image, Picture) else self.image
        return Path(path).name if isinstance(path, str | Path) else "the picture"

    @property
    def sign(self) -> str:
        """Its sign, and its weight unless that is 1."""
        weight = abs(self.weight)
        sign = "+" if self.weight > 0 else "\N{MINUS SIGN}"
        return sign if weight == 1 else f"{sign}{weight:g}"

    @property
    def signed(self) -> str:
        """The term with its sign; words are in quotes."""
        shown = self.name if len(self.name) <= LONGEST_NAME else f"{self.name[: LONGEST_NAME - 1]}…"
        named = shown if self.text is None else f'"{shown}"'
        return f"{self.sign} {named}"

    def check(self) -> None:
        """Check what needs neither a picture nor a database.

        Raises:
            InvalidInput: it names nothing, or more than one thing, or its weight is no number.

        """
        named = sum(target is not None for target in (self.image, self.id, self.text))
        if not named:
            raise InvalidInput("There is nothing to search for. Give an image, an id or words.")
        if named > 1:
            raise InvalidInput(
                "A part of a question is an image, an id or words. Give exactly one of these."
            )
        if self.text is not None and not 0 < len(self.text.strip()) <= LONGEST_TEXT:
            raise InvalidInput(f"The text to search for needs 1 to {LONGEST_TEXT} characters.")
        if self.text is not None and self.crop is not None:
            raise InvalidInput("A crop is a part of a picture, not of words. Omit it.")
        if not math.isfinite(self.weight) or not 0 < abs(self.weight) <= MAXIMUM_WEIGHT:
            raise InvalidInput(
                f"The weight of {self.name} is {self.weight:g}. Give a number above 0, up to "
                f"{MAXIMUM_WEIGHT}."
            )


def summed(parts: Sequence[Term]) -> str:
    """Return the parts of a question in a line: + a.jpg, + 2 "starfish"; empty for one."""
    if len(parts) == 1:
        return ""
    line = ", ".join(part.signed for part in parts[:MOST_NAMED])
    left = len(parts) - MOST_NAMED
    return line if left <= 0 else f"{line} and {left} more"


def terms(
    images: Iterable[Given] = (),
    ids: Iterable[str] = (),
    texts: Iterable[str] = (),
    *,
    sign: int = 1,
) -> list[Term]:
    """Return the parts of a question as people write them, each perhaps with a weight: `2:snow`.

    Args:
        images: files; one that has a name such as `2:a.jpg` has no weight.
        ids: ids of stored images.
        texts: words.
        sign: -1 for what the question should not be.

    """
    found = []
    for image in images:
        weight, rest = 1.0, image
        if isinstance(image, str):
            with said_if_slow(Path(image)):
                is_file = Path(image).exists()
            if not is_file:
                weight, rest = weighted(image)
        found.append(Term(rest, weight=sign * weight))
    for id_ in ids:
        weight, rest = weighted(id_)
        found.append(Term(id=rest, weight=sign * weight))
    for text in texts:
        weight, rest = weighted(text)
        found.append(Term(text=rest, weight=sign * weight))
    return found


def weighted(text: str) -> tuple[float, str]:
    """Return the weight and the rest of `2:snow`; the weight is 1 if there is none."""
    found = re.fullmatch(rf"({WEIGHT}):(.+)", text, re.DOTALL)
    return (1.0, text) if found is None else (float(found[1]), found[2])
