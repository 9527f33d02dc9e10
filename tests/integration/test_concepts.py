"""Searching by words: which concepts they mean, and that the nearest images to those are found."""

import re
import shutil
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
from numpy.typing import NDArray
from pgvector import HalfVector
from support import (
    Corpus,
    citus,
    clustered,
    every_server,
    make_corpus,
    once,
    save_weights,
    scalar,
    write,
)
from web_support import NOTHING, ask, client

from vecsearch.encoders.sentences import source
from vecsearch.encoders.sentences.encoder import SentenceEncoder
from vecsearch.errors import InvalidInput
from vecsearch.library import Library
from vecsearch.postgres import database, tables
from vecsearch.search.filters import Filters
from vecsearch.search.questions.terms import Term

pytestmark = citus

# As in ImageNet, "crane" are two.
NAMES = [
    ("crane", ["wading bird"]),
    ("crane", []),
    ("analog clock", []),
    ("wall clock", []),
    ("beacon", ["lighthouse", "Pharos"]),
    ("lighthouse keeper", []),
]
DEFINITIONS = {
    "lighthouse keeper": "somebody who lives by the sea and, perhaps, keeps a bird",
    "analog clock": "a clock that displays the time of day by its hands",
}


@pytest.fixture
def vectors() -> NDArray[np.float64]:
    return clustered(400, 32, seed=0)


@pytest.fixture
def words() -> NDArray[np.float16]:
    return np.random.default_rng(1).normal(0, 1, (len(NAMES), 32)).astype(np.float16)


@pytest.fixture
def corpus(library: Library, vectors: NDArray[np.float64], words: NDArray[np.float16]) -> Corpus:
    made = make_corpus(library, "images", vectors)
    with database.writing(library.engine) as connection:
        for number, ((name, synonyms), vector) in enumerate(zip(NAMES, words, strict=True)):
            connection.execute(
                sa.insert(tables.concepts).values(
                    encoder="0" * 64,
                    number=number,
                    name=name,
                    synonyms=synonyms,
                    definition=DEFINITIONS.get(name, f"a {name}"),
                    embedding=HalfVector(vector),
                    bias=0.5,
                )
            )
    return made


def distances(vectors: NDArray[np.float64], word: NDArray[np.floating]) -> NDArray[np.float64]:
    target = word.astype(np.float64)
    cosines = vectors @ target / np.linalg.norm(vectors, axis=1) / np.linalg.norm(target)
    return np.asarray(1 - cosines, np.float64)


@every_server
@pytest.mark.parametrize("index", ["hnsw", "compact", "none"])
def test_a_word_finds_the_images_nearest_to_its_concept(
    corpus: Corpus, vectors: NDArray[np.float64], words: NDArray[np.float16], index: str
) -> None:
    corpus.library.collection().create_index(index)
    expected = distances(vectors, words[2])
    answer = corpus.library.query(text="  Analog  CLOCK ", k=10)
    assert list(answer.concepts) == ["analog clock"]
    assert [hit.width for hit in answer] == np.argsort(expected)[:10].tolist()
    np.testing.assert_allclose([hit.distance for hit in answer], np.sort(expected)[:10], atol=1e-5)
    with corpus.library.sql(answer.sql.split(";")[-3].strip()) as (_, rows, _):
        assert [row[1] for row in rows] == [hit.path for hit in answer]


@once
@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("crane", [0, 1]),  # a name of two
        ("wading bird", [0]),  # a synonym
        ("lighthouse", [4]),  # a synonym, before it is a part of a name
        ("CLOCK", [2, 3]),  # a part of two
        ("keeper", [5]),
        ("1", [1]),
        ("wall_clocks", [3]),  # as files are named, and a plural
        ("Cranes", [0, 1]),  # a plural of a name
        ("keeps birds", [5]),  # in any form and order, of a definition
    ],
)
def test_names_count_before_synonyms_and_those_before_descriptions(
    corpus: Corpus,
    vectors: NDArray[np.float64],
    words: NDArray[np.float16],
    text: str,
    numbers: list[int],
) -> None:
    answer = corpus.library.query(text=text, k=7)
    both = {0: "crane (0)", 1: "crane (1)"} if len(numbers) == 2 else {}
    assert list(answer.concepts) == [both.get(number, NAMES[number][0]) for number in numbers]
    expected = np.min([distances(vectors, words[number]) for number in numbers], axis=0)
    assert [hit.width for hit in answer] == np.argsort(expected)[:7].tolist()
    near = corpus.library.query(text=text, max_distance=float(np.sort(expected)[4]) + 1e-6)
    assert [hit.width for hit in near] == np.argsort(expected)[:5].tolist()
    few = corpus.library.query(text=text, k=3, filters=Filters(label="c3"))
    assert [hit.width for hit in few] == [row for row in np.argsort(expected) if row % 20 == 3][:3]


@pytest.fixture
def without_phrases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "available", lambda: False)


@once
def test_a_phrase_means_a_mixture_of_the_concepts_nearest_to_it(
    corpus: Corpus,
    vectors: NDArray[np.float64],
    words: NDArray[np.float16],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library = corpus.library
    embed = SentenceEncoder.embed

    def watched(encoder: SentenceEncoder, texts: list[str]) -> NDArray[np.float32]:
        assert library.engine.pool.checkedout() == 0, "a connection waits for the encoder"  # type: ignore[attr-defined]  # a QueuePool's
        return embed(encoder, texts)

    monkeypatch.setattr(SentenceEncoder, "embed", watched)
    answer = library.query(text="an instrument to know how late it is", k=7)
    assert set(answer.concepts[:2]) == {"analog clock", "wall clock"}
    assert answer.meaning is not None
    found = re.findall(r"([a-z ()0-9]+) (\d+)%", answer.meaning.partition(": ")[2])
    names = {"crane (0)": 0, "crane (1)": 1, **{NAMES[each][0]: each for each in range(2, 6)}}
    shares = {names[name.strip()]: int(share) / 100 for name, share in found}
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert sum(shares.values()) == pytest.approx(1, abs=0.03)
    units = words.astype(np.float64)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    # The sentence rounds the shares.
    mixed = sum(share * units[number] for number, share in shares.items())
    expected = np.sort(distances(vectors, np.asarray(mixed)))[:7]
    np.testing.assert_allclose([hit.distance for hit in answer], expected, atol=0.01)
    api = client(library)
    asked = ask(api, text="an instrument to know how late it is", k=7)
    assert [hit["id"] for hit in asked["hits"]] == [str(hit.id) for hit in answer]
    assert (asked["concepts"], asked["meaning"]) == (list(answer.concepts), answer.meaning)
    page = api.get("/", params={"text": "an instrument to know how late it is"})
    assert answer.meaning in page.text
    with pytest.raises(InvalidInput, match="is none of the 6 concepts"):
        library.query(text="xyzzyqwf")


@once
def test_a_sum_says_what_each_part_is_taken_for(corpus: Corpus) -> None:
    image = Term(id=corpus.ids[0], weight=-2.5)
    terms = [Term(text="crane"), Term(text="wall clock", weight=-1), image]
    answer = corpus.library.query(terms=terms)
    assert answer.meaning == (
        "Searched for what is like the mean of 2 concepts (crane (0), crane (1)); unlike the "
        f"concept wall clock; unlike 2.5 × image {corpus.ids[0]}."
    )
    pictures = [Term(id=corpus.ids[0]), Term(id=corpus.ids[1])]
    assert corpus.library.query(terms=pictures).meaning is None


@once
@pytest.mark.usefixtures("without_phrases")
def test_what_words_cannot_do_is_said(corpus: Corpus) -> None:
    library = corpus.library
    with pytest.raises(InvalidInput, match=r"'clok' is none of the 6 concepts .* wall clock"):
        library.query(text="clok")
    with pytest.raises(InvalidInput, match=r"The closest concepts: analog clock"):
        library.query(text="a photo of an analog thing")
    for text in ("lock", "a.*", "s", "the"):
        with pytest.raises(
            InvalidInput, match=r"none of the 6 .* 'vecsearch\[phrases\]'.*open_clip"
        ):
            library.query(text=text)
    for text in (" ", "x" * 201):
        with pytest.raises(InvalidInput, match="1 to 200 characters"):
            library.query(text=text)
    with pytest.raises(InvalidInput, match="compared by cosine, not by l2"):
        library.query(text="crane", metric="l2")
    with pytest.raises(InvalidInput, match="A part of a question is"):
        library.query(text="crane", id=corpus.ids[0])
    make_corpus(library, "layered", clustered(20, 8, seed=1))
    write(library, "UPDATE collections SET layer = 'layer3' WHERE name = 'layered'")
    with pytest.raises(InvalidInput, match="'layered' has no concepts"):
        library.collection("layered").query(text="crane")


@every_server
def test_analysts_order_by_a_concept(
    corpus: Corpus, vectors: NDArray[np.float64], words: NDArray[np.float16]
) -> None:
    library = corpus.library
    statement = "SELECT width FROM images ORDER BY embedding <=> concept('Wading BIRD') LIMIT 5"
    with library.sql(statement) as (_, rows, _):
        found = [row[0] for row in rows]
    assert found == np.argsort(distances(vectors, words[0]))[:5].tolist()
    with database.reading(library.engine) as connection:
        connection.execute(sa.text("SET LOCAL enable_seqscan = off"))
        plan = connection.scalars(sa.text(f"EXPLAIN {statement}")).all()
    assert any("images_embedding_hnsw" in line for line in plan), plan
    assert scalar(library, "SELECT concept('1') = concept('1', 'images')")
    for word, said in (("crane", "name of 2 concepts"), ("clok", 'no concept "clok"')):
        with (
            pytest.raises(sa.exc.DBAPIError, match=said) as caught,
            library.engine.connect() as connection,
        ):
            connection.execute(sa.text(f"SELECT concept('{word}')"))
        assert isinstance(caught.value.orig, psycopg.errors.RaiseException)


@once
def test_concepts_stay_as_long_as_a_collection_of_their_encoder(
    corpus: Corpus, tmp_path: Path
) -> None:
    library = corpus.library
    make_corpus(library, "others", clustered(20, 32, seed=1))
    library.dump(tmp_path / "one.dump", collection="images")
    library.collection().drop()
    assert scalar(library, "SELECT count(*) FROM concepts") == len(NAMES)
    library.collection("others").drop()
    assert scalar(library, "SELECT count(*) FROM concepts") == 0
    library.restore(tmp_path / "one.dump")
    assert list(library.query(text="keeper", k=1).concepts) == ["lighthouse keeper"]


@once
def test_a_new_collection_has_its_classifiers_words(
    library: Library, photos: Path, small_model: str, weights: Path, tmp_path: Path
) -> None:
    images = library.collection()
    weights_here = Path(shutil.copy(weights, tmp_path / "here.safetensors"))
    images.ingest([photos], model=small_model, weights=weights_here)
    listed = images.concepts()
    assert len(listed) == 1_000
    assert listed[207].name == "golden retriever"
    assert listed[207].definition == "an English breed having a long silky golden coat"
    assert listed[0].synonyms == ["Tinca tinca"]
    assert len(images.query(text="golden retriever").hits) == 10
    # An older collection has none until it is asked for them.
    write(library, "DELETE FROM concepts")
    with pytest.raises(InvalidInput, match="vecsearch concepts --collection images"):
        images.query(text="golden retriever")
    assert images.concepts() == listed
    # Another file in the place of the weights says nothing of this encoder.
    write(library, "DELETE FROM concepts")
    save_weights(weights_here, small_model, seed=1)
    assert images.concepts() == []
    library.collection("layers").ingest([photos], model=f"{small_model}.layer1", weights=weights)
    assert library.collection("layers").concepts() == []


@once
@pytest.mark.usefixtures("without_phrases")
def test_the_api_and_the_page_take_words(corpus: Corpus) -> None:
    api = client(corpus.library)
    expected = [str(hit.id) for hit in corpus.library.query(text="keeper", k=3)]
    assert [hit["id"] for hit in ask(api, text="keeper", k=3)["hits"]] == expected
    assert "none of the 6 concepts" in ask(api, 400, text="clok")["detail"]
    page = api.get("/", params={"text": "clock", "metric": "l2", "k": 5})
    assert page.status_code == 200
    assert "2 concepts" in page.text
    assert "<option selected>cosine<" in page.text
    assert page.text.count('data-distance="') == 5
    # A click on a hit asks for that image, and not for the words any more.
    links = re.findall(r'class="tile" href="/\?([^"]*id=[^"]*)"', page.text)
    assert links
    assert not any("text=" in link for link in links)
    refused = api.get("/", params={"text": "clok"})
    assert (refused.status_code, 'value="clok"' in refused.text) == (400, True)


@once
def test_typed_words_lead_to_an_address_of_their_own(corpus: Corpus) -> None:
    answer = client(corpus.library).post(
        "/",
        params={"max_distance": "0.1", "label": "c3", "id": NOTHING},
        data={"text": " Keeper "},
        files={"image": ("", b"", "application/octet-stream")},
    )
    assert answer.status_code == 303
    question = parse_qs(urlsplit(answer.headers["location"]).query)
    assert question == {"collection": ["images"], "label": ["c3"], "text": ["Keeper"]}
