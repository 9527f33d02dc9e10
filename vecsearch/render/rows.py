"""Rows and objects in several formats."""

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import is_dataclass
from enum import StrEnum
from typing import Any, TextIO

from vecsearch.errors import InvalidInput
from vecsearch.render.values import as_cell, as_json
from vecsearch.render.visible import shown

# Marks rows and objects of a dry run.
DRY_RUN = {"dry_run": True}


class Format(StrEnum):
    """How rows are printed."""

    table = "table"
    json = "json"
    ndjson = "ndjson"
    csv = "csv"
    paths = "paths"
    paths0 = "paths0"

    @property
    def lists_paths(self) -> bool:
        """Whether nothing but paths is printed: one a line, or each ended by NUL, for xargs -0."""
        return self in {Format.paths, Format.paths0}


def write_rows(
    out: TextIO,
    rows: Iterable[Any],
    format_: Format,
    columns: Sequence[str],
    *,
    table_columns: Sequence[str] | None = None,
    hides_empty: bool = True,
    dry_run: bool = False,
    lists: Callable[[dict[str, Any]], bool] = lambda _: True,
) -> None:
    """Print rows: dataclasses, or tuples in the order of `columns`.

    Args:
        out: the stream to print to.
        rows: the rows.
        format_: `paths` and `paths0` print only the column `path`.
        columns: all columns.
        table_columns: the columns of a table; None: all.
        hides_empty: leave out a table's columns that have no value.
        dry_run: mark rows, except those of a table, with another column.
        lists: tells of a row, by column, whether `paths` and `paths0` print its path.

    To a pipe, CSV and paths are what is stored; on a terminal, what it would obey is escaped. JSON
    and tables escape it everywhere.

    Raises:
        InvalidInput: the format is `paths`, and the rows have no path, or one with a line break.

    """
    more = DRY_RUN if dry_run else {}
    records = (_record(row, columns) | more for row in rows)
    if format_.lists_paths:
        if "path" not in columns:
            raise InvalidInput("These rows have no path. Use another --format.")
        end = "\n" if format_ is Format.paths else "\0"
        # Whole before any is written, because one path may be refused.
        paths = [_path(record, end) for record in records if lists(record)]
        out.writelines([f"{shown(out, path, keep='')}{end}" for path in paths])
    elif format_ is Format.ndjson:
        out.writelines(f"{as_json(record)}\n" for record in records)
    elif format_ is Format.json:
        out.write(f"{as_json(list(records), indent=2)}\n")
    elif format_ is Format.csv:
        names = [*columns, *more]
        _write_csv(out, [names])
        _write_csv(out, ([as_cell(record[name], "") for name in names] for record in records))
    else:
        from vecsearch.render import tables

        shown_columns = table_columns or columns
        tables.write(out, records, shown_columns, hides_empty=hides_empty)


def require_object_format(format_: Format | None) -> None:
    """Refuse a format that cannot print one object, before the work that produces it.

    Raises:
        InvalidInput: the format prints paths.

    """
    if format_ is not None and format_.lists_paths:
        raise InvalidInput("This command prints no paths. Use another --format.")


def write_object(
    out: TextIO, value: dict[str, Any], format_: Format, *, dry_run: bool = False
) -> None:
    """Print one object: as JSON, indented or on one line, or as CSV with a header.

    That of a dry run is marked.
    """
    if dry_run:
        value |= DRY_RUN
    if format_ is Format.csv or format_.lists_paths:
        write_rows(out, [tuple(value.values())], format_, list(value))
    else:
        out.write(f"{as_json(value, indent=2 if format_ is Format.json else None)}\n")


def _record(row: Any, columns: Sequence[str]) -> dict[str, Any]:
    if is_dataclass(row) and not isinstance(row, type):
        return {name: getattr(row, name) for name in columns}
    return dict(zip(columns, row, strict=True))


def _write_csv(out: TextIO, rows: Iterable[Sequence[str]]) -> None:
    plain = csv.writer(out, lineterminator="\n")
    # Python does not quote a carriage return alone, at which readers end the row.
    quoting = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        cells = [shown(out, cell) for cell in row]
        (quoting if any("\r" in cell for cell in cells) else plain).writerow(cells)


def _path(record: dict[str, Any], end: str) -> str:
    path = str(record["path"])
    if end in path:
        raise InvalidInput(
            f"A path has a line break, {path!r}, so lines cannot list it. "
            "Use -0 or --format paths0, and xargs -0."
        )
    return path
