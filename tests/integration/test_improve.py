"""eval --improve: on the packaged network, and what cannot be judged."""

import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray
from support import clustered, make_corpus, once
from typer.testing import CliRunner

from vecsearch.analysis import improve, labels, trials
from vecsearch.analysis.improve import JudgedBy
from vecsearch.analysis.sampling import Labelling
from vecsearch.analysis.trials import Questions, Setting
from vecsearch.cli import app
from vecsearch.demo.scenes import SCENES
from vecsearch.encoders.base import PACKAGED_MODEL
from vecsearch.errors import InvalidInput
from vecsearch.library import Library
from vecsearch.postgres import catalog
from vecsearch.vocabulary import Ranking


@pytest.fixture
def scenes(library: Library, tmp_path: Path) -> Library:
    """Six scenes, drawn four times, with others shining through; embedded by a real network."""
    names = sorted(SCENES)
    for number, name in enumerate(names[:6]):
        for seed in range(4):
            other = SCENES[names[6 + (number + seed) % 6]](Random(seed))
            file = tmp_path / "scenes" / name / f"{seed}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.blend(SCENES[name](Random(seed)), other, 0.45).save(file)
    library.collection().ingest(tmp_path / "scenes", model=PACKAGED_MODEL)
    return library


@once
def test_rankings_are_tried_on_real_embeddings_and_copies_are_looked_for(scenes: Library) -> None:
    images = scenes.collection()
    result = images.improve(k=3)
    assert (result.judged_by, result.images) == (JudgedBy.labels, 24)
    assert (result.choosing, result.reporting) == (12, 12)
    # What is in use scores as `eval` says.
    evaluated = images.evaluate(k=3)
    now = result.trial(result.now).overall
    assert now.precision == pytest.approx(evaluated.precision)
    assert now.map == pytest.approx(evaluated.map)
    better = result.trial(Setting(Ranking.compact, 16, 5)).overall
    assert better.map > now.map + 0.02
    # Twelve queries are too few to tell it from chance.
    assert result.best == result.now
    assert images.improve(k=3) == result
    assert images.improve(k=3, seed=1) != result

    copies = images.improve(labelling=None)
    assert (copies.judged_by, copies.k) == (JudgedBy.variants, 1)
    assert (copies.choosing, copies.reporting) == (72, 72)
    found = {trial.setting.expansion: trial for trial in copies.trials if not trial.setting.dims}
    # An expanded query moves from its original to what looks alike.
    assert found[20].overall.map < found[0].overall.map
    assert found[0].overall.precision > 0.7


@once
def test_the_command_prints_every_trial_in_every_format(library: Library) -> None:
    make_corpus(library, "images", clustered(60, 24, seed=1))
    words = ["eval", "images", "--improve", "-k", "5", "--database-url", library.url]
    printed = {
        name: CliRunner().invoke(app, [*words, "--format", name], env={"COLUMNS": "80"})
        for name in ("table", "csv", "json")
    }
    assert {done.exit_code for done in printed.values()} == {0}
    found = json.loads(printed["json"].stdout)
    assert [(row["ranking"], row["dims"], row["expansion"]) for row in found["trials"]] == [
        (ranking, dims, expansion)
        for ranking, dims in (("full", None), ("compact", 16))
        for expansion in (0, 5, 10, 20)
    ]
    lines = printed["csv"].stdout.splitlines()
    assert lines[0].startswith("ranking,dims,expansion,choosing_precision@5,choosing_map,")
    assert len(lines) == 1 + len(found["trials"])
    assert len(printed["table"].stdout.split("compact")) == 1 + 4
    assert "30 of 60 images chose the best; 30 others report scores, " in printed["table"].stderr
    alone = CliRunner().invoke(app, ["eval", "images", "--apply", "--database-url", library.url])
    assert alone.exit_code == 2


@once
def test_a_large_collection_is_searched_in_part(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_corpus(library, "images", clustered(60, 24, seed=1))
    monkeypatch.setattr("vecsearch.ingest.staging.block_rows", lambda _: 7)
    monkeypatch.setattr(improve, "MAXIMUM_NUMBERS", 24 * 40)
    monkeypatch.setattr(improve, "MAXIMUM_DISTANCES", 40 * 30)
    seen: list[tuple[NDArray[np.float32], Questions]] = []
    run = trials.run

    def watched(embeddings: Any, questions: Questions, **options: Any) -> Any:
        seen.append((embeddings, questions))
        return run(embeddings, questions, **options)

    monkeypatch.setattr(trials, "run", watched)
    result = library.collection().improve()
    assert (result.images, result.left_out) == (40, 20)
    assert result.choosing + result.reporting == 30
    ((embeddings, questions),) = seen
    with catalog.reading(library.engine, "images") as (connection, stored):
        images = labels.read_images(connection, stored.table, None)
        every = labels.read_embeddings(connection, stored.table, [image.id for image in images])
    # Each embedding still has its own image's label.
    places = [int(np.flatnonzero((every == row).all(axis=1))[0]) for row in embeddings]
    assert places == sorted(set(places))
    names = sorted({images[place].label for place in places})
    assert [images[place].label for place in places] == [
        names[number] for number in questions.row_classes
    ]


@once
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "l2"}, "Add --metric cosine"),
        ({"labelling": Labelling(regex="^(nothing)")}, "Too few images of images share a label"),
        ({"labelling": Labelling(regex=r"(\d+)")}, "Too few images of images share a label"),
        # Rows of other programs have no thumbnails to alter.
        ({"labelling": None}, "have a label or a thumbnail"),
    ],
)
def test_what_cannot_be_judged_is_refused(
    library: Library, options: dict[str, object], message: str
) -> None:
    make_corpus(library, "images", clustered(30, 8, seed=1))
    with pytest.raises(InvalidInput, match=message):
        library.collection().improve(**options)  # type: ignore[arg-type]  # by parameters
