"""A query of words as a picture, where sheets and reports show the query image."""

import io

from vecsearch.imaging.thumbnails import SIDE

LARGEST, SMALLEST = 56, 14
MARGIN = 24


def card_of(text: str) -> bytes:
    """Return a picture of words, as PNG: as large as fits, a word a line if need be."""
    import PIL.Image
    from PIL import ImageDraw, ImageFont

    picture = PIL.Image.new("RGB", (SIDE, SIDE), (241, 245, 249))
    draw = ImageDraw.Draw(picture)
    lines = "\n".join(text.split())
    for size in range(LARGEST, SMALLEST - 1, -2):
        font = ImageFont.load_default(size=size)
        left, top, right, bottom = draw.multiline_textbbox((0, 0), lines, font=font)
        if max(right - left, bottom - top) <= SIDE - 2 * MARGIN:
            break
    middle = (SIDE / 2, SIDE / 2)
    draw.multiline_text(middle, lines, (15, 23, 42), font=font, anchor="mm", align="center")
    written = io.BytesIO()
    picture.save(written, format="PNG")
    return written.getvalue()
