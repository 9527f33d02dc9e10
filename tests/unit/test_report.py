"""The HTML report is one self-contained file, and escapes file names."""

import base64
import io
from dataclasses import dataclass, field
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import PIL.Image
import pytest
from support import hit, picture

from vecsearch.errors import InvalidInput
from vecsearch.render import report, saving
from vecsearch.search.query import Answer, Hit
from vecsearch.search.questions.terms import Term, summed
from vecsearch.vocabulary import Metric, Ranking, parse

SCRIPT = '"><script>alert(1)</script>'


@dataclass
class Page(HTMLParser):
    """What a browser would make of a page: its elements with their attributes, and its text."""

    source: str
    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    text: str = ""
    preformatted: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "pre":
            self.preformatted.append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.lasttag == "pre" and self.preformatted and data.strip():
            self.preformatted[-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page(query: Path | bytes, hits: list[Hit], metric: str = "cosine", **found: Any) -> Page:
    told = {"sql": "SELECT 1 < 2;", "plan": "Limit  ->  Seq Scan", "uses_index": False}
    statement = SimpleNamespace(**{name: found.pop(name, value) for name, value in told.items()})
    plain: dict[str, Any] = {"metric": parse(Metric, metric), "candidates": None, "seconds": 0.0}
    answer = Answer(hits, statement=statement, **plain | found)
    return Page(report.html_report(query, answer, collection="cats", max_pixels=1_000_000))


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for number, path in enumerate(paths):
        picture(number).save(path)
    return paths


def test_the_query_and_each_hit_are_pictures_inside_the_page(files: list[Path]) -> None:
    images = page(files[0], [hit(number, files[number]) for number in (1, 2, 3)]).all("img")
    assert [image["alt"] for image in images] == [
        "The query picture",
        "Hit 1: 1.png",
        "Hit 2: 2.png",
        "Hit 3: 3.png",
    ]
    for number, image in enumerate(images):
        start, _, content = (image["src"] or "").partition(",")
        assert start == "data:image/jpeg;base64"
        with PIL.Image.open(io.BytesIO(base64.b64decode(content))) as thumbnail:
            assert thumbnail.size == (320, 240)
            assert (image["width"], image["height"]) == ("320", "240")
            one = thumbnail.convert("RGB").resize((4, 4), PIL.Image.Resampling.BOX)
            original = picture(number).resize((4, 4), PIL.Image.Resampling.BOX)
            pairs = zip(one.tobytes(), original.tobytes(), strict=True)
            assert max(abs(a - b) for a, b in pairs) < 40


def test_a_query_given_as_bytes_is_shown(files: list[Path]) -> None:
    by_file, by_bytes = page(files[0], []), page(files[0].read_bytes(), [])
    assert by_file.all("img")[0]["src"] == by_bytes.all("img")[0]["src"]


def test_a_hit_that_was_imported_without_its_file_is_on_the_page(files: list[Path]) -> None:
    unknown = hit(1, files[1], width=None, height=None, format=None, file_size=None)
    assert "imported without its file" in page(files[0], [unknown]).text


def test_the_page_says_that_candidates_were_ranked_again(files: list[Path]) -> None:
    hits = [hit(1, files[1])]
    by_index = page(files[0], hits, "chi2", uses_index=True, candidates=1000).text
    assert "1,000 candidates by cosine, found by the HNSW index; then ranked by chi2." in by_index
    assert "Answered by the HNSW index." in page(files[0], hits, uses_index=True).text
    compact: dict[str, Any] = {"ranking": Ranking.compact, "dims": 32, "expansion": 10}
    assert (
        "Answered by an exact scan: every row is compared. Ranked by 32 principal components, "
        "for the question and its 10 nearest images."
    ) in page(files[0], hits, **compact).text


def test_a_hit_tells_all_that_is_known_of_it(files: list[Path]) -> None:
    known = hit(
        1,
        files[1],
        label="tabby",
        file_size=2048,
        taken_at=datetime(2023, 1, 2, 3, 4),  # noqa: DTZ001 - a camera's time has no zone
        metadata={"caption": "a cat", "tags": ["é", 2]},
    )
    text = " ".join(page(files[0], [known]).text.split())
    for words in (
        "1 distance 0.0100 similarity 0.9900 tabby",
        str(files[1]),
        "64 × 48 PNG, 2.0 kB, taken 2023-01-02 03:04",
        "caption a cat",
        'tags ["é", 2]',
        "1 image, nearest first",
    ):
        assert words in text, words


def test_without_a_similarity_none_is_told(files: list[Path]) -> None:
    text = page(files[0], [hit(1, files[1], similarity=None)], metric="l2").text
    assert "Metric: l2" in text
    assert "similarity 0" not in text
    assert "similarity is" not in text


@pytest.mark.parametrize(
    ("uses_index", "words"), [(True, "by the HNSW index"), (False, "by an exact scan")]
)
def test_the_sql_and_how_it_was_answered_are_there(
    files: list[Path], uses_index: bool, words: str
) -> None:
    sql = f"SELECT '{SCRIPT}' <=> 1 &amp; 2;\n-- é"
    shown = page(files[0], [], sql=sql, plan="Limit (a < b)", uses_index=uses_index)
    assert shown.preformatted == [sql, "Limit (a < b)"]
    assert f"Answered {words}" in shown.text
    assert "No image matches." in shown.text


def test_what_cannot_be_read_says_so_in_its_place(files: list[Path]) -> None:
    files[1].unlink()
    files[0].write_bytes(b"not a picture")
    shown = page(files[0], [hit(1, files[1]), hit(2, files[2])])
    assert [image["alt"] for image in shown.all("img")] == ["Hit 2: 2.png"]
    assert shown.text.count("The file cannot be read") == 2
    assert "No such file or directory." in shown.text


def test_nothing_that_is_shown_can_write_html(files: list[Path]) -> None:
    folder = files[0].parent / SCRIPT
    folder.mkdir(parents=True)
    odd = folder / "<img src=x onerror=alert(1)>.png"
    picture(9).save(odd)
    bad = hit(1, odd, label=SCRIPT, format=SCRIPT, metadata={SCRIPT: SCRIPT, "a": [SCRIPT]})
    shown = page(odd, [bad], sql=SCRIPT, plan=SCRIPT)
    assert not shown.all("script")
    assert [image["alt"] for image in shown.all("img")] == [
        "The query picture",
        f"Hit 1: {odd.name}",
    ]
    assert not any("onerror" in attributes for _, attributes in shown.elements)
    assert str(odd) in shown.text
    assert shown.text.count("<script>alert(1)") >= 6


def test_the_parts_of_a_question_are_named(files: list[Path]) -> None:
    parts = [
        Term("photos/a.jpg"),
        Term("x/<b>.jpg", weight=-2.5),
        Term(text=f"star{'fish' * 20}"),
        Term(b"picture"),
    ]
    line = summed(parts)
    assert line == (f'+ a.jpg, \N{MINUS SIGN}2.5 <b>.jpg, + "star{"fish" * 8}fis…", + the picture')
    assert summed(parts * 5).endswith(", + the picture and 12 more")
    assert summed(parts[:1]) == ""
    answer = Answer(
        [], Metric.cosine, None, 0.0, SimpleNamespace(sql="", plan="", uses_index=False)
    )
    written = report.html_report(
        files[0], answer, collection="cats", parts=line, max_pixels=1_000_000
    )
    shown = Page(written)
    assert f"Nearest in cats: {line}" in shown.text
    assert shown.text.replace("\u200b", "").count(line) == 2
    assert not shown.all("b")


def test_a_file_name_that_is_not_utf8_is_shown_escaped(files: list[Path], tmp_path: Path) -> None:
    odd = files[0].rename(tmp_path / "caf\udce9.png")
    shown = page(odd, [])
    assert r"caf\xe9.png" in shown.text
    report.save_report(shown.source, tmp_path / "page.html")


def test_the_page_asks_the_network_for_nothing(files: list[Path]) -> None:
    shown = page(files[0], [hit(1, files[1], metadata={"url": "https://example.org/"})])
    for _, attributes in shown.elements:
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            value = attributes.get(name) or "#"
            assert value.startswith(("data:", "#")), value
    assert "url(" not in shown.source
    assert "@import" not in shown.source
    (policy,) = [meta for meta in shown.all("meta") if "http-equiv" in meta]
    assert (policy["content"] or "").startswith("default-src 'none'")


def test_the_page_is_whole_and_says_its_language(files: list[Path]) -> None:
    shown = page(files[0], [hit(1, files[1])])
    assert shown.source.startswith("<!doctype html>\n")
    assert shown.all("html") == [{"lang": "en"}]
    assert [name for name, _ in shown.elements].count("h1") == 1
    assert shown.source.rstrip().endswith("</html>")


def test_more_hits_than_a_page_holds_are_owned_up_to(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "MOST_HITS", 2)
    shown = page(files[0], [hit(number, files[number]) for number in (1, 2, 3)])
    assert "The first 2 of 3 images are shown" in shown.text
    assert len(shown.all("li")) == 2


@pytest.mark.parametrize("name", ["page", "page.png", "page.html.txt", "gone/page.html"])
def test_a_place_where_no_page_can_be_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match=r"Use \.html\.|does not exist"):
        saving.require_report_file(tmp_path / name)


def test_a_page_is_written_over_an_older_one(tmp_path: Path) -> None:
    file = tmp_path / "page.HTML"
    file.write_text("old")
    saving.require_report_file(file)
    report.save_report("<p>é", file)
    assert file.read_bytes() == "<p>é".encode()
    assert list(tmp_path.iterdir()) == [file]
