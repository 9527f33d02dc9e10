"""An answer as a notebook shows it: a row of thumbnails, without a file or the network."""

import base64
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from html import escape
from uuid import UUID

from vecsearch.errors import VecsearchError
from vecsearch.imaging.thumbnails import media_type
from vecsearch.render.figures import human_number
from vecsearch.render.visible import visible
from vecsearch.search.query import Answer, Hit
from vecsearch.vocabulary import counted

# About a megabyte in the notebook's file.
MOST_HITS = 50
# Pixels. Colours are the notebook's own, whether it is light or dark.
WIDTH, HEIGHT = 128, 96
_ROW = "display:flex;flex-wrap:wrap;gap:12px;align-items:flex-end;line-height:1.35"
_TILE = f"margin:0;width:{WIDTH}px;font-size:12px"
_IMAGE = f"display:block;margin:0 auto 4px;max-width:{WIDTH}px;max-height:{HEIGHT}px"
_LINE = "display:block;overflow:hidden;text-overflow:ellipsis;white-space:nowrap"
_SOFT = f"{_LINE};opacity:.7"


@dataclass(frozen=True)
class Drawn(Answer):
    """An answer that draws itself in a notebook.

    Attributes:
        thumbnails: returns stored thumbnails by id; called when it draws, and the library must
            still be open then.

    """

    _: KW_ONLY
    thumbnails: Callable[[Iterable[UUID]], dict[UUID, bytes]] = field(repr=False, compare=False)

    def _repr_html_(self) -> str:
        """Return thumbnails of the nearest hits, with their names, labels and similarities."""
        shown = self.hits[:MOST_HITS]
        drawn: Mapping[UUID, bytes] = {}
        notes = []
        try:
            drawn = self.thumbnails([hit.id for hit in shown]) if shown else {}
        except VecsearchError as error:
            notes.append(f"No thumbnails. {error}")
        if not shown:
            notes.append("No hits.")
        if more := len(self.hits) - len(shown):
            notes.append(f"and {counted(more, 'more hit')}")
        tiles = "".join(_tile(hit, drawn.get(hit.id)) for hit in shown)
        said = "".join(f"<div>{escape(visible(note))}</div>" for note in notes)
        return f'<div><div style="{_ROW}">{tiles}</div>{said}</div>'


def _tile(hit: Hit, thumbnail: bytes | None) -> str:
    path = escape(visible(hit.path, keep=""))
    name = escape(visible(os.path.basename(hit.path), keep=""))  # noqa: PTH119 - URLs, too
    near = (
        f"distance {human_number(hit.distance)}"
        if hit.similarity is None
        else f"similarity {hit.similarity:.3f}"
    )
    image = ""
    if thumbnail is not None:
        content = base64.b64encode(thumbnail).decode()
        source = f"data:{media_type(thumbnail)};base64,{content}"
        image = f'<img src="{source}" alt="" style="{_IMAGE}">'
    label = escape(visible(hit.label, keep=""))
    return (
        f'<figure title="{path}" style="{_TILE}">{image}<figcaption>'
        f'<span style="{_LINE}">{hit.rank}. {name}</span>'
        f'<span style="{_SOFT}">{label}</span><span style="{_SOFT}">{near}</span>'
        "</figcaption></figure>"
    )
