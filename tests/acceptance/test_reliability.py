"""Short forms of the scripts in tests/reliability, whose figures are in docs/reliability.md."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from reliability.contents import compare, contents
from reliability.figures import tries
from reliability.frame import Workshop, kill, workshop
from reliability.kills import Kills, Templates, cases
from reliability.together import Together
from support import picture

PICTURES = 240
KILLS = 2


@pytest.fixture(scope="module")
def shop(
    tmp_path_factory: pytest.TempPathFactory,
    environment: dict[str, str],
    small_model: str,
    weights: Path,
) -> Iterator[Workshop]:
    """A workshop that runs the command from the wheel on drawn pictures."""
    drawn = tmp_path_factory.mktemp("drawn")
    for number in range(PICTURES):
        file = drawn / f"label {number % 8}" / f"{number:04}.png"
        file.parent.mkdir(exist_ok=True)
        picture(number).save(file)
    with workshop(drawn) as shop:
        shop.environment = environment
        shop.encoder = ("--model", small_model, "--weights", str(weights))
        yield shop


@pytest.mark.slow
def test_ingests_that_are_killed_or_meet_store_each_picture_once(shop: Workshop) -> None:
    templates = Templates(shop)
    whole = Kills(shop, cases(shop, templates)["ingest, more pictures"]).expected()
    ingest = ("ingest", shop.photos)
    moments = random.Random(5)
    # The server stays up, so that what a killed command leaves behind is not swept by a restart.
    with shop.copy(templates.begun()) as place, place.url() as url:
        for _ in range(KILLS):
            goal = _count(url) + moments.randrange(1, 60)
            process = place.start(*ingest)
            while process.poll() is None and _count(url) < goal:
                pass
            assert kill(process, group=True)
        killed = _count(url)
        assert killed < whole.rows.images()
        summary = json.loads(place.must(*ingest).stdout)
        assert summary["unchanged"] == killed
        assert not compare(contents(url), whole.rows).words
    meeting = Together(shop, templates.begun, [ingest, ingest], known=whole.rows)
    assert tries("two ingests", meeting, times=1).failures == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["index create hnsw", "import compact"])
def test_a_command_that_is_killed_is_repeated_and_loses_nothing(shop: Workshop, name: str) -> None:
    case = cases(shop, Templates(shop, vectors=3_000, dimensions=64))[name]
    assert tries(name, Kills(shop, case), times=1, seed=2).failures == []


def _count(url: str) -> int:
    with psycopg.connect(url) as connection:
        (there,) = connection.execute("SELECT to_regclass('images') IS NOT NULL").fetchone() or [0]
        if not there:
            return 0
        (count,) = connection.execute("SELECT count(*) FROM images").fetchone() or [0]
        return int(count)
