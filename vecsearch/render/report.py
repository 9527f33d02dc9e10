"""The answer to a query as one HTML file, which loads nothing from the network."""

import base64
import io
import json
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vecsearch.files import written_whole
from vecsearch.imaging import scan, thumbnails
from vecsearch.imaging.pictures import fitted
from vecsearch.render import templates

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from PIL.Image import Image as Picture

    from vecsearch.search.query import Answer

# About 15 MB of thumbnails, which browsers still open easily.
MOST_HITS = 1000


def html_report(
    query: Path | bytes,
    answer: "Answer",
    *,
    collection: str,
    parts: str = "",
    max_pixels: int,
    stored: "Mapping[UUID, bytes]" = MappingProxyType({}),
    query_thumbnail: bytes | None = None,
) -> str:
    """Return a page with the query image, thumbnails of the hits, their distances, and the SQL.

    Args:
        query: the query image.
        answer: its hits; the page shows at most `MOST_HITS`, and a note if there are more.
        collection: the name of the collection.
        parts: the parts of the question, in a line, if there are several.
        max_pixels: larger images are not read.
        stored: thumbnails by id. The files of other hits are read; the page says which cannot be.
        query_thumbnail: of the query image; None: the file is read.

    """
    hits = answer.hits[:MOST_HITS]
    sources = [query, *(Path(hit.path) for hit in hits)]
    kept = [query_thumbnail, *(stored.get(hit.id) for hit in hits)]
    files = [source for source, thumbnail in zip(sources, kept, strict=True) if thumbnail is None]
    side = thumbnails.SIDE
    drawn = fitted(files, side, side, max_pixels=max_pixels)
    query_picture, *hit_pictures = (
        _shown(_drawn(next(drawn)) if thumbnail is None else thumbnail) for thumbnail in kept
    )
    environment = templates.environment("vecsearch.render", "")
    environment.filters["words"] = _words
    return environment.get_template("report.html.jinja").render(
        query=query_picture,
        query_path=None if isinstance(query, bytes) else scan.shown(str(query)),
        hits=[
            (hit, Path(hit.path).name, picture)
            for hit, picture in zip(hits, hit_pictures, strict=True)
        ],
        found=len(answer.hits),
        answer=answer,
        collection=collection,
        parts=parts,
    )


def save_report(page: str, path: Path) -> None:
    """Write a page, completely or not at all.

    Raises:
        InvalidInput: the file cannot be written.

    """
    with written_whole(path) as partial:
        partial.write_bytes(page.encode())


def _words(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _drawn(picture: "Picture | scan.Unreadable") -> bytes | scan.Unreadable:
    return picture if isinstance(picture, scan.Unreadable) else thumbnails.make(picture)


def _shown(thumbnail: bytes | scan.Unreadable) -> dict[str, Any]:
    """Return what the template needs of a thumbnail: a data URI and its size, or a reason."""
    import PIL.Image

    if isinstance(thumbnail, scan.Unreadable):
        return {"reason": thumbnail.reason}
    with PIL.Image.open(io.BytesIO(thumbnail)) as picture:
        width, height = picture.size
    content = base64.b64encode(thumbnail).decode()
    return {
        "reason": None,
        "uri": f"data:{thumbnails.media_type(thumbnail)};base64,{content}",
        "width": width,
        "height": height,
    }
