"""A question drawn as a picture."""

import io
from pathlib import Path

import PIL.Image
from support import picture

from vecsearch.imaging.thumbnails import SIDE
from vecsearch.render.cards import LIKE, UNLIKE, question_card
from vecsearch.search.questions.pictures import Crop
from vecsearch.search.questions.terms import Term


def drawn(*terms: Term) -> PIL.Image.Image:
    content = question_card(terms, {}, {}, max_pixels=1_000_000)
    return PIL.Image.open(io.BytesIO(content)).convert("RGB")


def test_each_part_is_a_tile_with_its_sign(tmp_path: Path) -> None:
    picture(1, (200, 100)).save(tmp_path / "a.png")
    card = drawn(Term(tmp_path / "a.png", weight=2), Term(text="snow", weight=-1))
    assert card.size[0] == SIDE
    middle = card.height // 2
    assert card.getpixel((1, middle)) == LIKE
    assert card.getpixel((SIDE - 2, middle)) == UNLIKE


def test_one_part_is_drawn_alone_and_cropped(tmp_path: Path) -> None:
    halves = PIL.Image.new("RGB", (100, 50), (255, 0, 0))
    halves.paste((0, 0, 255), (50, 0, 100, 50))
    halves.save(tmp_path / "a.png")
    card = drawn(Term(tmp_path / "a.png", crop=Crop(50, 0, 50, 50)))
    assert card.getcolors() == [(SIDE * SIDE, (0, 0, 255))]
    assert len(drawn(Term(text="golden retriever")).getcolors() or []) > 2


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    assert len(drawn(Term(tmp_path / "a.png"), Term(text="snow")).getcolors() or []) > 2
