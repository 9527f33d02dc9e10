"""Rows in several formats; sizes and numbers for people."""

import csv
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import is_dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Any, TextIO
from uuid import UUID

from vecsearch.errors import InvalidInput
from vecsearch.render.visible import shown, visible


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
) -> None:
    """Print rows: dataclasses, or tuples in the order of `columns`.

    Args:
        out: the stream to print to.
        rows: the rows.
        format_: `paths` and `paths0` print only the column `path`.
        columns: all columns.
        table_columns: the columns of a table; None: all.

    To a pipe, CSV and paths are what is stored; on a terminal, what it would obey is escaped. JSON
    and tables escape it everywhere.

    Raises:
        InvalidInput: the format is `paths`, and the rows have no path, or one with a line break.

    """
    records = (_record(row, columns) for row in rows)
    if format_.lists_paths:
        if "path" not in columns:
            raise InvalidInput("These rows have no path. Use another --format.")
        end = "\n" if format_ is Format.paths else "\0"
        # Whole before any is written, because one path may be refused.
        out.writelines([f"{shown(out, _path(record, end), keep='')}{end}" for record in records])
    elif format_ is Format.ndjson:
        out.writelines(f"{_json(record)}\n" for record in records)
    elif format_ is Format.json:
        out.write(f"{_json(list(records), indent=2)}\n")
    elif format_ is Format.csv:
        _write_csv(out, [columns])
        _write_csv(out, ([_cell(record[name], "") for name in columns] for record in records))
    else:
        _write_table(out, records, table_columns or columns)


def require_object_format(format_: Format | None) -> None:
    """Refuse a format that cannot print one object, before the work that produces it.

    Raises:
        InvalidInput: the format prints paths.

    """
    if format_ is not None and format_.lists_paths:
        raise InvalidInput("This command prints no paths. Use another --format.")


def write_object(out: TextIO, value: dict[str, Any], format_: Format) -> None:
    """Print one object: as JSON, indented or on one line, or as CSV with a header."""
    if format_ is Format.csv or format_.lists_paths:
        write_rows(out, [tuple(value.values())], format_, list(value))
    else:
        out.write(f"{_json(value, indent=2 if format_ is Format.json else None)}\n")


def human_bytes(size: int) -> str:
    """Return a size in the largest unit in which it is at least one: 1536 is "1.5 kB"."""
    number = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1024:  # noqa: PLR2004 - the definition of the units
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TB"


def human_time(seconds: float) -> str:
    """Return a time in the largest unit of which there are two at least: 7200 is "2 h"."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def human_number(value: float) -> str:
    """Return a number with enough digits to tell close ones apart: four decimals, if it can."""
    size = abs(value)
    if size >= 1e6:  # noqa: PLR2004 - seven digits are hard to count
        return f"{value:.4e}"
    decimals = 1 if size >= 100 else 6 if 0 < size < 0.01 else 4  # noqa: PLR2004 - five digits
    # Adding 0.0 makes -0.0 positive.
    return f"{round(value, decimals) + 0.0:,.{decimals}f}"


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


def _json(value: Any, indent: int | None = None) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, indent=indent, default=_plain, allow_nan=False)
        return visible(text, escape=_json_escape)
    except ValueError:
        # JSON has neither NaN nor infinity.
        return _json(_finite(value), indent)


def _json_escape(character: str) -> str:
    return json.dumps(character)[1:-1]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float | Decimal) and not math.isfinite(value):
        return None
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, date):  # and so datetime
        return value.isoformat()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes | memoryview):
        return f"\\x{bytes(value).hex()}"
    return str(value)


def _cell(value: Any, nothing: str) -> str:
    if value is None:
        return nothing
    if isinstance(value, dict | list):
        return _json(value)
    if isinstance(value, str | int | float | UUID):
        return str(value)
    return str(_plain(value))


def _write_table(out: TextIO, records: Iterator[dict[str, Any]], columns: Sequence[str]) -> None:
    import rich.box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=rich.box.SIMPLE, pad_edge=False)
    for name in columns:
        table.add_column(Text(visible(name.replace("_", " "), keep="")), overflow="fold")
    for record in records:
        # Text, because rich would read parts of some paths as markup.
        table.add_row(*(Text(visible(_shown(record[name]), keep="")) for name in columns))
    if table.row_count:
        Console(file=out).print(table)


def _shown(value: Any) -> str:
    return human_number(value) if isinstance(value, float) else _cell(value, "–")
