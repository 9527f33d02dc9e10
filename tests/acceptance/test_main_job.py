"""Ingest a folder, query a photo: the job everything else is for."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import PIL.Image
import pytest
from acceptance.conftest import Run, runner, stopped_at_the_end
from support import draw_photos, picture


def ingest_counts(output: str) -> dict[str, int]:
    return {name: count for name, count in json.loads(output).items() if count}


def ingest(run: Run, photos: Path, model: str, weights: Path) -> None:
    finished = run("ingest", photos, "--model", model, "--weights", weights)
    assert json.loads(finished.stdout) == {
        "added": 12,
        "updated": 0,
        "moved": 0,
        "copied": 0,
        "unchanged": 0,
        "pruned": 0,
        "gone": 0,
        "failed": 0,
    }
    assert finished.stderr == ""


@pytest.fixture
def ingested(vecsearch: Run, photos: Path, small_model: str, weights: Path) -> Run:
    ingest(vecsearch, photos, small_model, weights)
    return vecsearch


@pytest.fixture(scope="module")
def shared_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos that no test changes."""
    return draw_photos(tmp_path_factory.mktemp("shared") / "photos")


@pytest.fixture(scope="module")
def shared(
    environment: dict[str, str], shared_photos: Path, small_model: str, weights: Path
) -> Iterator[Run]:
    """The command on a database of the shared photos, which no test changes."""
    folder = shared_photos.parent
    with stopped_at_the_end(folder / "data", environment) as data_dir:
        run = runner(data_dir, environment, folder)
        ingest(run, shared_photos, small_model, weights)
        yield run


def test_what_is_known_is_never_embedded_again(
    ingested: Run, photos: Path, no_torch: dict[str, str]
) -> None:
    again = ingested("ingest", photos, **no_torch)
    assert ingest_counts(again.stdout) == {"unchanged": 12}
    renamed = photos.rename(photos.with_name("renamed"))
    moved = ingested("ingest", renamed, **no_torch)
    assert ingest_counts(moved.stdout) == {"moved": 12}
    shutil.copy(renamed / "cats/01.png", renamed / "copy.png")
    copied = ingested("ingest", renamed, **no_torch)
    assert ingest_counts(copied.stdout) == {"copied": 1, "unchanged": 12}


def test_one_changed_one_deleted_one_copied(ingested: Run, photos: Path) -> None:
    picture(99).save(photos / "dogs/00.png")
    (photos / "dogs/02.png").unlink()
    shutil.copy(photos / "cats/01.png", photos / "copy.png")
    finished = ingested("ingest", photos, "--prune")
    expected = {"updated": 1, "pruned": 1, "copied": 1, "unchanged": 10}
    assert ingest_counts(finished.stdout) == expected


def test_a_stored_picture_finds_itself_first_without_torch(
    shared: Run, shared_photos: Path, no_torch: dict[str, str]
) -> None:
    hits = json.loads(
        shared("query", shared_photos / "cats/01.png", "--format", "json", **no_torch).stdout
    )
    assert [hit["rank"] for hit in hits] == list(range(1, 11))
    assert hits[0]["path"] == str(shared_photos / "cats/01.png")
    assert hits[0]["distance"] == pytest.approx(0, abs=1e-3)
    assert hits[0]["similarity"] == pytest.approx(1, abs=1e-3)
    distances = [hit["distance"] for hit in hits]
    assert distances == sorted(distances)
    by_id = json.loads(shared("query", "--id", hits[0]["id"], "-f", "json", **no_torch).stdout)
    assert by_id == hits
    query = ("query", shared_photos / "cats/01.png", "-k", "3")
    others = shared(*query, "--exclude-self", "-f", "paths", **no_torch).stdout
    assert others.splitlines() == [hit["path"] for hit in hits[1:4]]


def test_a_new_picture_is_embedded_from_a_file_and_from_stdin(
    shared: Run, shared_photos: Path, tmp_path: Path
) -> None:
    # The same pixels in another file are new content with almost the same vector.
    file = tmp_path / "like 01.png"
    PIL.Image.open(shared_photos / "cats/01.png").save(file, compress_level=1)
    assert file.read_bytes() != (shared_photos / "cats/01.png").read_bytes()
    from_file = shared("query", file, "-k", "2", "--format", "csv")
    from_stdin = shared("query", "-", "-k", "2", "--format", "csv", stdin=file.read_bytes())
    assert from_file.stdout == from_stdin.stdout
    assert str(shared_photos / "cats/01.png") in from_file.stdout.splitlines()[1]


def test_k_and_filters_are_never_short(shared: Run, shared_photos: Path) -> None:
    query = shared_photos / "cats/01.png"
    for k, rows in ((1, 1), (10, 10), (11, 11), (12, 12), (1000, 12)):
        lines = shared("query", query, "-k", str(k), "-f", "paths").stdout.splitlines()
        assert len(set(lines)) == rows
    filtered = shared("query", query, "--where", "label = 'dogs'", "-f", "paths").stdout
    assert len(filtered.splitlines()) == 6
    nothing = shared("query", query, "--where", "false")
    assert nothing.stdout == ""
    assert nothing.stderr == "No image matches.\n"


def test_the_contact_sheet_is_drawn(shared: Run, shared_photos: Path, tmp_path: Path) -> None:
    finished = shared("query", shared_photos / "cats/01.png", "--plot", tmp_path / "sheet.png")
    assert finished.stderr == f"Drew {tmp_path / 'sheet.png'}\n"
    with PIL.Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > sheet.height > 500


def test_the_page_is_written_beside_the_sheet_and_the_rows(
    shared: Run, shared_photos: Path, tmp_path: Path
) -> None:
    page, sheet = tmp_path / "page.html", tmp_path / "sheet.pdf"
    limits = ("--max-distance", "9", "--where", "label  <>\n'dogs'")
    query = ("query", shared_photos / "cats/01.png", "-k", "3", "-f", "paths", *limits)
    finished = shared(*query, "--html", page, "--plot", sheet)
    assert finished.stderr.startswith(f"Drew {sheet}\nWrote {page}\n")
    assert sheet.read_bytes().startswith(b"%PDF")
    written = page.read_text()
    said = "Only images with: distance at most 9; where label &lt;&gt; &#39;dogs&#39;."
    assert said in written
    assert len(finished.stdout.splitlines()) == 3
    assert written.count("data:image/jpeg;base64,") == 4
    assert "SET LOCAL" in written
    # Asked for the SQL instead of the rows, it still writes what else it was asked for.
    page.unlink()
    identity = json.loads(shared("query", shared_photos / "cats/01.png", "-k", "1").stdout)["id"]
    shared("query", "--id", identity, "--show-sql", "--html", page)
    assert "cats/<wbr>01.png" in page.read_text()


def test_the_shown_sql_runs_in_psql(shared: Run, shared_photos: Path, tmp_path: Path) -> None:
    query = [str(shared_photos / "cats/01.png"), "--where", "path LIKE '%/cats/%'", "-k", "4"]
    expected = shared("query", *query, "-f", "paths").stdout
    (tmp_path / "shown.sql").write_text(shared("query", *query, "--show-sql").stdout)
    shown = shared("db", "shell", "--", "-qAt", "-f", tmp_path / "shown.sql").stdout
    assert [line.split("|")[1] for line in shown.splitlines()] == expected.splitlines()
    plan = shared("query", *query, "--explain").stdout
    assert plan.splitlines()[-1] == (
        "Answered by an exact scan: every row is compared. Ranked by the embeddings."
    )


def test_paths_from_stdin_and_errors_that_are_told(
    ingested: Run, photos: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 not much of a picture")
    listed = f"{broken}\n{photos / 'cats/01.png'}\n".encode()
    finished = ingested("ingest", "-", stdin=listed)
    assert ingest_counts(finished.stdout) == {"unchanged": 1, "failed": 1}
    assert "vecsearch errors" in finished.stderr
    (row,) = map(json.loads, ingested("errors").stdout.splitlines())
    assert row["path"] == str(broken)
    assert row["error"] == "Not an image, or an unsupported format."
    ingested("ingest", "-", "--strict", stdin=listed, status=1)


def test_an_autoencoder_trains_and_serves(vecsearch: Run, photos: Path, tmp_path: Path) -> None:
    model = tmp_path / "mine.safetensors"
    trained = vecsearch("train", "autoencoder", photos, "--epochs", "2", "--output", model)
    losses = [json.loads(line) for line in trained.stdout.splitlines()]
    assert [row["epoch"] for row in losses] == [1, 2]
    finished = vecsearch("ingest", photos, "--collection", "mine", "--model", model)
    assert ingest_counts(finished.stdout) == {"added": 12}
    (row,) = map(json.loads, vecsearch("collections").stdout.splitlines())
    assert (row["model"], row["dimensions"], row["images"]) == ("autoencoder", 16, 12)
    # Without the flag: the collection remembers where its encoder is.
    new = tmp_path / "new.png"
    picture(77).save(new)
    hits = vecsearch("query", new, "-c", "mine", "--metric", "l2", "-k", "3", "-f", "paths").stdout
    assert len(hits.splitlines()) == 3
