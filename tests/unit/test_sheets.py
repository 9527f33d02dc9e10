"""How sheets are drawn and saved."""

import errno
import io
from pathlib import Path

import matplotlib as mpl
import numpy as np
import PIL.Image
import pytest
from matplotlib.figure import Figure
from support import hit, picture

from vecsearch.analysis.compare import Example
from vecsearch.encoders.autoencoder.training import Epoch
from vecsearch.errors import InvalidInput
from vecsearch.postgres.rows import image_id
from vecsearch.render import canvas
from vecsearch.render.saving import require_picture_file, save_picture
from vecsearch.render.sheets import (
    MOST_HITS,
    comparison_sheet,
    contact_sheet,
    training_sheet,
)
from vecsearch.render.tiles import CAPTION, GAP, HEADER, MARGIN, TILE
from vecsearch.search.filters import Filters
from vecsearch.search.query import Hit, Query
from vecsearch.vocabulary import Metric

MAX_PIXELS = 1_000_000
ACROSS, DOWN = TILE + GAP, TILE + CAPTION + GAP


def sheet(
    query: Path | bytes, hits: list[Hit], title: str = "Nearest", metric: Metric = Metric.cosine
) -> Figure:
    return contact_sheet(query, hits, title=title, metric=metric, max_pixels=MAX_PIXELS)


def pixels(figure: Figure) -> PIL.Image.Image:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi="figure")
    return PIL.Image.open(buffer).convert("RGB")


def words(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def tile(drawn: PIL.Image.Image, column: int, row: int) -> PIL.Image.Image:
    x, y = MARGIN + column * ACROSS, MARGIN + HEADER + row * DOWN
    return drawn.crop((x, y, x + TILE, y + TILE))


def expected(number: int) -> bytes:
    large = picture(number, (64, 64)).resize((TILE, TILE), PIL.Image.Resampling.LANCZOS)
    return large.tobytes()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Pictures 0 to 12, square, so that each fills its tile."""
    paths = [tmp_path / f"{number}.png" for number in range(13)]
    for number, path in enumerate(paths):
        picture(number, (64, 64)).save(path)
    return paths


@pytest.mark.parametrize(
    ("hits", "cells"),
    [
        (0, []),
        (1, [(1, 0)]),
        (2, [(1, 0), (2, 0)]),
        (5, [(2, 0), (3, 0), (4, 0), (2, 1), (3, 1)]),
        (7, [(2, 0), (3, 0), (4, 0), (5, 0), (2, 1), (3, 1), (4, 1)]),
    ],
)
def test_each_hit_is_drawn_in_its_place_pixel_for_pixel(
    files: list[Path], hits: int, cells: list[tuple[int, int]]
) -> None:
    figure = sheet(files[0], [hit(number, files[number]) for number in range(1, hits + 1)])
    drawn = pixels(figure)
    for number, (column, row) in enumerate(cells, start=1):
        assert tile(drawn, column, row).tobytes() == expected(number), number
    if not hits:
        assert "No image matches" in words(figure)


def test_the_query_is_first_and_has_a_frame(files: list[Path]) -> None:
    drawn = pixels(sheet(files[0], [hit(1, files[1])]))
    assert tile(drawn, 0, 0).tobytes() == expected(0)
    x, y = MARGIN - 4, MARGIN + HEADER + TILE // 2
    frame = drawn.getpixel((x, y))
    assert frame == (0x25, 0x63, 0xEB)
    assert drawn.getpixel((x + ACROSS, y)) == (255, 255, 255)


@pytest.mark.parametrize("hits", [3, 10, 30, 100, 250])
def test_a_sheet_has_about_the_shape_of_a_slide(files: list[Path], hits: int) -> None:
    width, height = sheet(files[0], [hit(1, files[1])] * hits).get_size_inches()
    assert 1.1 < width / height < 2.5


def test_a_query_given_as_bytes_is_drawn_like_its_file(files: list[Path]) -> None:
    drawn = pixels(sheet(files[0].read_bytes(), []))
    assert tile(drawn, 0, 0).tobytes() == expected(0)


def test_captions_tell_rank_distance_similarity_and_file(files: list[Path]) -> None:
    hits = [hit(1, files[1]), hit(2, files[2], distance=1.5e9, similarity=None)]
    said = words(sheet(files[0], hits, title="Nearest in cats"))
    assert said[0] == "Nearest in cats"
    assert "The 2 nearest by cosine distance" in said[1]
    folder = files[0].parent.name
    for expected_words in ("1", "0.0100", "sim. 0.9900", "2", "1.5000e+09"):
        assert expected_words in said
    assert any(folder[:8] in text and text.endswith("1.png") for text in said)
    assert sum("sim. " in text for text in said) == 1


def test_the_metric_is_named(files: list[Path]) -> None:
    said = words(sheet(files[0], [hit(1, files[1])], metric=Metric.l2))
    assert said[1] == "The nearest by Euclidean distance"


def test_the_limits_of_the_question_are_stated(files: list[Path]) -> None:
    asked = Query(max_distance=0.5, where="label\n= 'x'", filters=Filters(min_width=9))
    limited = contact_sheet(
        files[0],
        [hit(1, files[1])] * 8,
        title="Nearest",
        metric=Metric.l2,
        max_pixels=MAX_PIXELS,
        notes=["", asked.limits],
    )
    assert words(limited)[1] == (
        "The 8 nearest by Euclidean distance; distance at most 0.5; where label = 'x'; min width 9"
    )
    assert Query().limits == ""


@pytest.mark.parametrize("content", [None, b"not a picture"], ids=["missing", "broken"])
def test_a_hit_that_cannot_be_read_is_grey_and_says_so(
    files: list[Path], content: bytes | None
) -> None:
    if content is None:
        files[1].unlink()
    else:
        files[1].write_bytes(content)
    figure = sheet(files[0], [hit(1, files[1]), hit(2, files[2])])
    assert "The file cannot be read" in words(figure)
    drawn = pixels(figure)
    assert tile(drawn, 1, 0).getpixel((4, 4)) == (0xD1, 0xD5, 0xDB)
    assert tile(drawn, 2, 0).tobytes() == expected(2)


@pytest.mark.parametrize("size", [(400, 1), (1, 400), (30, 20)])
def test_a_tile_keeps_its_proportions(tmp_path: Path, size: tuple[int, int]) -> None:
    PIL.Image.new("RGB", size, "blue").save(tmp_path / "q.png")
    drawn = np.asarray(tile(pixels(sheet(tmp_path / "q.png", [hit(1, tmp_path / "q.png")])), 1, 0))
    blue = (drawn == (0, 0, 255)).all(axis=2)
    found = [blue.any(axis=0).sum(), blue.any(axis=1).sum()]
    assert found == [max(1, round(side * TILE / max(size))) for side in size]


ODD = [
    "long " * 40,
    "",
    "two\nlines\tand\rmore\x0b\x1c",
    r"$x_1$ \frac{a}{b} $\undefined$",
    "写真 صورة 🐈 \u200d \ue000 \udcff \x07",
    "%s {0} <b>&amp;",
    "\u0301 e\u0301 a\u20dd \ue000\u0301 क्षि a\ufe0f\u200d",
]


@pytest.mark.parametrize("name", ODD)
def test_any_title_and_any_file_name_can_be_drawn(files: list[Path], name: str) -> None:
    odd = files[0].rename(files[0].with_name(f"{name[:50]}.png"))
    figure = sheet(odd, [hit(1, odd)], title=name)
    assert pixels(figure).size == pixels(sheet(files[1], [hit(1, files[2])])).size
    for text in figure.axes[0].texts:
        assert text.get_window_extent().x1 <= figure.bbox.width, text


def test_words_are_not_taken_for_mathematics() -> None:
    sheet_ = canvas.Canvas(1000, 100)
    sheet_.text(0, 50, "$x_1$", size=20, width=1000)
    assert words(sheet_.figure) == ["$x_1$"]
    assert not sheet_.figure.axes[0].texts[0].get_parse_math()


def test_a_long_line_is_shortened_in_its_middle_to_the_longest_that_fits() -> None:
    sheet_ = canvas.Canvas(1000, 100)
    taken = sheet_.text(0, 50, f"begin{'x' * 500}end", size=20, width=300)
    (line,) = words(sheet_.figure)
    assert line.startswith("beginx")
    assert line.endswith("xend")
    assert line.count("…") == 1
    assert 280 < taken <= 300
    assert sheet_.text(0, 50, "xxx", size=20, width=0) > 0  # there is always the ellipsis


def test_more_hits_than_can_be_drawn_are_owned_up_to(files: list[Path]) -> None:
    hits = [hit(number, files[1]) for number in range(1, 5 * MOST_HITS)]
    figure = sheet(files[0], hits)
    assert f"first {MOST_HITS} of 1,499 hits" in words(figure)[1]
    assert len(figure.axes[0].images) == MOST_HITS + 1


def test_nothing_of_matplotlib_that_is_global_changes(files: list[Path], tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    save_picture(sheet(files[0], [hit(1, files[1])]), tmp_path / "sheet.png")
    assert dict(mpl.rcParams) == before


def test_two_answers_are_compared_side_by_side(files: list[Path]) -> None:
    answers = {
        "resnet": [hit(1, files[1]), hit(2, files[2])],
        "own": [hit(1, files[3]), hit(2, files[4])],
    }
    correct = {"resnet": [True, True], "own": [False, True]}
    rows = [
        Example(image_id(str(files[0])), str(files[0]), "cat", answers, correct),
        Example(image_id(str(files[5])), str(files[5]), "dog", {"resnet": []}, {}),
    ]
    figure = comparison_sheet(rows, title="Two", max_pixels=MAX_PIXELS)
    pixels(figure)
    said = words(figure)
    assert {"Two", "cat", "resnet", "own", "2 of 2 correct", "1 of 2 correct"} <= set(said)
    assert said.count("✓") == 3
    assert said.count("✗") == 1
    assert "No image matches" in said
    assert len(figure.axes[0].images) == 6
    frames = [patch.get_edgecolor() for patch in figure.axes[0].patches if not patch.get_fill()]
    colours = [mpl.colors.to_hex(colour) for colour in frames]
    assert colours.count(canvas.GREEN) == 3
    assert colours.count(canvas.RED) == 1


def test_where_nobody_knows_what_is_correct_no_hit_is_judged(files: list[Path]) -> None:
    rows = [
        Example(image_id(str(files[0])), str(files[0]), "cat", {"resnet": [hit(1, files[1])]}, {})
    ]
    said = words(comparison_sheet(rows, title="One", max_pixels=MAX_PIXELS))
    assert not {"✓", "✗", "0 of 1 correct"} & set(said)


def test_a_comparison_cut_short_says_so(files: list[Path]) -> None:
    rows = [
        Example(image_id(str(files[0])), str(files[0]), "cat", {"a": [hit(1, files[1])] * 20}, {})
    ] * 14
    figure = comparison_sheet(rows, title="Many", max_pixels=MAX_PIXELS)
    assert (
        words(figure)[1] == "Only the first 12 of 14 queries and the first 12 of 20 hits are drawn"
    )
    assert len(figure.axes[0].images) == 12 + 12 * 12


def test_a_training_shows_pictures_above_reconstructions_and_marks_the_kept_epoch() -> None:
    epochs = [
        Epoch(1, 0.9, 1.0, best=True),
        Epoch(2, 0.5, 0.6, best=True),
        Epoch(3, 0.3, 0.7, best=False),
    ]
    originals = np.stack([np.asarray(picture(seed, (32, 32))) for seed in range(15)])
    figure = training_sheet(epochs, originals, originals // 2, title="Mine")
    pixels(figure)
    sheet_, plot = figure.axes
    assert {"Mine", "Original", "Reconstruction"} <= set(words(figure))
    assert "the first 12 of 15" in words(figure)[1]
    assert len(sheet_.images) == 24
    above, below = sheet_.images[0], sheet_.images[12]
    assert above.get_extent()[:2] == below.get_extent()[:2]
    assert above.get_extent()[2] < below.get_extent()[3]  # y grows downwards
    legend = plot.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "training",
        "validation",
        "kept: epoch 2, 0.6",
    ]


def test_a_training_of_nothing_can_be_drawn() -> None:
    nothing = np.zeros((0, 32, 32, 3), dtype=np.uint8)
    pixels(training_sheet([], nothing, nothing, title="Nothing"))


@pytest.fixture
def small(files: list[Path]) -> Figure:
    return sheet(files[0], [])


@pytest.mark.parametrize("suffix", [".png", ".JPG", ".webp", ".tif", ".pdf", ".svg"])
def test_a_sheet_is_saved_in_the_format_its_suffix_names(
    small: Figure, tmp_path: Path, suffix: str
) -> None:
    file = tmp_path / f"sheet{suffix}"
    save_picture(small, file)
    starts = {
        ".png": b"\x89PNG",
        ".jpg": b"\xff\xd8",
        ".webp": b"RIFF",
        ".tif": b"II*\0",
        ".pdf": b"%PDF",
        ".svg": b"<?xml",
    }
    assert file.read_bytes().startswith(starts[suffix.lower()])
    assert not list(tmp_path.glob(".*"))


def test_a_saved_png_is_the_sheet(small: Figure, tmp_path: Path) -> None:
    save_picture(small, tmp_path / "sheet.png")
    with PIL.Image.open(tmp_path / "sheet.png") as saved:
        assert saved.convert("RGB").tobytes() == pixels(small).tobytes()


@pytest.mark.parametrize("name", ["sheet", "sheet.txt", "sheet.", "sheet.pgf"])
def test_a_suffix_that_names_no_format_is_refused(small: Figure, tmp_path: Path, name: str) -> None:
    for refuse in (lambda path: save_picture(small, path), require_picture_file):
        with pytest.raises(InvalidInput, match=r"unknown image format\. Use \.png"):
            refuse(tmp_path / name)
    assert not (tmp_path / name).exists()


def test_a_place_that_cannot_be_written_to_is_refused_before_the_work_and_at_its_end(
    small: Figure, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match=r"does not exist\. Create it"):
        require_picture_file(tmp_path / "gone" / "sheet.png")
    with pytest.raises(InvalidInput, match="No such file or directory"):
        save_picture(small, tmp_path / "gone" / "sheet.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InvalidInput, match="is a folder"):
        require_picture_file(tmp_path / "folder.png")
    require_picture_file(tmp_path / "sheet.png")


def test_what_a_format_cannot_hold_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    file = tmp_path / "sheet.webp"
    file.write_bytes(b"old")
    with pytest.raises(InvalidInput, match=r"cannot be written.*\.png suits any size"):
        save_picture(canvas.Canvas(20, 17_000).figure, file)
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_disk_that_fills_up_leaves_the_old_file_and_no_other(
    small: Figure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = tmp_path / "sheet.png"
    file.write_bytes(b"old")
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(InvalidInput, match="No space left on device"):
        save_picture(small, file)
    assert file.read_bytes() == b"old"
    assert list(tmp_path.glob(".*")) == []


def test_a_link_stays_a_link(small: Figure, tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to(tmp_path / "sheet.png")
    save_picture(small, tmp_path / "link.png")
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
