"""The parts of sheets: a heading, tiles with images in them, captions."""

import textwrap
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from vecsearch.imaging.pictures import fitted
from vecsearch.imaging.scan import Unreadable
from vecsearch.render.canvas import BLUE, GREY, MOUNT, SOFT, Canvas
from vecsearch.render.figures import human_number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from uuid import UUID

    from PIL.Image import Image as Picture

    from vecsearch.search.query import Hit

# All in pixels.
TILE = 320
GAP = 32
CAPTION = 88
MARGIN = 72
HEADER = 128

NONE: "Mapping[UUID, bytes]" = MappingProxyType({})


def hit_pictures(
    hits: "Sequence[Hit]", stored: "Mapping[UUID, bytes]", side: int, max_pixels: int
) -> "Iterator[Picture | Unreadable]":
    """Yield an image for each hit, from its stored thumbnail or its file."""
    sources = (stored.get(hit.id, Path(hit.path)) for hit in hits)
    return fitted(sources, side, side, max_pixels=max_pixels)


def draw_head(sheet: Canvas, title: str, below: str) -> None:
    """Draw the title, and a line below it."""
    width = sheet.width - 2 * MARGIN
    sheet.text(MARGIN, MARGIN + 36, title, size=52, width=width, weight="bold")
    sheet.text(MARGIN, MARGIN + 84, below, size=28, width=width, colour=SOFT)


def draw_tile(
    sheet: Canvas,
    corner: tuple[int, int],
    size: tuple[int, int],
    picture: "Picture | Unreadable",
    frame: str | None = None,
) -> None:
    """Draw a picture in the middle of a box, or the reason why it cannot be read."""
    (x, y), (width, height) = corner, size
    if isinstance(picture, Unreadable):
        sheet.block(x, y, width, height, GREY)
        reason = textwrap.wrap(picture.reason, 30, max_lines=4, placeholder="…")
        for line, text in enumerate(["The file cannot be read", *reason]):
            sheet.text(
                x + width // 2,
                y + height // 2 + 30 * (line - len(reason) // 2),
                text,
                size=18 if line else 20,
                width=width - 16,
                align="center",
            )
    else:
        sheet.block(x, y, width, height, MOUNT)
        sheet.picture(x + (width - picture.width) // 2, y + (height - picture.height) // 2, picture)
    if frame is not None:
        sheet.frame(x, y, width, height, frame)


def draw_query_caption(sheet: Canvas, x: int, y: int, width: int, query: Path | bytes) -> None:
    """Draw the caption of the query image below y."""
    sheet.text(x, y + 40, "Query", size=26, width=width, colour=BLUE, weight="bold")
    if isinstance(query, Path):
        sheet.text(x, y + 74, short_path(query), size=22, width=width, colour=SOFT)


def draw_hit_caption(sheet: Canvas, x: int, y: int, hit: "Hit") -> None:
    """Draw rank, distance, similarity and file of a hit below y."""
    y += 40
    rank = sheet.text(x, y, str(hit.rank), size=26, width=TILE, weight="bold")
    sheet.text(x + rank + 14, y, human_number(hit.distance), size=26, width=TILE - rank - 14)
    if hit.similarity is not None:
        similarity = f"sim. {hit.similarity:.4f}"
        sheet.text(x + TILE, y, similarity, size=22, width=TILE // 2, colour=SOFT, align="right")
    sheet.text(x, y + 34, short_path(Path(hit.path)), size=22, width=TILE, colour=SOFT)


def short_path(path: Path) -> str:
    """Return the name of the folder and of the file, as files in many folders share names."""
    return "/".join(part.strip("/") for part in path.absolute().parts[-2:])
