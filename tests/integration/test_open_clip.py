"""Collections of a model of open_clip: searched by any sentence, by every door."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from clip_support import save_clip
from starlette.testclient import TestClient
from support import once, picture
from typer.testing import CliRunner
from web_support import client

from vecsearch.cli import app
from vecsearch.encoders import registry
from vecsearch.library import Library
from vecsearch.postgres import catalog, database

pytestmark = once

SENTENCE = "a red circle on a white ground"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_clip(tmp_path_factory.mktemp("models") / "small")


def run(library: Library, *words: str) -> tuple[str, str]:
    done = CliRunner().invoke(app, [*words, "--database-url", library.url])
    assert done.exit_code == 0, done.stderr
    return done.stdout, done.stderr


def ranking(library: Library, files: tuple[Path, Path], text: str) -> list[str]:
    """Return the paths of all images, nearest to a text first, worked out in numpy."""
    encoder = registry.load(f"open_clip:{files[0]}", files[1], device="cpu")
    with catalog.reading(library.engine, "images") as (_, stored):
        tokenizer = registry.family_of(stored.identity).tokenizer(stored.identity)
    assert tokenizer is not None
    [query] = encoder.texts()(tokenizer([text]))
    statement = "SELECT path, embedding::real[] FROM vecsearch.images"
    with database.reading(library.engine) as connection:
        rows = connection.execute(sa.text(statement)).all()
    found = {path: np.array(vector) for path, vector in rows}
    cosines = {
        path: vector @ query / np.linalg.norm(vector) / np.linalg.norm(query)
        for path, vector in found.items()
    }
    return sorted(cosines, key=lambda path: -cosines[path])


def test_a_folder_is_searched_by_a_sentence(
    library: Library, photos: Path, files: tuple[Path, Path], tmp_path: Path
) -> None:
    model = ("--model", f"open_clip:{files[0]}", "--weights", str(files[1]))
    out, _ = run(library, "ingest", str(photos), *model)
    assert json.loads(out)["added"] == 12
    wanted = ranking(library, files, SENTENCE)
    out, err = run(library, "query", "--text", SENTENCE, "-k", "5", "--format", "paths")
    assert out.splitlines() == wanted[:5]
    assert err == ""
    assert wanted != ranking(library, files, "a dog")
    picture(99).save(tmp_path / "new.png")
    out, _ = run(library, "query", str(tmp_path / "new.png"), "-k", "5", "--format", "paths")
    assert len(out.splitlines()) == 5
    out, err = run(library, "concepts")
    assert out == ""
    assert "reads any sentence, so there is no list: vecsearch query --collection images" in err
    # Nobody names the model again, and where the weights are is known.
    out, _ = run(library, "ingest", str(photos))
    assert json.loads(out)["unchanged"] == 12
    assert "reads 30 tokens" in refused(library, "query", "--text", "🐶" * 40)
    assert "by cosine, not by l2" in refused(library, "query", "--text", "dog", "--metric", "l2")
    with client(library) as browser:
        check_page(browser, wanted)


def refused(library: Library, *words: str) -> str:
    done = CliRunner().invoke(app, [*words, "--database-url", library.url])
    assert done.exit_code == 1
    return done.stderr


def check_page(browser: TestClient, wanted: list[str]) -> None:
    """Check that the page and the API answer a sentence as the command does."""
    answer = browser.post("/api/query", files={"text": (None, SENTENCE), "k": (None, "5")})
    assert answer.status_code == 200, answer.text
    assert [hit["path"] for hit in answer.json()["hits"]] == wanted[:5]
    assert answer.json()["concepts"] == []
    page = browser.get("/", params={"text": SENTENCE, "k": 5})
    assert page.status_code == 200
    assert re.findall(r'class="name" title="([^"]+)"', page.text) == wanted[:5]
    assert "None" not in page.text
    assert 'placeholder="or a sentence"' in page.text
    too_long = browser.get("/", params={"text": "🐶" * 40})
    assert too_long.status_code == 400
    assert "Shorten it" in too_long.text


def test_a_sentence_loads_no_torch_once_the_text_tower_is_exported(
    library: Library, photos: Path, files: tuple[Path, Path]
) -> None:
    library.collection().ingest([photos], model=f"open_clip:{files[0]}", weights=files[1])
    assert len(library.collection().query(text=SENTENCE).hits) == 10
    program = f"""
import json, sys
from vecsearch.config import Settings
from vecsearch.library import Library
with Library.open(Settings.load(database_url={library.url!r})) as library:
    assert len(library.collection().query(text="a dog", k=3).hits) == 3
print(json.dumps(sorted(name for name, module in sys.modules.items() if module is not None)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert {"openvino", "tokenizers"} <= loaded
    assert not loaded & {"torch", "timm", "open_clip", "torchvision", "safetensors"}


def test_an_int8_collection_is_searched_by_a_sentence(
    library: Library, files: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "many").mkdir()
    for seed in range(24):
        picture(seed, (200, 180)).save(tmp_path / f"many/{seed:02}.png")
    summary = library.collection().ingest(
        [tmp_path / "many"], model=f"open_clip:{files[0]}", weights=files[1], precision="int8"
    )
    assert any("of the 10 nearest that fp32 finds" in note for note in summary.notes)
    found = [hit.path for hit in library.collection().query(text=SENTENCE, k=24)]
    wanted = ranking(library, files, SENTENCE)
    assert found == wanted


def test_an_export_carries_what_reads_the_sentences(
    library: Library, photos: Path, files: tuple[Path, Path], tmp_path: Path
) -> None:
    library.collection().ingest([photos], model=f"open_clip:{files[0]}", weights=files[1])
    library.collection().export_file(tmp_path / "all.npz")
    library.collection("again").import_file(tmp_path / "all.npz")
    one, other = (
        [hit.path for hit in library.collection(name).query(text=SENTENCE)]
        for name in ("images", "again")
    )
    assert one == other
