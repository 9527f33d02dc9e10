"""Text that a terminal shows as it is, whoever chose it."""

import unicodedata
from collections.abc import Callable
from typing import TextIO

# Control characters, which move the cursor or worse; formats, some of which reverse the order of
# what is read; lone surrogates, which are bytes of a path that is not UTF-8; separators of lines.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# They join letters and the parts of emoji.
_JOINERS = frozenset("\u200c\u200d")


def escaped(character: str) -> str:
    r"""Return the escape of a character as Python writes it, such as \x1b."""
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # noqa: PLR2004 - what `surrogateescape` makes of a byte
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode()


def visible(text: str, *, keep: str = "\n", escape: Callable[[str], str] = escaped) -> str:
    """Return a text with an escape for each character that a terminal would obey.

    Args:
        text: whatever should be shown.
        keep: characters to leave alone.
        escape: makes the escapes.

    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(escape(each) if each not in keep and _is_hidden(each) else each for each in text)


def shown(out: TextIO, text: str, *, keep: str = "\n") -> str:
    """Return what to write to a stream: a visible text to a terminal, and the text to a pipe."""
    return visible(text, keep=keep) if out.isatty() else text


def _is_hidden(character: str) -> bool:
    return character not in _JOINERS and unicodedata.category(character) in _HIDDEN
