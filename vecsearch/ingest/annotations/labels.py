"""The label of an image: its folder's name, unless a run is given another."""

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import sqlalchemy as sa

from vecsearch.errors import InvalidInput
from vecsearch.imaging import scan
from vecsearch.imaging.scan import File
from vecsearch.postgres import schema
from vecsearch.vocabulary import counted

# The group of a regular expression that is the label, if it has one of this name.
GROUP = "label"


@dataclass(frozen=True)
class Labelled(File):
    """A file with the label that its run gives; None: its folder's name."""

    given: str | None

    @property
    def label(self) -> str:
        """The label of a new row."""
        return scan.label(self.path) if self.given is None else self.given


@dataclass(frozen=True)
class Labels:
    """What labels a run gives: one to all images, or what a regular expression finds in paths.

    Attributes:
        name: the label of all images.
        pattern: searched for in the path as it is stored. The label is the group `label`, else the
            first group, else the whole match; where that is empty, the path does not match.

    """

    name: str | None = None
    pattern: re.Pattern[str] | None = None

    @classmethod
    def parse(cls, name: str | None, regex: str | None) -> Self:
        """Return what a user asks for.

        Raises:
            InvalidInput: it is both, an empty label, or no regular expression.

        """
        if name is not None and regex is not None:
            raise InvalidInput("Give --label or --label-regex, not both.")
        if name is not None and (not name.strip() or "\0" in name or scan.storable(name) is None):
            raise InvalidInput(f"The label {name!r} is empty or cannot be stored. Give another.")
        return cls(name, None if regex is None else compiled(regex))

    @property
    def are_given(self) -> bool:
        """Whether images get other labels than their folders' names."""
        return self.name is not None or self.pattern is not None

    def find(self, path: str) -> str | None:
        """Return the label of the image at a path; None if the expression does not match."""
        if self.pattern is None:
            return self.name
        found = self.pattern.search(path)
        if found is None:
            return None
        groups = self.pattern.groupindex
        return found[GROUP if GROUP in groups else min(1, self.pattern.groups)] or None


FOLDERS = Labels()


def compiled(regex: str, flags: re.RegexFlag = re.NOFLAG) -> re.Pattern[str]:
    """Return the regular expression of --label-regex.

    Raises:
        InvalidInput: it is none.

    """
    try:
        # What a later Python may take otherwise means what it means in this one.
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            return re.compile(regex, flags)
    except (re.error, RecursionError, OverflowError) as error:
        raise InvalidInput(
            f"--label-regex {regex!r} is not a regular expression: {error}. Fix it."
        ) from error


def store(connection: sa.Connection, table: sa.Table, *, dry_run: bool) -> Iterator[str]:
    """Give stored images the labels that `vecsearch.ingest.pending.record_seen` noted.

    Args:
        connection: in a transaction, after the run's files have been written.
        table: the collection's.
        dry_run: only count.

    Yields:
        How many labels change, if any.

    """
    target = schema.sql_name(table)
    different = "stored.path = seen.path AND stored.label <> seen.label"
    if dry_run:
        count = f"SELECT count(*) FROM {target} AS stored, seen WHERE {different}"
        changed = connection.scalar(sa.text(count)) or 0
    else:
        update = f"UPDATE {target} AS stored SET label = seen.label FROM seen WHERE {different}"
        changed = connection.execute(sa.text(update)).rowcount
    if changed:
        verb = "Would change" if dry_run else "Changed"
        yield f"{verb} the label of {counted(changed, 'stored image')}."


def unmatched(connection: sa.Connection) -> Iterator[str]:
    """Yield how many files of a run the expression does not match, if any."""
    row = connection.execute(
        sa.text(
            "SELECT count(*), (array_agg(path ORDER BY position))[1] FROM seen WHERE NOT is_matched"
        )
    ).one()
    if row[0]:
        which = f"{counted(row[0], 'path')} did not match --label-regex"
        yield f"{which}, so the label is the folder's name. The first is {row[1]}"
