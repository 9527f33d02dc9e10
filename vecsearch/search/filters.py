"""Typed filters, safe for untrusted callers: they never contain SQL."""

from dataclasses import dataclass, fields
from datetime import date, timedelta
from typing import Any

import sqlalchemy as sa

from vecsearch.errors import InvalidInput


@dataclass(frozen=True)
class Filters:
    """Conditions on the images to search; None disables a filter.

    Attributes:
        label: name of the folder.
        date_from, date_to: first and last day on which the picture was taken or, if that is
            unknown, its file was last modified (UTC).
        min_width, max_width, min_height, max_height: limits in pixels.

    """

    label: str | None = None
    date_from: date | None = None
    date_to: date | None = None
    min_width: int | None = None
    max_width: int | None = None
    min_height: int | None = None
    max_height: int | None = None

    def __bool__(self) -> bool:
        """Return whether any filter is set."""
        return bool(self.given())

    def check(self) -> None:
        """Check that images can pass.

        Raises:
            InvalidInput: a limit from below is larger than that from above.

        """
        for least, most, what in (
            (self.date_from, self.date_to, "day"),
            (self.min_width, self.max_width, "width"),
            (self.min_height, self.max_height, "height"),
        ):
            if least is not None and most is not None and least > most:  # type: ignore[operator]  # of one type
                raise InvalidInput(
                    f"The first {what}, {least}, is after the last, {most}. Swap them."
                    if what == "day"
                    else f"The least {what}, {least}, is more than the largest, {most}. Swap them."
                )

    def given(self) -> list[tuple[str, Any]]:
        """Return the filters that are set: their names and values."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return [(name, value) for name, value in values if value is not None]

    def conditions(self, columns: Any) -> list[sa.ColumnElement[bool]]:
        """Return the conditions on a collection's columns."""
        when = sa.func.coalesce(
            columns.taken_at, sa.func.timezone(sa.literal("UTC"), columns.modified_at)
        )
        given: list[sa.ColumnElement[bool]] = []
        if self.label is not None:
            given.append(columns.label == self.label)
        if self.date_from is not None:
            given.append(when >= sa.literal(self.date_from, sa.Date))
        # Include the whole last day. No date is later than date.max, so that needs no condition.
        if self.date_to is not None and self.date_to < date.max:
            after = self.date_to + timedelta(days=1)
            given.append(when < sa.literal(after, sa.Date))
        for column, least, most in (
            (columns.width, self.min_width, self.max_width),
            (columns.height, self.min_height, self.max_height),
        ):
            if least is not None:
                given.append(column >= least)
            if most is not None:
                given.append(column <= most)
        return given


NO_FILTERS = Filters()
