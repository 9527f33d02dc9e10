"""Which fonts draw a text: matplotlib's own, whatever is installed, what the extra fonts brings."""

import logging
import unicodedata
from collections.abc import Callable, Collection, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

from matplotlib import font_manager
from matplotlib.font_manager import FontProperties
from matplotlib.ft2font import LoadFlags

from vecsearch.render.visible import visible
from vecsearch.vocabulary import counted

_log = logging.getLogger(__name__)
# It reports each family that has no bold; the regular face is drawn, which can be seen.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)

Weight = Literal["normal", "bold"]
UNKNOWN = "\ufffd"
# matplotlib ships it.
BASE = "DejaVu Sans"
# Of several fonts that have a character, the first of these; then any other.
_PREFERRED = (
    BASE,
    "Noto Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Emoji",
    "Segoe UI",
    "Segoe UI Symbol",
    "Segoe UI Emoji",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "PingFang SC",
    "Hiragino Sans",
    "Apple SD Gothic Neo",
    "Apple Symbols",
    "Arial Unicode MS",
    "WenQuanYi Zen Hei",
    "Symbola",
)
# Useless: those with one glyph for everything, and TeX's, which have codes of their own.
_USELESS = ("last resort", "lastresort", ".", "adobe blank", "cm", "stix")
# matplotlib ships it: mathematics, and a few letters of scripts, so others come first.
_LAST = "STIXGeneral"
# Packages of the extra fonts, which are only folders of font files.
_PACKAGES = ("noto_cjk_sans_otc", "manimgx_fonts")

# Unicode categories of marks, which are drawn with the letter before them.
_MARKS = frozenset({"Mn", "Mc", "Me", "Cf"})
# Those for which there can be no font: control characters, halves of characters, private use.
_NO_FONT = frozenset({"Cc", "Cs", "Co"})
# What is not seen itself, and so needs no glyph: joiners, directions, variants, tags of flags.
_IGNORABLE = frozenset(
    {0x00AD, 0x034F, 0x061C, 0xFEFF}.union(
        range(0x200B, 0x2010),
        range(0x202A, 0x202F),
        range(0x2060, 0x2070),
        range(0xFE00, 0xFE10),
        range(0xE0000, 0xE1000),
    )
)
_JOINER = "\u200d"
_SKIN_TONES = range(0x1F3FB, 0x1F400)
# Two of them are a flag.
_REGIONAL = range(0x1F1E6, 0x1F200)
# Named in a note.
_MOST_NAMED = 8


class Line(NamedTuple):
    """A text as it can be drawn.

    Attributes:
        letters: each with its marks, or � if no font has it; spaces are letters, too.
        families: of the fonts that draw it, in order of preference.
        missing: the letters that no font has.

    """

    letters: list[str]
    families: list[str]
    missing: list[str]


def line(text: str, weight: Weight = "normal") -> Line:
    """Return the letters of a text, on one line, and the fonts that draw it."""
    drawn: list[str] = []
    missing: list[str] = []
    families = {BASE: None}
    # Composed, as some systems split file names into letters and accents.
    for cluster in _clusters(unicodedata.normalize("NFC", " ".join(text.split()))):
        family = _family(cluster, weight)
        if family is None:
            missing.append(cluster)
            drawn.append(UNKNOWN)
        else:
            families[family] = None
            drawn.append(cluster)
    return Line(drawn, list(families), missing)


def note_missing(missing: Collection[str]) -> None:
    """Log what could not be drawn, and what to install."""
    letters = list(dict.fromkeys(missing))
    if not letters:
        return
    named = " ".join(visible(letter) for letter in letters[:_MOST_NAMED])
    more = len(letters) - _MOST_NAMED
    what = f"{named} and {counted(more, 'more character')}" if more > 0 else named
    shown = f"shown as {UNKNOWN}" if len(letters) == 1 else f"each shown as {UNKNOWN}"
    _log.warning("No installed font draws %s, %s.%s", what, shown, _next_step(letters))


def _next_step(letters: list[str]) -> str:
    if all(unicodedata.category(letter[0]) in _NO_FONT for letter in letters):
        return ""
    debian = "apt install fonts-noto-core fonts-noto-cjk fonts-symbola"
    if all(find_spec(package) for package in _PACKAGES):
        return f" Install one that does; on Debian and Ubuntu, for example: {debian}"
    return f" Install fonts: pip install 'vecsearch[fonts]' or, on Debian and Ubuntu: {debian}"


def _clusters(text: str) -> Iterator[str]:
    """Yield letters with their marks, and emoji and flags of several characters."""
    cluster = ""
    for letter in text:
        joins = cluster and (
            unicodedata.category(letter) in _MARKS
            or cluster[-1] == _JOINER
            or ord(letter) in _SKIN_TONES
            or (len(cluster) == 1 and {ord(letter), ord(cluster)} <= set(_REGIONAL))
        )
        if cluster and not joins:
            yield cluster
            cluster = ""
        cluster += letter
    if cluster:
        yield cluster


@cache
def _family(cluster: str, weight: Weight) -> str | None:
    """Return the family of a font that draws the letter and its marks, if there is one."""
    if unicodedata.category(cluster[0]) in _NO_FONT:
        return None
    needed = frozenset(ord(each) for each in cluster if ord(each) not in _IGNORABLE)
    sources: tuple[Callable[[], list[str]], ...] = (_known, _new, _packaged, lambda: [_LAST])
    found = (family for source in sources for family in source() if _draws(family, weight, needed))
    return next(found, None)


def _draws(family: str, weight: Weight, needed: frozenset[int]) -> bool:
    characters = _characters(family, weight)
    if not characters.issuperset(needed):
        return False
    # Some colour fonts have characters without outlines, which matplotlib draws as gaps; those of
    # bitmaps alone, such as Noto Color Emoji, it does not load.
    return family == BASE or all(_has_outline(family, weight, each) for each in needed)


def _has_outline(family: str, weight: Weight, character: int) -> bool:
    if unicodedata.category(chr(character)) == "Zs":
        return True
    font = font_manager.get_font(_file(family, weight))
    font.load_char(character, flags=LoadFlags.NO_HINTING)
    return bool(len(font.get_path()[0]))


@cache
def _characters(family: str, weight: Weight) -> frozenset[int]:
    try:
        return frozenset(font_manager.get_font(_file(family, weight)).get_charmap())
    except (ValueError, OSError, RuntimeError):  # it is gone or broken
        return frozenset()


def _file(family: str, weight: Weight) -> str:
    properties = FontProperties(family=family, weight=weight)
    return font_manager.findfont(properties, fallback_to_default=False)


@cache
def _known() -> list[str]:
    """Return the families that matplotlib knows, the most suitable first."""
    return _ordered({entry.name for entry in font_manager.fontManager.ttflist})


@cache
def _new() -> list[str]:
    """Return the families that were installed since matplotlib listed fonts, for good."""
    listed = {entry.fname for entry in font_manager.fontManager.ttflist}
    return _added(sorted(set(font_manager.findSystemFonts()) - listed))


@cache
def _packaged() -> list[str]:
    """Return the families that the extra fonts brings, if it is installed."""
    specs = (find_spec(package) for package in _PACKAGES)
    folders = [
        Path(place) for spec in specs if spec for place in spec.submodule_search_locations or ()
    ]
    return _added([str(file) for folder in folders for file in sorted(folder.glob("*.[to]t[fc]"))])


def _added(files: list[str]) -> list[str]:
    """Add font files to those that matplotlib knows in this process; return their families."""
    fonts = font_manager.fontManager
    before = len(fonts.ttflist)
    for file in files:
        try:
            fonts.addfont(file)
        except (OSError, RuntimeError, ValueError, NotImplementedError):
            continue  # broken, or of bitmaps alone
    return _ordered({entry.name for entry in fonts.ttflist[before:]})


def _ordered(families: set[str]) -> list[str]:
    rank = {family: number for number, family in enumerate(_PREFERRED)}
    return sorted(
        (family for family in families if not family.lower().startswith(_USELESS)),
        key=lambda family: (rank.get(family, len(rank)), "Sans" not in family, family),
    )
