"""Act on the files of a plan, one after another, and undo a run.

Each file is in the journal before it is touched: what will be done, and where it will be. After a
crash, the next command reads there which files were in between, and looks where each is.
"""

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from vecsearch.analysis.duplicates import groups
from vecsearch.analysis.tidy import disk, journal, plan, trash
from vecsearch.analysis.tidy.disk import LeftAlone
from vecsearch.analysis.tidy.journal import Entry, Run
from vecsearch.analysis.tidy.plan import Plan
from vecsearch.errors import InvalidInput, VecsearchError
from vecsearch.postgres import catalog, database, drop, migrate, thumbnails
from vecsearch.postgres.rows import writing
from vecsearch.search.indexes.build import OnProgress, quiet
from vecsearch.search.store import Store
from vecsearch.vocabulary import NOT_UNDONE, FileAction, FileState, command_line, parse

# What ends a run, instead of one file.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


class Tidy:
    """Acts on the files of a collection's duplicates, and undoes it."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name

    def plan(
        self,
        action: str,
        *,
        to: str | Path | None = None,
        **options: Unpack[groups.Options],
    ) -> Plan:
        """Return what would be done to duplicates; nothing is touched.

        Args:
            action: trash, move, hardlink or symlink. Links replace files of the same bytes alone.
            to: the folder to move files to.
            options: see `vecsearch.analysis.duplicates.groups.find`; `keep` or `gone` is needed,
                and `order` refused.

        Raises:
            InvalidInput: an option has an invalid value.

        """
        if options.get("keep") is None and options.get("gone") is None:
            raise InvalidInput(
                "Choose which image of each group to keep: --keep oldest, for example."
            )
        # Differences are to the first image of a group, which has to be the one that is kept.
        if options.get("order") is not None:
            raise InvalidInput("--order is for showing groups. Omit it with --apply.")
        with catalog.reading(self._store.engine, self._name) as (connection, stored):
            found = groups.find(connection, stored, **options)
            folder = None if to is None else Path(to)
            return plan.make(connection, stored.table, found, parse(FileAction, action), folder)

    def apply(self, plan: Plan, *, on_progress: OnProgress = quiet) -> list[Entry]:
        """Act on the files of a plan; return them with how far each is.

        A file is left alone if it, or the one that is kept in its place, has changed or is gone.

        Raises:
            InvalidInput: there is nothing to do.
            DatabaseBusy: another command acts on this collection's files.
            VecsearchError: the disk is full; what was done so far stays, and can be undone.

        """
        if not plan.files:
            raise InvalidInput("There is nothing to do: the plan has no files.")
        if plan.folder is not None:
            _make_folder(plan.folder)
        with journal.claim(self._store.engine, self._name):
            self._settle()
            with database.writing(self._store.engine) as connection:
                run = journal.begin(connection, self._name, plan.files)
            waiting = self._entries(FileState.planned, run=run)
            self._each("Acting", waiting, self._act, on_progress)
            done = self._entries(FileState.done, FileState.left, run=run)
        with database.writing(self._store.engine) as connection:
            thumbnails.delete_orphans(connection)
        return done

    def last(self) -> int:
        """Return the number of the last run of which something can be undone.

        Raises:
            InvalidInput: there is none.

        """
        with migrate.reading_current(self._store.engine) as connection:
            catalog.get_collection(connection, self._name)
            return journal.last_run(connection, self._name)

    def chosen(self, run: int | None = None) -> Run:
        """Return the run of this number, or the last of which something can be undone.

        Raises:
            InvalidInput: there is none, or it has nothing to undo.

        """
        number = self.last() if run is None else run
        chosen = next((each for each in self.runs() if each.run == number), None)
        if chosen is None or not chosen.done:
            found = f"No run is {number}" if chosen is None else f"Run {number} has nothing to undo"
            raise journal.no_run(found, self._name)
        return chosen

    def undo(self, run: int | None = None, *, on_progress: OnProgress = quiet) -> list[Entry]:
        """Bring back the files and rows of a run, the last by default; return its files.

        Those that cannot be brought back stay as they are, with the reason.

        Raises:
            InvalidInput: there is nothing to undo.
            DatabaseBusy: another command acts on this collection's files.

        """
        chosen = self.last() if run is None else run
        with journal.claim(self._store.engine, self._name):
            self._settle()
            found = self._done(chosen)
            # Of those in between, nobody can tell yet where they are.
            waiting = [entry for entry in found if entry.state is not FileState.acting]
            self._each("Undoing", waiting[::-1], self._undo, on_progress)
            numbers = {entry.number for entry in found}
            return [
                entry
                for entry in self._entries(*NOT_UNDONE, FileState.undone, run=chosen)
                if entry.number in numbers
            ]

    def undoable(self, run: int | None = None) -> list[Entry]:
        """Return the files that `undo` would bring back; those with a reason it could not.

        Nothing is touched.

        Raises:
            InvalidInput: there is nothing to undo.

        """
        waiting = self._done(self.last() if run is None else run)
        return [replace(entry, reason=_hindrance(entry)) for entry in waiting]

    def files(self, run: int) -> list[Entry]:
        """Return the files of a run, with how far each is.

        Raises:
            InvalidInput: there is no such run.

        """
        found = self._entries(*FileState, run=run)
        if not found:
            raise journal.no_run(f"No run is {run}", self._name)
        return found

    def runs(self) -> list[Run]:
        """Return what was done so far, the last first."""
        with migrate.reading_current(self._store.engine) as connection:
            catalog.get_collection(connection, self._name)
            return journal.runs(connection, self._name)

    def lost_by_drop(self) -> str | None:
        """Return, as a sentence, what `undo` cannot bring back once the collection is dropped."""
        with migrate.reading_current(self._store.engine) as connection:
            return drop.lost_undo(connection, self._name)

    def _done(self, run: int) -> list[Entry]:
        """Return the files of a run that are not undone.

        Raises:
            InvalidInput: there are none.

        """
        self.chosen(run)
        return self._entries(*NOT_UNDONE, run=run)

    def _entries(self, *states: FileState, run: int | None = None) -> list[Entry]:
        with migrate.reading_current(self._store.engine) as connection:
            return journal.entries(connection, self._name, *states, run=run)

    def _each(
        self,
        step: str,
        entries: Sequence[Entry],
        act: Callable[[Entry], None],
        on_progress: OnProgress,
    ) -> None:
        """Act on each file; one that cannot be acted on is left alone, with the reason."""
        for done, entry in enumerate(entries):
            on_progress(step, done, len(entries))
            try:
                act(entry)
            except (LeftAlone, OSError) as error:
                self._leave(entry, _reason(error))
                if isinstance(error, OSError) and error.errno in _FULL:
                    raise self._full(entry, str(error.strerror)) from error
        on_progress(step, len(entries), len(entries))

    def _full(self, entry: Entry, reason: str) -> VecsearchError:
        """Return the error that ends a run, or its undoing, at this file."""
        again = command_line("undo", entry.run, collection=self._name)
        done, step = "brought back", f"To bring back the rest: {again}"
        if entry.state is FileState.planned:
            is_undoable = bool(self._entries(*NOT_UNDONE, run=entry.run))
            done, step = "done", f"To undo it: {again}" if is_undoable else ""
        return VecsearchError(
            f"{entry.path}: {reason}. It is as it was; what was {done} before stays. Make room, "
            "and retry.",
            step=step,
        )

    def _act(self, entry: Entry) -> None:
        plan.require_kept(entry.path, entry.kept_path, self._kept_sha256(entry), entry.action)
        target = disk.aside(entry.path) if entry.action.links else entry.target
        self._mark(entry, FileState.acting, target=target)
        symbolic = entry.action is FileAction.symlink
        match entry.action:
            case FileAction.trash:
                trash.send(entry.path, entry.sha256)
            case FileAction.move:
                disk.move(entry.path, str(target), entry.sha256)
            case FileAction.hardlink | FileAction.symlink:
                disk.replace_by_link(
                    entry.path, entry.kept_path, str(target), entry.sha256, symbolic=symbolic
                )
        self._finish(entry)

    def _finish(self, entry: Entry) -> None:
        """Write that a file is done, and delete its row if the file is gone."""
        if entry.action.links:
            self._mark(entry, FileState.done, target=None, reason=None)
            return
        with database.session(self._store.engine) as connection, writing(connection, self._name):
            stored = catalog.get_collection(connection, self._name)
            journal.take_row(connection, stored, entry)

    def _undo(self, entry: Entry) -> None:
        self._mark(entry, FileState.undoing, reason=None)
        if entry.action.links:
            facts = entry.facts
            if disk.is_link_to(
                entry.path, entry.kept_path, symbolic=entry.action is FileAction.symlink
            ):
                disk.replace_link(
                    entry.path, entry.sha256, modified_ns=facts["modified_ns"], mode=facts["mode"]
                )
            else:
                disk.check(entry.path, entry.sha256)
            with database.writing(self._store.engine) as connection:
                stored = catalog.get_collection(connection, self._name)
                journal.return_file(connection, stored, entry)
            return
        self._bring_back(entry)
        with database.session(self._store.engine) as connection, writing(connection, self._name):
            stored = catalog.get_collection(connection, self._name)
            journal.return_row(connection, stored, entry)

    def _bring_back(self, entry: Entry) -> None:
        """Move a file to where it was, unless it is there."""
        # Somebody, or an undo that was interrupted, may have brought it back.
        if disk.has_content(entry.path, entry.sha256):
            return
        where = _found(entry)
        if where is None:
            raise LeftAlone(_missing(entry))
        Path(entry.path).parent.mkdir(parents=True, exist_ok=True)
        disk.move(where, entry.path, entry.sha256)
        if entry.action is FileAction.trash:
            trash.forget(where)

    def _settle(self) -> None:
        """End what was interrupted: files in between are looked for on the disk.

        One that is nowhere, on a drive that is not mounted perhaps, stays in between.
        """
        for entry in self._entries(FileState.planned):
            self._leave(entry, "The run was interrupted before its turn.")
        for entry in self._entries(FileState.acting):
            try:
                if self._was_done(entry):
                    self._finish(entry)
                else:
                    self._leave(entry, "The run was interrupted; the file is as it was.")
            except (LeftAlone, OSError) as error:
                self._mark(entry, FileState.acting, reason=_reason(error))

    def _was_done(self, entry: Entry) -> bool:
        """Return whether a file was acted on before the interruption, or is as it was.

        Raises:
            LeftAlone: it is nowhere, or another file has its name.

        """
        if entry.action.links:
            return disk.bring_back(
                str(entry.target),
                entry.path,
                entry.kept_path,
                entry.sha256,
                symbolic=entry.action is FileAction.symlink,
            )
        if not disk.has_content(entry.path, entry.sha256):
            if _found(entry) is None:
                raise LeftAlone(_missing(entry))
            return True
        if entry.action is FileAction.move:
            disk.remove_copy(str(entry.target), entry.sha256)
        return False

    def _leave(self, entry: Entry, reason: str) -> None:
        """Write why a file is as it is: left alone, or done and not undone."""
        is_begun = entry.state in {FileState.planned, FileState.acting}
        self._mark(entry, FileState.left if is_begun else FileState.done, reason=reason)

    def _mark(self, entry: Entry, state: FileState, **more: object) -> None:
        with database.writing(self._store.engine) as connection:
            journal.mark(connection, self._name, entry, state, **more)

    def _kept_sha256(self, entry: Entry) -> str:
        """Return the content of the image that is kept.

        Raises:
            LeftAlone: its row is gone.

        """
        with catalog.reading(self._store.engine, self._name) as (connection, stored):
            found = plan.hashes_of(connection, stored.table, [entry.kept])
        if not found:
            raise LeftAlone("The image that is kept is no longer in the collection.")
        return found[entry.kept]


def _found(entry: Entry) -> str | None:
    """Return where a file is that was moved or sent to the trash, if it is there."""
    if entry.action is FileAction.trash:
        return trash.find(entry.path, entry.sha256)
    target = str(entry.target)
    return target if disk.has_content(target, entry.sha256) else None


def _hindrance(entry: Entry) -> str | None:
    """Return why `undo` could not bring a file back now; None if it could."""
    try:
        if entry.action.links:
            symbolic = entry.action is FileAction.symlink
            if disk.is_link_to(entry.path, entry.kept_path, symbolic=symbolic):
                return None
            if entry.target is not None and os.path.lexists(entry.target):
                disk.require_free(entry.path)
            else:
                disk.check(entry.path, entry.sha256)
        elif not disk.has_content(entry.path, entry.sha256):
            if _found(entry) is None:
                return _missing(entry)
            disk.require_free(entry.path)
    except LeftAlone as left:
        return str(left)
    return None


def _missing(entry: Entry) -> str:
    """Return why a file cannot be brought back that is not where it should be."""
    if entry.action is FileAction.trash:
        return f"It is no longer in the trash, nor back at {entry.path}."
    if Path(str(entry.target)).exists():
        return f"It has changed since it was moved: {entry.target}."
    return f"It is no longer at {entry.target}, nor back at {entry.path}."


def _reason(error: LeftAlone | OSError) -> str:
    """Return why a file is left alone, as a sentence."""
    return f"{error.strerror or error}." if isinstance(error, OSError) else str(error)


def _make_folder(folder: str) -> None:
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise InvalidInput(f"{folder} is a file. Name a folder with --to.") from error
    except OSError as error:
        raise InvalidInput(
            f"The folder {folder} cannot be made: {error.strerror}. Name another with --to."
        ) from error
