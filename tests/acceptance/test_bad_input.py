"""Each gets one clear sentence and the next step, exit 1, and nothing half-made."""

import shutil
from pathlib import Path

import psycopg
import pytest
from acceptance.conftest import Run
from servers import free_port
from support import save_weights


def message(run: Run, *arguments: str | Path, **variables: str) -> str:
    """Return what the failing command said; it must have printed no data and no traceback."""
    finished = run(*arguments, status=1, **variables)
    assert finished.stdout == ""
    assert finished.stderr.startswith("error: ")
    assert "Traceback" not in finished.stderr
    return finished.stderr.removeprefix("error: ").rstrip("\n")


@pytest.fixture
def ingested(vecsearch: Run, photos: Path, small_model: str, weights: Path) -> Run:
    vecsearch("ingest", photos / "cats", "--model", small_model, "--weights", weights)
    return vecsearch


def test_encoders(vecsearch: Run, photos: Path, tmp_path: Path, small_model: str) -> None:
    assert "--weights FILE" in message(vecsearch, "ingest", photos, "--model", "resnet50")
    other = save_weights(tmp_path / "other.safetensors", "test_vit.r160_in1k")
    said = message(vecsearch, "ingest", photos, "--model", small_model, "--weights", other)
    assert f"{other} does not hold weights of {small_model}" in said
    assert "does not exist" in message(
        vecsearch, "ingest", photos, "--model", small_model, "--weights", "gone.safetensors"
    )
    assert "timm has no model 'resnet5O'" in message(
        vecsearch, "ingest", photos, "--model", "resnet5O"
    )
    # No collection is left behind by any of them.
    assert vecsearch("collections").stdout == ""


def test_a_second_encoder(
    ingested: Run, photos: Path, tmp_path: Path, small_model: str, weights: Path
) -> None:
    seed_1 = save_weights(tmp_path / "seed1.safetensors", small_model, seed=1)
    assert "with other weights" in message(ingested, "ingest", photos, "--weights", seed_1)
    said = message(ingested, "ingest", photos, "--model", "resnet18")
    assert f"made by {small_model}" in said
    assert "resnet18.a1_in1k" in said


def test_weights_that_moved_or_changed_are_named(
    vecsearch: Run, photos: Path, tmp_path: Path, small_model: str, weights: Path
) -> None:
    mine = tmp_path / "mine.safetensors"
    shutil.copy(weights, mine)
    vecsearch("ingest", photos / "cats", "--model", small_model, "--weights", mine)
    moved = mine.rename(tmp_path / "moved.safetensors")
    # Its export is the collection's own encoder still; what runs on torch needs the file.
    on_torch = ("ingest", photos, "--engine", "torch")
    said = message(vecsearch, *on_torch)
    assert f"{mine}, which is gone" in said
    assert "--weights FILE" in said
    save_weights(mine, small_model, seed=1)
    assert f"{mine} has changed" in message(vecsearch, *on_torch)
    other = message(vecsearch, "ingest", photos, "--weights", mine)
    assert "with other weights" in other
    # Its new place, once told, is remembered.
    vecsearch("ingest", photos / "cats", "--weights", moved)
    vecsearch("ingest", photos)


def test_databases(vecsearch: Run, photos: Path) -> None:
    port = free_port()
    url = f"postgresql://me:secret@127.0.0.1:{port}/nowhere"
    said = message(vecsearch, "query", photos / "cats/01.png", "--database-url", url)
    assert "Cannot use the database" in said
    assert "secret" not in said
    assert "not a Postgres URL" in message(vecsearch, "status", "--database-url", "mysql://x/y")
    assert "no vecsearch tables yet" in message(vecsearch, "query", photos / "cats/01.png")


def test_tables_of_another_version(ingested: Run, photos: Path) -> None:
    url = ingested("db", "url").stdout.strip()

    def set_revision(revision: str) -> None:
        with psycopg.connect(url) as connection:
            connection.execute("UPDATE vecsearch.alembic_version SET version_num = %s", [revision])

    set_revision("0001")
    assert "vecsearch db upgrade" in message(ingested, "query", photos / "cats/01.png")
    assert "vecsearch db upgrade" in message(ingested, "ingest", photos)
    set_revision("9999")
    said = message(ingested, "query", photos / "cats/01.png")
    assert "made by a newer vecsearch" in said
    assert "newer vecsearch" in message(ingested, "db", "upgrade")


def test_questions(ingested: Run, photos: Path, tmp_path: Path) -> None:
    query = photos / "cats/01.png"
    text = tmp_path / "notes.jpg"
    text.write_text("not a picture")
    assert "does not exist" in message(ingested, "ingest", photos / "missing")
    assert "does not exist" in message(ingested, "query", photos / "missing.png")
    said = message(ingested, "query", text)
    assert f"{text}: Not an image, or an unsupported format." in said
    said = message(ingested, "query", query, "--where", "label = = 'cats'")
    assert said.splitlines() == [
        'syntax error at or near "="',
        "  label = = 'cats'",
        "          ^",
    ]
    assert "k is 0" in message(ingested, "query", query, "-k", "0")
    assert "defined for cosine" in message(
        ingested, "query", query, "--metric", "l2", "--min-similarity", "0.5"
    )
    assert "has no image" in message(ingested, "query", "--id", "17")
    assert "no collection 'cars'" in message(ingested, "query", query, "-c", "cars")
    assert "cannot name a collection" in message(ingested, "ingest", photos, "-c", "Robert'); --")
    assert "unknown image format" in message(
        ingested, "query", query, "--plot", tmp_path / "sheet.xyz"
    )
    assert "unknown page format" in message(
        ingested, "query", query, "--html", tmp_path / "page.png"
    )


def test_wrong_usage_exits_2(vecsearch: Run) -> None:
    assert "--id ID" in vecsearch("query", status=2).stderr
    assert "--nonsense" in vecsearch("query", "--nonsense", status=2).stderr
    assert vecsearch("ingest", status=2).stdout == ""
    said = vecsearch("query", "a.png", "--metric", "hamming", status=2).stderr
    assert "'hamming'" in said
    assert "'chi2'" in said
