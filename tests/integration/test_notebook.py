"""What a notebook shows of an answer: stored thumbnails, and no file is opened."""

import base64
import io
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import PIL.Image
import pytest
from support import PixelEncoder, hit, ingest, picture

from vecsearch.config import Settings
from vecsearch.errors import DatabaseUnavailable
from vecsearch.library import Library
from vecsearch.postgres import database
from vecsearch.render.notebook import MOST_HITS, Drawn
from vecsearch.vocabulary import Metric

ODD = '<b>&"\u202e.png'


class Page(HTMLParser):
    """The elements of a page, each with its attributes, and its lines of text."""

    def __init__(self, answer: Drawn) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(answer._repr_html_())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def images(self) -> list[bytes]:
        sources = [attributes["src"] or "" for tag, attributes in self.elements if tag == "img"]
        assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
        return [base64.b64decode(source.partition(",")[2]) for source in sources]


@pytest.fixture
def answer(library: Library, photos: Path) -> Drawn:
    """Return the three images nearest to one; their files are gone, and one has an odd name."""
    picture(30).save(photos / "cats" / ODD)
    ingest(library.engine, [photos], PixelEncoder())
    shutil.rmtree(photos)
    found = library.collection().query(id=str(photos / "cats" / ODD), k=3)
    assert isinstance(found, Drawn)
    return found


def test_hits_are_drawn_in_order_from_stored_thumbnails(library: Library, answer: Drawn) -> None:
    page = Page(answer)
    stored = library.collection().thumbnails(hit.id for hit in answer)
    assert page.images() == [stored[hit.id] for hit in answer]
    assert PIL.Image.open(io.BytesIO(page.images()[0])).size == (64, 48)
    assert page.text[:3] == ['1. <b>&"\\u202e.png', "cats", "similarity 1.000"]
    assert len(page.text) == 9
    titles = [attributes["title"] for tag, attributes in page.elements if tag == "figure"]
    assert titles[1:] == [hit.path for hit in answer.hits[1:]]
    assert {tag for tag, _ in page.elements} == {"div", "figure", "figcaption", "img", "span"}


def test_other_metrics_show_distances(library: Library, answer: Drawn) -> None:
    found = library.collection().query(id=answer.hits[1].id, k=1, metric="l2")
    assert isinstance(found, Drawn)
    assert Page(found).text[2] == "distance 0.0000"


def test_without_thumbnails_there_are_names(library: Library, answer: Drawn) -> None:
    with library.sql("DELETE FROM vecsearch_internal.thumbnails", write=True):
        pass
    page = Page(answer)
    assert page.images() == []
    assert len(page.text) == 9


def test_many_hits_are_not_all_drawn_and_their_number_is_printed(answer: Drawn) -> None:
    many = [replace(answer.hits[0], rank=rank) for rank in range(1, MOST_HITS + 4)]
    page = Page(replace(answer, hits=many))
    assert len(page.images()) == MOST_HITS
    assert page.text[-1] == "and 3 more hits"
    assert Page(replace(answer, hits=[])).text == ["No hits."]


def test_a_collection_that_is_gone_leaves_names_and_the_reason(
    library: Library, answer: Drawn
) -> None:
    library.collection().drop()
    page = Page(answer)
    assert page.images() == []
    assert page.text[-1].startswith("No thumbnails. There is no collection 'images'")


def test_a_label_cannot_write_html() -> None:
    image = replace(hit(1, Path("/photos/1.png")), label="<script>")
    drawn = Drawn([image], Metric.cosine, None, 0.0, None, thumbnails=lambda _: {})  # type: ignore[arg-type]  # no hit
    assert Page(drawn).text[1] == "<script>"


def test_a_closed_library_is_not_started_again(photos: Path, tmp_path: Path) -> None:
    settings = Settings.load(data_dir=tmp_path / "data")
    with Library.open(settings) as library:
        library.upgrade()
        ingest(library.engine, [photos], PixelEncoder())
        found = library.collection().query(id=str(photos / "cats" / "01.png"), k=2)
    assert isinstance(found, Drawn)
    assert Page(found).text[-1].startswith("No thumbnails. The library is closed.")
    with pytest.raises(DatabaseUnavailable, match="is closed"), database.reading(library.engine):
        pass
