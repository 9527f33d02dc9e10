"""What would be done to duplicates' files, and why some are left alone."""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from vecsearch.analysis.duplicates.groups import Duplicate, Duplicates
from vecsearch.analysis.tidy import disk
from vecsearch.analysis.tidy.disk import LeftAlone
from vecsearch.errors import InvalidInput
from vecsearch.vocabulary import FileAction


@dataclass(frozen=True)
class Planned:
    """A file to act on; see `vecsearch.analysis.tidy.journal.Entry`."""

    action: FileAction
    id: UUID
    path: str
    sha256: str
    kept: UUID
    kept_path: str
    target: str | None
    facts: dict[str, int]


@dataclass(frozen=True)
class Untouched:
    """A duplicate that is left alone, and why."""

    id: UUID
    path: str
    kept_path: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """What would be done.

    Attributes:
        action: what is done to each file.
        folder: where `move` moves them.
        files: the files to act on.
        untouched: duplicates that are left alone.
        notes: for the user, to be read before anything is done.
        kept: number of images that are kept in their place.

    """

    action: FileAction
    folder: str | None
    files: Sequence[Planned]
    untouched: Sequence[Untouched]
    notes: Sequence[str]

    @property
    def kept(self) -> int:
        """Number of images that are kept in the place of others."""
        return len({file.kept for file in self.files})

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return sum(file.facts["size"] for file in self.files)


def make(
    connection: sa.Connection,
    table: sa.Table,
    found: Duplicates,
    action: FileAction,
    folder: Path | None,
) -> Plan:
    """Return what would be done to the images that could go; nothing is touched.

    A chain of similar pairs may end far from where it began, so an image goes only if it is a
    duplicate of the one that is kept, too.

    Args:
        connection: in a transaction.
        table: the collection's.
        found: groups, found with a rule of what to keep.
        action: what to do.
        folder: where to move files; for FileAction.move alone.

    Raises:
        InvalidInput: there is a folder without `move`, or `move` without one.

    """
    if (folder is not None) is not (action is FileAction.move):
        raise InvalidInput(
            f"Say where to move the files: --apply {FileAction.move} --to FOLDER."
            if folder is None
            else f"--to is for --apply {FileAction.move}. Omit it."
        )
    where = None if folder is None else folder.expanduser().absolute()
    beside = None if where is None else _require_elsewhere(connection, table, where)
    hashes = hashes_of(connection, table, [image.id for image in found.images])
    kept = {image.group: image for image in found.images if image.could_go is False}
    taken: set[str] = set()
    files, untouched = [], []
    for image in found.images:
        if not image.could_go:
            continue
        first = kept[image.group]
        try:
            same = hashes[image.id] == hashes[first.id]
            facts = _checked(image, first, found, action, hashes, same=same)
        except LeftAlone as left:
            untouched.append(Untouched(image.id, image.path, first.path, str(left)))
            continue
        target = None if where is None else _target(where, image.path, taken)
        files.append(
            Planned(
                action, image.id, image.path, hashes[image.id], first.id, first.path, target, facts
            )
        )
    notes = [note for note in (found.missing_note(table.name), beside) if note is not None]
    return Plan(action, None if where is None else str(where), files, untouched, notes)


def _require_elsewhere(connection: sa.Connection, table: sa.Table, folder: Path) -> str | None:
    """Check that no image of the collection is in this folder, or in one that it is in.

    Return a note if it is below the folder that all images have in common: that may have been
    ingested, or only folders in it, which is stored nowhere.

    Raises:
        InvalidInput: one is: the next ingest would add what is moved there.

    """
    inside = sa.func.regexp_replace(table.c.path, "[^/]*$", "")
    beside = sa.func.starts_with(sa.literal(f"{folder}/"), inside)
    found = connection.scalar(sa.select(table.c.path).where(beside).limit(1))
    if found is not None:
        raise InvalidInput(
            f"{folder} is in a folder whose images are in the collection, such as {found}, so that "
            "the next ingest would add the files again. Name a folder elsewhere with --to."
        )
    # Of sorted paths, the first and the last have in common what all have.
    path = sa.collate(table.c.path, "C")
    local = sa.func.starts_with(table.c.path, "/")
    ends = connection.execute(sa.select(sa.func.min(path), sa.func.max(path)).where(local)).one()
    if None in ends:
        return None
    common = os.path.commonpath([str(Path(end).parent) for end in ends])
    # Everything is below the root, which hardly anybody ingests.
    if common == "/" or not folder.is_relative_to(common):
        return None
    return (
        f"{folder} is in {common}, as all images of the collection are. If that is the folder that "
        "you ingest, the next ingest adds the files again: name a folder elsewhere with --to."
    )


def _checked(
    image: Duplicate,
    kept: Duplicate,
    found: Duplicates,
    action: FileAction,
    hashes: dict[UUID, str],
    *,
    same: bool,
) -> dict[str, int]:
    """Return facts of a file that may be acted on.

    Raises:
        LeftAlone: it may not.

    """
    if action.links and not same:
        raise LeftAlone("Its bytes differ from those of the image that is kept.")
    if not same and image.difference is None:
        raise LeftAlone("There are no thumbnails to compare; `vecsearch ingest` makes them.")
    if not same and (image.difference or 0.0) > found.max_difference:
        raise LeftAlone("It is like another of its group, but not like the one that is kept.")
    info = disk.check(image.path, hashes[image.id])
    require_kept(image.path, kept.path, hashes[kept.id], action)
    return {
        "size": info.st_size,
        "modified_ns": info.st_mtime_ns,
        "mode": stat.S_IMODE(info.st_mode),
    }


def require_kept(path: str, kept: str, sha256: str, action: FileAction) -> None:
    """Check that the image that is kept is another file, and is there.

    Raises:
        LeftAlone: it is not.

    """
    try:
        disk.check(kept, sha256)
    except LeftAlone as left:
        raise LeftAlone(f"The image that is kept, {kept}: {left}") from left
    # Below a folder that is a link, one file has two paths.
    if os.path.realpath(path) == os.path.realpath(kept):
        raise LeftAlone("It is the same file as the one that is kept.")
    if action.links and Path(path).samefile(kept):
        raise LeftAlone("It is a hard link to the one that is kept already.")


def _target(folder: Path, path: str, taken: set[str]) -> str:
    """Return where to move a file to: its own name, with a number if another has it."""
    name, number = Path(path), 1
    target = folder / name.name
    while str(target) in taken or os.path.lexists(target):
        number += 1
        target = folder / f"{name.stem} ({number}){name.suffix}"
    taken.add(str(target))
    return str(target)


def hashes_of(connection: sa.Connection, table: sa.Table, ids: Sequence[UUID]) -> dict[UUID, str]:
    """Return the SHA-256 of images by id; ids without a row are left out."""
    wanted = sa.any_(sa.literal(list(ids), ARRAY(sa.Uuid)))
    rows = connection.execute(sa.select(table.c.id, table.c.sha256).where(table.c.id == wanted))
    return {row.id: row.sha256 for row in rows}


def listed(plan: Plan) -> Iterator[tuple[str, str, str, int | None, str | None]]:
    """Yield rows of a plan: action, path, kept_path, bytes, reason."""
    for file in plan.files:
        yield plan.action, file.path, file.kept_path, file.facts["size"], None
    for left in plan.untouched:
        yield "left alone", left.path, left.kept_path, None, left.reason
