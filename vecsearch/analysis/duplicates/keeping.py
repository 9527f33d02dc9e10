"""Which image of a group of near-duplicates to keep, and which could go."""

import os
from collections.abc import Callable, Collection, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any
from uuid import UUID

from vecsearch.analysis.duplicates.pairs import Member
from vecsearch.imaging import scan
from vecsearch.imaging.sources.existence import is_missing
from vecsearch.imaging.sources.remote import is_url
from vecsearch.vocabulary import KeepRule, command_line

# The image with the smallest key comes first.
Order = Callable[[Member], tuple[Any, ...]]
# Files that a note names before it names their folder.
MOST_NAMED = 3


def order(
    rule: Order,
    prefer: str | None,
    missing: Collection[str],
    links: Collection[str],
    gone: Collection[UUID],
) -> Order:
    """Return an order in which the image to keep comes first.

    Args:
        rule: which to keep of those that are equal in what follows.
        prefer: a folder: images in it come first.
        missing: paths of files that are gone: they come after all others.
        links: paths that are symbolic links, perhaps to another of the group: likewise.
        gone: ids of images that somebody chose to go: they come last.

    """
    within = None if prefer is None else f"{scan.absolute(prefer).rstrip('/')}/"
    return lambda member: (
        member.id in gone,
        member.path in missing,
        member.path in links,
        within is not None and not member.path.startswith(within),
        *rule(member),
    )


def could_go(
    member: Member,
    kept: Member | None,
    missing: Collection[str] | None,
    gone: Collection[UUID] | None,
) -> bool | None:
    """Return whether an image could go; None if nobody chose, or if its file is gone.

    Args:
        member: the image.
        kept: the image of its group that is kept, if there is one.
        missing: paths of files that are gone.
        gone: ids of the images that somebody chose, if it was no rule.

    """
    if kept is None:
        return None
    is_unknown = missing is not None and member.path in missing
    if gone is not None:
        is_unknown = member != kept and member.id not in gone
    return None if is_unknown else member != kept


def missing_note(paths: Sequence[str], collection: str) -> str | None:
    """Return a note about rows whose files are gone, with a command that deletes the rows."""
    if not paths:
        return None
    files = "The file of 1 row is" if len(paths) == 1 else f"The files of {len(paths):,} rows are"
    return (
        f"{files} gone, and so neither kept nor among those that could go. To delete such rows, if "
        f"their files are gone for good: {_deleting(paths, collection)}"
    )


def _deleting(paths: Sequence[str], collection: str) -> str:
    """Return a command that deletes the rows of files that are gone."""
    if len(paths) <= MOST_NAMED:
        return command_line("forget", *map(scan.shown, paths), collection=collection)
    is_local = not any(map(is_url, paths))
    folder = os.path.commonpath([str(Path(path).parent) for path in paths]) if is_local else "/"
    if folder == "/":
        return command_line("ingest --prune", "FOLDER", collection=collection)
    command = "forget" if is_missing(folder) else "ingest --prune"
    return command_line(command, scan.shown(folder), collection=collection)


def _taken(member: Member) -> float | None:
    """Return the time in seconds at which the picture was taken, or else its file modified."""
    when = member.taken_at or member.modified_at
    if when is None:
        return None
    # Camera times have no time zone.
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _tie(member: Member) -> tuple[Any, ...]:
    """Return the key of images that a rule cannot tell apart: a copy is newer, its name longer."""
    modified = member.modified_at
    when = 0.0 if modified is None else modified.timestamp()
    return (modified is None, when, len(member.path), member.path)


def _by_time(sign: int) -> Order:
    def key(member: Member) -> tuple[Any, ...]:
        taken = _taken(member)
        return (taken is None, sign * (taken or 0.0), *_tie(member))

    return key


def _by_size(member: Member) -> tuple[Any, ...]:
    area = (member.width or 0) * (member.height or 0)
    return (-area, -(member.file_size or 0), *_by_time(1)(member))


ORDERS: dict[KeepRule, Order] = {
    KeepRule.oldest: _by_time(1),
    KeepRule.newest: _by_time(-1),
    KeepRule.largest: _by_size,
    KeepRule.path: lambda member: (member.path,),
}
