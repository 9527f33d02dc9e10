"""A question as a picture, where sheets and reports show the query image."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from vecsearch.errors import ImageNotFound
from vecsearch.imaging import pictures
from vecsearch.imaging.pictures import Made, Wanted
from vecsearch.imaging.thumbnails import SIDE
from vecsearch.search.questions.originals import open_original
from vecsearch.search.questions.pictures import Picture

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

    from vecsearch.search.gallery import StoredImage
    from vecsearch.search.questions.terms import Term

LARGEST, SMALLEST = 56, 14
MARGIN = 24
PAPER, INK = "#f1f5f9", "#0f172a"
# The height of a line, in that of its letters; the widest line of words, before it is shortened.
LEADING, UNBOUNDED = 1.3, 1_000_000
# What is searched for, and what the hits should be unlike.
LIKE, UNLIKE = (21, 128, 61), (185, 28, 28)
GAP, SIGN = 8, 26


def question_card(
    terms: "Sequence[Term]",
    images: "Mapping[str, StoredImage]",
    stored: Mapping[UUID, bytes],
    *,
    max_pixels: int,
) -> bytes:
    """Return a picture of a question, as PNG: one tile a part, each with its sign and weight.

    Args:
        terms: the parts of the question.
        images: the stored images that parts name, by `Term.name`.
        stored: thumbnails by id.
        max_pixels: larger images are not read.

    """
    import PIL.Image

    if len(terms) == 1:
        return _png(_tile(terms[0], images, stored, SIDE, max_pixels))
    columns = math.ceil(math.sqrt(len(terms)))
    side = (SIDE - (columns - 1) * GAP) // columns
    rows = math.ceil(len(terms) / columns)
    card = PIL.Image.new("RGB", (SIDE, rows * (side + GAP) - GAP), (255, 255, 255))
    for number, term in enumerate(terms):
        place = (number % columns * (side + GAP), number // columns * (side + GAP))
        tile = _tile(term, images, stored, side, max_pixels)
        card.paste(_signed(tile, term.weight, side), place)
    return _png(card)


def _tile(
    term: "Term",
    images: "Mapping[str, StoredImage]",
    stored: Mapping[UUID, bytes],
    side: int,
    max_pixels: int,
) -> "Pixels":
    """Return a part of the question as a picture within a square."""
    import PIL.Image

    if term.text is not None:
        return _words(term.text, side)
    picture = term.image
    if picture is None:
        image = images[term.name]
        shown = None if term.crop is not None else stored.get(image.id)
        picture = _original(image) if shown is None else shown
        if picture is None:
            return _words(term.name, side)
    source = pictures.of_bytes(Picture.read(picture).content, term.name)
    wanted = Wanted(fit=(side, side), crop=None if term.crop is None else term.crop.box)
    made = pictures.make(source, wanted, max_pixels=max_pixels)
    if not isinstance(made, Made) or made.fitted is None:
        return _words(term.name, side)
    small = made.fitted
    tile = PIL.Image.new("RGB", (side, side), PAPER)
    tile.paste(small, ((side - small.width) // 2, (side - small.height) // 2))
    return tile


def _original(image: "StoredImage") -> bytes | None:
    """Return the bytes of a stored image's file; None if it is gone or has changed."""
    try:
        with open_original(image) as file:
            return file.read()
    except ImageNotFound:
        return None


def _signed(tile: "Pixels", weight: float, side: int) -> "Pixels":
    """Return a tile with a mark: green and plus for what to find, red and minus for the rest."""
    from PIL import ImageDraw, ImageFont

    colour = LIKE if weight > 0 else UNLIKE
    number = "" if abs(weight) == 1 else f"{abs(weight):g}"
    draw = ImageDraw.Draw(tile)
    font = ImageFont.load_default(size=SIGN)
    box, middle, arm = SIGN + GAP, (SIGN + GAP) / 2, SIGN / 3
    draw.rectangle((0, 0, box + draw.textlength(number, font=font), box), fill=colour)
    # Drawn, because the font has no minus sign.
    draw.line((middle - arm, middle, middle + arm, middle), PAPER, width=3)
    if weight > 0:
        draw.line((middle, middle - arm, middle, middle + arm), PAPER, width=3)
    draw.text((box - GAP / 2, middle), number, PAPER, font=font, anchor="lm")
    draw.rectangle((0, 0, side - 1, side - 1), outline=colour, width=3)
    return tile


def _words(text: str, side: int) -> "Pixels":
    """Return words as a picture, a word a line: as large as fits, the longest shortened."""
    from vecsearch.render.canvas import Canvas

    lines, room = text.split(), side - 2 * MARGIN
    scratch = Canvas(side, side)
    widest = max(
        (scratch.text(0, 0, line, size=LARGEST, width=UNBOUNDED) for line in lines), default=1
    )
    tallest = LARGEST * LEADING * len(lines)
    size = max(SMALLEST, int(LARGEST * min(1, room / max(widest, tallest, 1))))
    canvas = Canvas(side, side, PAPER)
    top = side / 2 - size * LEADING * (len(lines) / 2 - 0.75)
    for number, line in enumerate(lines):
        y = round(top + number * size * LEADING)
        canvas.text(side // 2, y, line, size=size, width=room, colour=INK, align="center")
    return canvas.pixels()


def _png(picture: "Pixels") -> bytes:
    written = io.BytesIO()
    picture.save(written, format="PNG")
    return written.getvalue()
