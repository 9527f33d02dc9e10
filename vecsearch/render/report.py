"""A query's answer as one page: opened anywhere, it asks the network for nothing."""

import base64
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from vecsearch import images
from vecsearch.files import written_whole
from vecsearch.render.rows import human_bytes
from vecsearch.render.thumbnails import thumbnails

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    from vecsearch.search import Answer

SIDE = 320
# About 15 MB of thumbnails, which a browser still opens with ease.
MOST_HITS = 1000


def html_report(query: Path | bytes, answer: "Answer", *, collection: str, max_pixels: int) -> str:
    """Return a page with the query, thumbnails of the hits, their distances, and the SQL that ran.

    A picture that cannot be read says so in its place. Of more hits than `MOST_HITS` the first
    are shown, and the page says that.
    """
    hits = answer.hits[:MOST_HITS]
    sources = [query, *(Path(hit.path) for hit in hits)]
    pictures = thumbnails(sources, SIDE, SIDE, max_pixels=max_pixels)
    query_picture, *hit_pictures = map(_shown, pictures)
    environment = Environment(
        loader=PackageLoader("vecsearch.render", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"bytes": human_bytes, "words": _words}
    return environment.get_template("report.html.jinja").render(
        query=query_picture,
        query_path=None if isinstance(query, bytes) else images.shown(str(query)),
        hits=[
            (hit, Path(hit.path).name, picture)
            for hit, picture in zip(hits, hit_pictures, strict=True)
        ],
        found=len(answer.hits),
        answer=answer,
        collection=collection,
    )


def save_report(page: str, path: Path) -> None:
    """Write a page, whole or not at all.

    Raises:
        InvalidInput: it cannot be written.

    """
    with written_whole(path) as partial:
        partial.write_bytes(page.encode())


def _words(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _shown(picture: "Picture | images.Unreadable") -> dict[str, Any]:
    """Return a thumbnail as the template shows it: a data URI and its size, or a reason."""
    if isinstance(picture, images.Unreadable):
        return {"reason": picture.reason}
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=80)
    content = base64.b64encode(buffer.getvalue()).decode()
    return {
        "reason": None,
        "uri": f"data:image/webp;base64,{content}",
        "width": picture.width,
        "height": picture.height,
    }
