"""Reading `--metadata` files: CSV with a header, or JSON lines, keyed by path or file name."""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vecsearch.errors import InvalidInput

KEY_COLUMNS = ("path", "file", "filename", "file_name", "image")
Record = tuple[str, str, dict[str, Any]]


def read_records(file: Path) -> Iterator[Record]:
    """Yield (key, absolute path, metadata) for each line.

    The key is the column `path`, `file`, `filename`, `file_name` or `image`. CSV values are text,
    and empty ones are left out; JSON values keep their types.

    Raises:
        InvalidInput: the file cannot be read, or a line cannot be understood; it is named.

    """
    try:
        # utf-8-sig: spreadsheets begin a CSV with a byte order mark.
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = _csv_rows(file, lines) if file.suffix.lower() == ".csv" else _json(file, lines)
            for number, row in rows:
                _require_storable(file, number, row)
                key = next((str(row.pop(name)) for name in KEY_COLUMNS if row.get(name)), None)
                if key is None:
                    raise InvalidInput(
                        f"{file}, line {number}: nothing says which image it is about. "
                        f"Name it in one of: {', '.join(KEY_COLUMNS)}."
                    )
                yield key, str(Path(key).absolute()), row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput(
            f"The metadata file {file} cannot be read: {error}. Give a CSV or JSON lines in UTF-8."
        ) from error


def _csv_rows(file: Path, lines: Iterator[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(lines, strict=True)
    header = reader.fieldnames or []
    if len(set(header)) < len(header):
        raise InvalidInput(f"{file}, line 1: two columns have one name. Rename one.")
    for row in reader:
        if None in row or None in row.values():
            raise InvalidInput(
                f"{file}, line {reader.line_num}: it has not as many fields as the header. "
                "Quote values that hold commas."
            )
        yield reader.line_num, {name: value for name, value in row.items() if value}


def _require_storable(file: Path, number: int, row: dict[str, Any]) -> None:
    """Refuse what Postgres' jsonb cannot hold: NUL, half a surrogate pair, NaN and infinity."""
    try:
        text = json.dumps(row, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            f"{file}, line {number}: Postgres cannot hold this ({error}). Change or remove it."
        ) from error
    # json.dumps writes a backslash as two, so an odd one before u0000 is an escaped NUL.
    if re.search(r"(?<!\\)(?:\\\\)*\\u0000", text):
        raise InvalidInput(
            f"{file}, line {number}: Postgres cannot hold the character \\u0000. Remove it."
        )


def _json(file: Path, lines: Iterator[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(
                f"{file}, line {number}: not JSON ({error}). Give one object a line."
            ) from error
        if not isinstance(row, dict):
            raise InvalidInput(f"{file}, line {number}: not an object. Give one object a line.")
        yield number, row
