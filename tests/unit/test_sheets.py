"""How contact sheets are drawn and saved."""

from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import numpy as np
import PIL.Image
import pytest
from support import picture

from vecsearch.errors import InvalidInput
from vecsearch.queries.nearest import Hit
from vecsearch.render.sheets import CAPTION, MARGIN, TILE, contact_sheet, save_picture

MAX_PIXELS = 1_000_000
WHEN = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
HEADER = 44


def hit(rank: int, path: Path) -> Hit:
    return Hit(
        rank=rank,
        id=UUID(int=rank),
        path=str(path),
        distance=rank / 100,
        similarity=1 - rank / 100,
        label=path.parent.name,
        width=64,
        height=48,
        format="PNG",
        file_size=100,
        modified_at=WHEN,
        taken_at=None,
        latitude=None,
        longitude=None,
        metadata={},
    )


def sheet(query: Path | bytes, hits: list[Hit], title: str = "Nearest") -> PIL.Image.Image:
    return contact_sheet(query, hits, title=title, max_pixels=MAX_PIXELS)


def tile(drawn: PIL.Image.Image, column: int, row: int) -> PIL.Image.Image:
    x = MARGIN + column * (TILE + MARGIN)
    y = MARGIN + HEADER + row * (TILE + CAPTION + MARGIN)
    return drawn.crop((x, y, x + TILE, y + TILE))


def same(one: PIL.Image.Image, other: PIL.Image.Image) -> bool:
    return one.tobytes() == other.tobytes()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Pictures 0 to 12, square, so that each fills its tile."""
    paths = [tmp_path / f"{number}.png" for number in range(13)]
    for number, path in enumerate(paths):
        picture(number, (64, 64)).save(path)
    return paths


@pytest.mark.parametrize(("hits", "columns", "rows"), [(0, 2, 1), (1, 2, 1), (5, 6, 1), (12, 6, 3)])
def test_a_sheet_shows_the_query_and_then_each_hit_in_its_place(
    files: list[Path], hits: int, columns: int, rows: int
) -> None:
    drawn = sheet(files[0], [hit(number, files[number]) for number in range(1, hits + 1)])
    assert drawn.size == (
        columns * (TILE + MARGIN) + MARGIN,
        rows * (TILE + CAPTION + MARGIN) + MARGIN + HEADER,
    )
    inside = (4, 4, TILE - 4, TILE - 4)  # the query has a frame
    for number in range(hits + 1):
        expected = picture(number, (64, 64)).resize((TILE, TILE))
        shown = tile(drawn, number % columns, number // columns)
        assert same(shown.crop(inside), expected.crop(inside)), number
    for number in range(hits + 1, columns * rows):
        shown = tile(drawn, number % columns, number // columns)
        assert shown.getextrema() == ((255, 255),) * 3


def test_a_query_given_as_bytes_is_drawn_like_its_file(files: list[Path]) -> None:
    from_file, from_bytes = sheet(files[0], []), sheet(files[0].read_bytes(), [])
    assert same(tile(from_file, 0, 0), tile(from_bytes, 0, 0))


@pytest.mark.parametrize("content", [None, b"not a picture"], ids=["missing", "broken"])
def test_a_hit_that_cannot_be_read_is_grey_and_the_others_are_drawn(
    files: list[Path], content: bytes | None
) -> None:
    if content is None:
        files[1].unlink()
    else:
        files[1].write_bytes(content)
    drawn = sheet(files[0], [hit(1, files[1]), hit(2, files[2])])
    grey = tile(drawn, 1, 0)
    assert grey.getpixel((2, 2)) == (0xD0, 0xD0, 0xD0)
    assert len(grey.getcolors() or []) > 1  # with the words that say so
    assert same(tile(drawn, 2, 0), picture(2, (64, 64)).resize((TILE, TILE)))


@pytest.mark.parametrize("size", [(400, 1), (1, 400), (30, 20)])
def test_a_tile_keeps_its_proportions(tmp_path: Path, size: tuple[int, int]) -> None:
    PIL.Image.new("RGB", size, "blue").save(tmp_path / "q.png")
    drawn = np.asarray(tile(sheet(tmp_path / "q.png", [hit(1, tmp_path / "q.png")]), 1, 0))
    blue = (drawn == (0, 0, 255)).all(axis=2)
    width, height = blue.any(axis=0).sum(), blue.any(axis=1).sum()
    assert max(width, height) == TILE
    expected = [max(1, round(side * TILE / max(size))) for side in size]
    assert [width, height] == expected


@pytest.mark.parametrize("title", ["long " * 100, "", "two\nlines"], ids=["long", "empty", "lines"])
def test_any_title_and_any_file_name_can_be_drawn(files: list[Path], title: str) -> None:
    odd = files[0].rename(files[0].with_name(f"{title[:50]}.png"))
    expected = sheet(files[1], [hit(1, files[2])]).size
    assert sheet(odd, [hit(1, odd)], title=title).size == expected


@pytest.mark.parametrize("suffix", [".png", ".JPG", ".webp", ".pdf"])
def test_a_sheet_is_saved_in_the_format_its_suffix_names(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"sheet{suffix}"
    save_picture(picture(1), file)
    starts = {".png": b"\x89PNG", ".jpg": b"\xff\xd8", ".webp": b"RIFF", ".pdf": b"%PDF"}
    assert file.read_bytes().startswith(starts[suffix.lower()])


def test_a_saved_png_is_the_picture(tmp_path: Path) -> None:
    save_picture(picture(1), tmp_path / "sheet.png")
    with PIL.Image.open(tmp_path / "sheet.png") as saved:
        assert same(saved.convert("RGB"), picture(1))


@pytest.mark.parametrize("name", ["sheet", "sheet.txt", "sheet.", "sheet.fli"])
def test_a_suffix_that_names_no_format_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match=r"Use \.png\."):
        save_picture(picture(1), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="No such file or directory"):
        save_picture(picture(1), tmp_path / "gone" / "sheet.png")


@pytest.mark.parametrize("suffix", [".xbm", ".blp", ".grib", ".webp", ".gif", ".jpg"])
def test_what_a_format_cannot_hold_is_refused_and_the_old_file_stays(
    tmp_path: Path, suffix: str
) -> None:
    """A sheet of a thousand hits is taller than WebP, GIF and JPEG can be."""
    file = tmp_path / f"sheet{suffix}"
    file.write_bytes(b"old")
    with pytest.raises(InvalidInput, match="cannot be written"):
        save_picture(PIL.Image.new("RGB", (1, 70_000)), file)
    assert file.read_bytes() == b"old"
