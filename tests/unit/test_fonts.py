"""Which fonts draw the texts of sheets, with hardly any font and with some of the tests' own."""

import logging
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from matplotlib import font_manager

from vecsearch.render import fonts
from vecsearch.render.canvas import Canvas

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
FLAG = "\U0001f1e9\U0001f1ea"
CAT, CJK, HANGUL = "\U0001f408", "猫", "고"


@pytest.fixture(autouse=True)
def system_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Let matplotlib know its own fonts alone; return the list of those that can be found."""
    manager = font_manager.fontManager
    shipped = str(Path(font_manager.__file__).parent / "mpl-data")
    own = [entry for entry in manager.ttflist if entry.fname.startswith(shipped)]
    found: list[str] = []
    monkeypatch.setattr(manager, "ttflist", own)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: found)
    monkeypatch.setattr(fonts, "_PACKAGES", ("no_such_package_of_fonts",))
    _forget()
    yield found
    _forget()


def _forget() -> None:
    # matplotlib forgets what it found when a font is added.
    font_manager.fontManager.addfont(font_manager.findfont(fonts.BASE))
    for cached in (fonts._family, fonts._characters, fonts._known, fonts._new, fonts._packaged):  # noqa: SLF001 - caches to be emptied
        cached.cache_clear()


def font(path: Path, name: str, characters: str, *, empty: bool = False) -> str:
    """Write a font with a square, or nothing, for each character."""
    from fontTools.fontBuilder import FontBuilder  # type: ignore[import-untyped]  # it has no types
    from fontTools.pens.ttGlyphPen import TTGlyphPen  # type: ignore[import-untyped]  # nor has it

    pen = TTGlyphPen(None)
    square = [] if empty else [(50, 0), (50, 700), (750, 700), (750, 0)]
    for number, point in enumerate(square):
        (pen.lineTo if number else pen.moveTo)(point)
    if square:
        pen.closePath()
    glyph = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap(dict.fromkeys(map(ord, characters), "square"))
    builder.setupGlyf({".notdef": glyph, "square": glyph})
    builder.setupHorizontalMetrics({".notdef": (800, 50), "square": (800, 50)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": name, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    builder.setupPost()
    builder.save(path)
    return str(path)


def text(line: str, weight: fonts.Weight = "normal") -> str:
    return "".join(fonts.line(line, weight).letters)


def test_a_character_that_no_font_has_is_marked() -> None:
    assert text("cat \ue000") == "cat \ufffd"
    assert text("Ünïcode – Ελλ") == "Ünïcode – Ελλ"
    assert text("e\u0301te\u0301") == "été"
    # A mark that no font has takes its letter with it: one font draws both.
    assert text("a\U0001e8d0b") == "\ufffdb"


def test_an_emoji_or_a_flag_of_several_characters_is_one_letter() -> None:
    for whole in (
        FAMILY,
        FLAG,
        "\U0001f44d\U0001f3fd",
        "1\ufe0f\u20e3",
        "\u2764\ufe0f\u200d\U0001f525",
    ):
        assert len(fonts.line(whole).letters) == 1, whole
    assert len(fonts.line(FLAG + FLAG).letters) == 2
    assert text(f"a {FAMILY} b {FLAG}") == "a \ufffd b \ufffd"


def test_a_font_installed_after_matplotlib_listed_them_is_found(
    tmp_path: Path, system_fonts: list[str]
) -> None:
    system_fonts += [
        str(tmp_path / "gone.ttf"),
        font(tmp_path / "cjk.ttf", "A Sans", CJK),
        font(tmp_path / "emoji.ttf", "Emoji of Tests", f"{CAT}\U0001f468\U0001f469\U0001f467"),
    ]
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    system_fonts.append(str(tmp_path / "broken.ttf"))
    for weight in ("normal", "bold"):
        found = fonts.line(f"cat {CJK} {CAT} {FAMILY} {HANGUL}", weight)
        assert "".join(found.letters) == f"cat {CJK} {CAT} {FAMILY} \ufffd"
        assert found.families == [fonts.BASE, "A Sans", "Emoji of Tests"]
        assert found.missing == [HANGUL]


def test_a_font_without_outlines_is_passed_over(tmp_path: Path, system_fonts: list[str]) -> None:
    system_fonts.append(font(tmp_path / "a.ttf", "A Sans Colour", CAT, empty=True))
    assert text(CAT) == "\ufffd"
    _forget()
    system_fonts.append(font(tmp_path / "b.ttf", "B", CAT))
    assert fonts.line(CAT).families == [fonts.BASE, "B"]


def test_a_font_of_last_resort_is_passed_over(tmp_path: Path, system_fonts: list[str]) -> None:
    system_fonts.append(font(tmp_path / "a.ttf", "LastResort", CJK))
    assert text(CJK) == "\ufffd"


def test_the_extras_fonts_come_after_those_installed(
    tmp_path: Path, system_fonts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "__init__.py").touch()
    font(tmp_path / "packed" / "a.ttf", "A Sans", CJK + HANGUL)
    system_fonts.append(font(tmp_path / "b.ttf", "B", CJK))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(fonts, "_PACKAGES", ("packed",))
    assert fonts.line(CJK).families == [fonts.BASE, "B"]
    assert fonts.line(HANGUL).families == [fonts.BASE, "A Sans"]
    assert "packed" not in sys.modules


def test_one_note_names_what_is_missing_and_what_to_install(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    canvas = Canvas(500, 100)
    for line in (f"{CJK}{CAT}", f"{CJK}", "plain"):
        canvas.text(0, 50, line, size=20, width=500)
    canvas.finished()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(
        f"No installed font draws {CJK} {CAT}, each shown as \ufffd."
    )
    assert "pip install 'vecsearch[fonts]'" in record.getMessage()
    assert "apt install fonts-noto" in record.getMessage()

    caplog.clear()
    monkeypatch.setattr(fonts, "_PACKAGES", ())
    fonts.note_missing([CJK])
    assert "vecsearch[fonts]" not in caplog.text
    assert "apt install" in caplog.text
    caplog.clear()
    # There are no fonts for these, and a terminal would obey one.
    fonts.note_missing(["\x1b", "\ue000", "\udcff"])
    assert caplog.messages == ["No installed font draws \\x1b \ue000 \\xff, each shown as \ufffd."]
    caplog.clear()
    fonts.note_missing([])
    fonts.note_missing([chr(letter) for letter in range(0x4E00, 0x4E00 + 12)])
    assert "and 4 more characters, each" in caplog.messages[0]


def test_no_character_that_is_thought_drawable_makes_matplotlib_warn(
    tmp_path: Path, system_fonts: list[str]
) -> None:
    system_fonts.append(font(tmp_path / "emoji.ttf", "E", f"{CAT}\U0001f468\U0001f469"))
    odd = [
        chr(code)
        for code in range(0xE0080)
        if unicodedata.category(chr(code)) in {"Cf", "Cc", "Zs"} or code in fonts._IGNORABLE  # noqa: SLF001 - its table
    ]
    canvas = Canvas(5000, 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for start in range(0, len(odd), 100):
            some = odd[start : start + 100]
            canvas.text(0, 50, f"a{'b'.join(some)}", size=20, width=5000)
            canvas.text(0, 50, f"{CAT}{CAT.join(some)}", size=20, width=5000)
        canvas.pixels()


def test_a_line_is_not_shortened_within_an_emoji(tmp_path: Path, system_fonts: list[str]) -> None:
    system_fonts.append(font(tmp_path / "emoji.ttf", "E", "\U0001f468\U0001f469\U0001f467"))
    canvas = Canvas(1000, 100)
    for width in range(0, 300, 7):
        canvas.text(0, 50, FAMILY * 10, size=20, width=width)
    for drawn in canvas.figure.axes[0].texts:
        assert drawn.get_text().replace(FAMILY, "") in {"", "…"}
