"""Reading `--metadata` files: CSV with a header, or JSON lines, keyed by path or file name."""

import csv
import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from vecsearch.errors import InvalidInput, first_line
from vecsearch.files import said_if_slow
from vecsearch.imaging import scan

KEY_COLUMNS = ("path", "file", "filename", "file_name", "image")


class Record(NamedTuple):
    """One line of a metadata file.

    Attributes:
        line: its number in the file, from 1.
        key: as the file has it: a path, a path below a root, or a file name.
        path: the key as an absolute path.
        metadata: JSON.

    """

    line: int
    key: str
    path: str
    metadata: dict[str, Any]


def read_records(file: Path) -> Iterator[Record]:
    """Yield the file's lines.

    The key is the column `path`, `file`, `filename`, `file_name` or `image`. CSV values are text,
    and empty ones are left out; JSON values keep their types.

    Raises:
        InvalidInput: the file cannot be read, or a line cannot be used; the error names the line.

    """
    try:
        with said_if_slow(file):
            is_special = not stat.S_ISREG(file.stat().st_mode)
        if is_special:
            raise InvalidInput(
                f"The metadata file {file} is not a regular file, and it is read twice. "
                "Save it to a file, and name that."
            )
        # utf-8-sig: spreadsheets begin a CSV with a byte order mark.
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = _csv_rows(file, lines) if file.suffix.lower() == ".csv" else _json(file, lines)
            for number, row in rows:
                _require_storable(file, number, row)
                key = next((str(row.pop(name)) for name in KEY_COLUMNS if row.get(name)), None)
                if key is None:
                    raise InvalidInput(
                        f"{file}, line {number}: no column names the image. "
                        f"Add one of: {', '.join(KEY_COLUMNS)}."
                    )
                yield Record(number, key, scan.absolute(key), row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput(
            f"The metadata file {file} cannot be read: {first_line(error)}. "
            "Use CSV or JSON lines in UTF-8."
        ) from error


def _csv_rows(file: Path, lines: Iterator[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(lines, strict=True)
    header = reader.fieldnames or []
    if len(set(header)) < len(header):
        raise InvalidInput(f"{file}, line 1: two columns have the same name. Rename one.")
    for row in reader:
        if None in row or None in row.values():
            raise InvalidInput(
                f"{file}, line {reader.line_num}: the number of fields differs from the header's. "
                "Quote values that contain commas."
            )
        yield reader.line_num, {name: value for name, value in row.items() if value}


def _require_storable(file: Path, number: int, row: dict[str, Any]) -> None:
    """Refuse what jsonb cannot store: NUL, half a surrogate pair, NaN and infinity."""
    try:
        text = json.dumps(row, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            f"{file}, line {number}: Postgres cannot store this ({error}). Change or remove it."
        ) from error
    # json.dumps writes a backslash as two, so an odd one before u0000 is an escaped NUL.
    if re.search(r"(?<!\\)(?:\\\\)*\\u0000", text):
        raise InvalidInput(
            f"{file}, line {number}: Postgres cannot store the character \\u0000. Remove it."
        )


def _json(file: Path, lines: Iterator[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(
                f"{file}, line {number}: not JSON ({error}). Write one object per line."
            ) from error
        if not isinstance(row, dict):
            raise InvalidInput(f"{file}, line {number}: not a JSON object. Write one per line.")
        yield number, row
