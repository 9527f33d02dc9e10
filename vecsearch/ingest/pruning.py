"""Deleting the rows of files that are gone: what a run may delete unasked, and what it says."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import sqlalchemy as sa

from vecsearch.errors import CollectionNotFound, InvalidInput, NotConfirmed, SchemaMissing
from vecsearch.imaging import scan
from vecsearch.imaging.sources import existence
from vecsearch.ingest import scope
from vecsearch.ingest.scope import Scope
from vecsearch.postgres import catalog, database, migrate, thumbnails
from vecsearch.postgres.rows import writing
from vecsearch.vocabulary import PRUNED_UNASKED, Confirm, command_line, counted

# Folders that a question lists before it counts the rest.
MOST_LISTED = 3
# Paths of a run that a command names.
MOST_NAMED = 3


@dataclass(frozen=True)
class Root:
    """A folder that a run walked, with rows whose files are gone.

    Attributes:
        stored: rows under it.
        gone: those whose files are gone.
        is_empty: whether the walk found no image file in it.

    """

    path: str
    stored: int
    gone: int
    is_empty: bool

    @property
    def needs_yes(self) -> bool:
        """Whether pruning it must be confirmed.

        A folder that was emptied, or is not mounted, looks as if its files had been deleted.
        """
        return self.gone == self.stored or (
            self.gone > PRUNED_UNASKED and self.gone > self.stored / 10
        )


@dataclass(frozen=True)
class Gone:
    """The rows under a run's roots whose files are gone.

    Attributes:
        paths: by id.
        roots: those with such rows.
        lost: folders below roots where the walk met no file, as on a drive that is not mounted,
            and their rows, if these are more than PRUNED_UNASKED; none below another.

    """

    paths: dict[UUID, str] = field(default_factory=dict)
    roots: Sequence[Root] = ()
    lost: Mapping[str, int] = field(default_factory=dict)

    def question(self) -> str | None:
        """Return what a prune would delete, as a sentence; None if it needs no yes."""
        asked = [root for root in self.roots if root.needs_yes]
        parts = [
            f"{root.gone:,} of the {counted(root.stored, 'row')} under {root.path}"
            for root in asked
        ]
        lost = {
            folder: rows
            for folder, rows in self.lost.items()
            if not any(scope.is_under(folder, root.path) for root in asked)
        }
        parts += [
            f"all {counted(rows, 'row')} under {folder}"
            for folder, rows in [*lost.items()][:MOST_LISTED]
        ]
        if len(lost) > MOST_LISTED:
            rest = [*lost.values()][MOST_LISTED:]
            parts.append(f"{counted(sum(rest), 'row')} under {counted(len(rest), 'other folder')}")
        if not parts:
            return None
        return f"--prune would delete {', and '.join(parts)}: their files are gone."

    def remarks(self, named: Sequence[str | Path], collection: str, *, prune: bool) -> list[str]:
        """Return notes about folders that seem lost, and about rows that stay without a file.

        Args:
            named: the run's paths, as they were given.
            collection: the collection.
            prune: whether the run was to delete those rows.

        """
        empty = [root for root in self.roots if root.is_empty]
        notes = [
            f"{root.path} has no image files, and {counted(root.stored, 'row')} under it "
            "are stored. Is its drive mounted? If the files are gone for good: "
            f"{command_line('forget', root.path, collection=collection)}"
            for root in empty
        ]
        if not prune and sum(root.gone for root in empty) < len(self.paths):
            again = "the same command with --prune"
            if len(named) <= MOST_NAMED:
                again = command_line("ingest --prune", *named, collection=collection)
            notes.append(
                f"The files of {counted(len(self.paths), 'row')} are gone. "
                f"To delete these rows: {again}"
            )
        return notes


def find(connection: sa.Connection, table: sa.Table, run: Scope) -> Gone:
    """Return the rows that a prune would delete: the walk did not meet their files.

    Args:
        connection: a session of a run, with its tables `seen` and `pending`.
        table: the collection's.
        run: what the run may delete.

    """
    folders = scope.walked_folders(connection, run)
    paths = _gone(connection, table, run, folders)
    if not paths:
        return Gone()
    # Each path is compared with the folders that it is in, not with every root.
    gone = Counter(folder for path in paths.values() for folder in _folders_of(path))
    stored = scope.count_under(connection, table, [path for path, _ in folders if path in gone])
    roots = [Root(path, stored[path], gone[path], empty) for path, empty in folders if path in gone]
    large = [path for path, rows in gone.items() if rows > PRUNED_UNASKED and path not in stored]
    below = [path for path in large if any(folder in stored for folder in _folders_of(path))]
    return Gone(paths, roots, {path: gone[path] for path in _lost(connection, below)})


def _gone(
    connection: sa.Connection, table: sa.Table, run: Scope, folders: Iterable[tuple[str, bool]]
) -> dict[UUID, str]:
    """Return the paths of rows whose files are gone, by id; `folders`: `scope.walked_folders`."""
    within = Scope(scope.outermost(path for path, _ in folders), run.unreadable)
    rows = scope.unseen_rows(connection, table, within)
    lost = existence.gone(path for _, path in rows)
    return {row_id: path for row_id, path in rows if path in lost}


def _lost(connection: sa.Connection, folders: Sequence[str]) -> list[str]:
    """Return those of these folders under which the walk met no file, none below another."""
    if not folders:
        return []
    met = scope.seen_folders(connection)
    alive = {*met, *(folder for path in met for folder in _folders_of(path))}
    return scope.outermost(path for path in folders if path not in alive)


def _folders_of(path: str) -> Iterator[str]:
    """Yield the folders that an absolute path is in, the nearest first."""
    while (folder := os.path.dirname(path)) != path:  # noqa: PTH120 - strings, for a million paths
        yield folder
        path = folder


def delete(connection: sa.Connection, table: sa.Table, run: Scope, chosen: Gone) -> int:
    """Delete the rows that were found, except those whose files have come back.

    Args:
        connection: in a transaction that holds `vecsearch.postgres.rows.lock_collection`, so that
            no other run brings a row back that is then deleted.
        table: the collection's.
        run: as for `find`.
        chosen: what that found.

    Returns:
        How many rows were deleted.

    """
    gone = _gone(connection, table, run, scope.walked_folders(connection, run))
    now = gone.keys() & chosen.paths.keys()
    if now:
        scope.delete_rows(connection, table, [*now])
    return len(now)


@dataclass(frozen=True)
class Forgotten:
    """What `forget` deleted: rows, and errors of files that were never stored."""

    rows: int
    errors: int


def forget(
    engine: sa.Engine,
    name: str,
    paths: Iterable[str | Path],
    *,
    existing: bool,
    dry_run: bool,
    confirm: Confirm,
) -> Forgotten:
    """Delete rows under paths; see `vecsearch.collection.Collection.forget`."""
    roots = [scan.absolute(path) for path in paths]
    with migrate.reading_current(engine) as connection:
        table = catalog.get_collection(connection, name).table
        stored = scope.rows_under(connection, table, roots)
        errors = scope.errors_under(connection, name, roots)
    where = " and ".join(map(scan.shown, roots))
    if not stored and not errors:
        raise InvalidInput(
            f"Collection {name!r} has nothing under {where}. List its paths: "
            f'vecsearch sql "SELECT path FROM {name}"'
        )
    there = 0 if existing else len(stored) - len(existence.gone(stored.values()))
    if there:
        raise InvalidInput(
            f"{there:,} of the {counted(len(stored), 'file')} of collection {name!r} under {where} "
            f"still {'exists' if there == 1 else 'exist'}. To forget them, too: --existing. To "
            "delete only the rows of files that are gone: "
            f"{command_line('ingest --prune', *map(scan.shown, roots), collection=name)}"
        )
    found = Forgotten(len(stored), len(errors))
    if dry_run:
        return found
    what = f"{counted(found.rows, 'row')} and {counted(found.errors, 'error')} under {where}"
    if not confirm(f"This deletes {what} from collection {name!r}. No file is touched."):
        raise NotConfirmed(
            f"Forgetting {what} needs a yes. If these files are gone for good, add --yes."
        )
    with database.session(engine) as connection, writing(connection, name):
        # Files may have come back, and rows have gone, while somebody was asked.
        now = scope.rows_under(connection, table, roots)
        ids = stored.keys() & now.keys()
        if not existing:
            gone = existence.gone(now[row_id] for row_id in ids)
            ids = {row_id for row_id in ids if now[row_id] in gone}
        scope.delete_rows(connection, table, [*ids])
        scope.delete_errors(connection, name, errors)
    with database.writing(engine) as connection:
        thumbnails.delete_orphans(connection)
    return Forgotten(len(ids), len(errors))


def require_no_lost(engine: sa.Engine, name: str, paths: Iterable[str | Path]) -> None:
    """Check that no path is gone from under which rows are stored.

    Raises:
        InvalidInput: one is.

    """
    roots = [scan.absolute(path) for path in paths]
    missing = existence.missing(roots)
    lost = [root for root in roots if root in missing and scan.storable(root) is not None]
    if not lost:
        return
    with suppress(SchemaMissing, CollectionNotFound), catalog.reading(engine, name) as reading:
        connection, collection = reading
        stored = scope.count_under(connection, collection.table, lost)
        for root in lost:
            if stored[root]:
                raise InvalidInput(
                    f"{root} is gone, and the collection has {counted(stored[root], 'row')} from "
                    "it. Mount its drive, or bring it back; if it is gone for good: "
                    f"{command_line('forget', root, collection=name)}"
                )
