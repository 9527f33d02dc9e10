"""Contact sheets: pictures of results."""

import io
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vecsearch import images
from vecsearch.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image as Picture

    from vecsearch.encoders.training import Epoch
    from vecsearch.queries.nearest import Hit

TILE = 224
CAPTION = 44
MARGIN = 16
COLUMNS = 6


def contact_sheet(
    query: Path | bytes, hits: "Sequence[Hit]", *, title: str, max_pixels: int
) -> "Picture":
    """Draw the query, then each hit with its rank, distance and file name.

    A hit whose file cannot be read is drawn as a grey tile that says so.
    """
    import PIL.Image
    from PIL import ImageDraw, ImageFont

    columns = min(COLUMNS, max(len(hits), 1) + 1)
    rows = math.ceil((len(hits) + 1) / columns)
    cell = (TILE + MARGIN, TILE + CAPTION + MARGIN)
    header = 44
    sheet = PIL.Image.new(
        "RGB", (columns * cell[0] + MARGIN, rows * cell[1] + MARGIN + header), "white"
    )
    draw = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(18), ImageFont.load_default(14)
    draw.text((MARGIN, MARGIN), _fit(draw, title, large, sheet.width - 2 * MARGIN), "black", large)
    tiles: list[tuple[Path | bytes, str, str]] = [
        (query, "query", "" if isinstance(query, bytes) else query.name)
    ]
    tiles += [
        (Path(hit.path), f"{hit.rank}.  {hit.distance:.4f}", Path(hit.path).name) for hit in hits
    ]
    for position, (source, caption, name) in enumerate(tiles):
        x = MARGIN + position % columns * cell[0]
        y = MARGIN + header + position // columns * cell[1]
        tile = _tile(source, max_pixels)
        if tile is None:
            draw.rectangle((x, y, x + TILE, y + TILE), fill="#d0d0d0")
            draw.text((x + 12, y + TILE / 2 - 8), "The file cannot be read", "#404040", small)
        else:
            sheet.paste(tile, (x + (TILE - tile.width) // 2, y + (TILE - tile.height) // 2))
        if position == 0:
            draw.rectangle((x - 4, y - 4, x + TILE + 3, y + TILE + 3), outline="#d02020", width=3)
        draw.text((x, y + TILE + 5), caption, "#d02020" if position == 0 else "black", large)
        draw.text((x, y + TILE + 27), _fit(draw, name, small, TILE), "#606060", small)
    return sheet


def save_picture(picture: "Picture", path: Path) -> None:
    """Write a picture in the format its suffix names, whole or not at all.

    Raises:
        InvalidInput: the suffix names no format, or the file cannot be written.

    """
    buffer = io.BytesIO()
    try:
        picture.save(buffer, format=picture_format(path))
        path.write_bytes(buffer.getvalue())
    except InvalidInput:
        raise
    except Exception as error:  # each format has its own way to say that it cannot
        raise InvalidInput(
            f"{path} cannot be written: {getattr(error, 'strerror', None) or error}. "
            "Choose another file; .png suits any size."
        ) from error


def picture_format(path: Path) -> str:
    """Return Pillow's name of the format that a file's suffix asks for.

    Raises:
        InvalidInput: none that can be written.

    """
    import PIL.Image

    formats = PIL.Image.registered_extensions()
    found = formats.get(path.suffix.lower())
    if found is None or found not in PIL.Image.SAVE:
        raise InvalidInput(f"{path} names no picture format by its suffix. Use .png.")
    return found


def require_picture_file(path: Path) -> None:
    """Check that a picture can be written to `path`, before the work that draws it.

    Raises:
        InvalidInput: its suffix names no format, or its folder cannot be written to.

    """
    picture_format(path)
    if not os.access(path.absolute().parent, os.W_OK):
        raise InvalidInput(
            f"The folder {path.absolute().parent} cannot be written to. Choose another file."
        )


def _tile(source: Path | bytes, max_pixels: int) -> "Picture | None":
    image = (
        images.decode(source, "the query", max_pixels=max_pixels)
        if isinstance(source, bytes)
        else images.load(str(source), max_pixels=max_pixels)
    )
    if isinstance(image, images.Unreadable):
        return None
    tile = image.pixels
    scale = TILE / max(tile.size)
    width, height = (max(1, round(side * scale)) for side in tile.size)
    return tile.resize((width, height))


def _fit(draw: Any, text: str, font: Any, width: int) -> str:
    text = " ".join(text.split())
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength(f"{text}…", font) > width:
        text = text[:-1]
    return f"{text}…"


def training_sheet(
    epochs: "Sequence[Epoch]",  # noqa: ARG001 - a stub
    originals: "NDArray[np.uint8]",
    drawn: "NDArray[np.uint8]",
    *,
    title: str,  # noqa: ARG001 - a stub
) -> "Picture":
    """Stand in for the other helper's drawing: originals above reconstructions."""
    import numpy as np
    import PIL.Image

    return PIL.Image.fromarray(
        np.concatenate([np.concatenate([*row], axis=1) for row in (originals, drawn)])
    )
