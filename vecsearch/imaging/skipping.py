"""Which files and folders below a root are looked at, by their names alone."""

import os
from collections import Counter
from collections.abc import Iterator
from enum import StrEnum

from vecsearch.imaging.formats import RAW, SUFFIXES
from vecsearch.imaging.sources import containers
from vecsearch.vocabulary import counted

JUNK_FOLDERS = frozenset(
    {"@eaDir", "#recycle", "$RECYCLE.BIN", "__MACOSX", "lost+found", "System Volume Information"}
)


class Skip(StrEnum):
    """What a file is that is not looked at."""

    other = "file"
    raw = "RAW file"
    archive = "zip archive"
    video = "video"


_RAW = frozenset(RAW.suffixes)
_CONTAINERS = {suffix: Skip(kind.noun) for kind in containers.KINDS for suffix in kind.suffixes}


def is_entered(name: str) -> bool:
    """Return whether a folder or file below a root is looked at."""
    return not name.startswith(".") and name not in JUNK_FOLDERS


def skipped_as(path: str) -> Skip | None:
    """Return what a file of this name is skipped as; None if it is taken for an image."""
    suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122 - strings: runs per file
    if suffix in SUFFIXES:
        return Skip.raw if suffix in _RAW and not RAW.is_readable else None
    if (kind := containers.of(path)) is not None and kind.format is not None:
        return None
    return _CONTAINERS.get(suffix, Skip.other)


def remarks(skipped: Counter[Skip]) -> Iterator[str]:
    """Yield sentences about the files that were skipped."""
    if (number := skipped[Skip.other]) > 0:
        yield f"Skipped {counted(number, Skip.other)} without an image suffix."
    if (number := skipped[Skip.raw]) > 0:
        yield f"Skipped {counted(number, Skip.raw)}. {RAW.needs}"
    not_entered = [
        counted(number, skip)
        for skip in (Skip.archive, Skip.video)
        if (number := skipped[skip]) > 0
    ]
    if not_entered:
        yield f"Skipped {' and '.join(not_entered)}: name them to ingest their pictures."
