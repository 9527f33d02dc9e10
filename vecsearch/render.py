"""How things look: rows in five formats, sizes and counts in words, contact sheets."""

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, is_dataclass
from datetime import date
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO
from uuid import UUID

from vecsearch import images
from vecsearch.errors import InvalidInput

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    from vecsearch.queries.nearest import Hit


class Format(StrEnum):
    """How rows are printed."""

    table = "table"
    json = "json"
    ndjson = "ndjson"
    csv = "csv"
    paths = "paths"


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
        out: where to.
        rows: what.
        format_: how; `paths` prints the column `path` alone, one a line, for xargs.
        columns: every column.
        table_columns: the ones that a table shows; None is all.

    Raises:
        InvalidInput: `paths`, and the rows have none.

    """
    records = (_record(row, columns) for row in rows)
    if format_ is Format.paths:
        if "path" not in columns:
            raise InvalidInput("These rows have no path. Use another --format.")
        out.writelines(f"{record['path']}\n" for record in records)
    elif format_ is Format.ndjson:
        out.writelines(f"{_json(record)}\n" for record in records)
    elif format_ is Format.json:
        out.write(f"{_json(list(records), indent=2)}\n")
    elif format_ is Format.csv:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(columns)
        for record in records:
            writer.writerow([_cell(record[name], "") for name in columns])
    else:
        _write_table(out, records, table_columns or columns)


def require_object_format(format_: Format | None) -> None:
    """Refuse a format that cannot show one object, before the work that makes it.

    Raises:
        InvalidInput: it is `paths`.

    """
    if format_ is Format.paths:
        raise InvalidInput("This prints no paths. Use another --format.")


def write_object(out: TextIO, value: dict[str, Any], format_: Format) -> None:
    """Print one object: as JSON, indented or on one line, or as CSV with a header."""
    if format_ in {Format.csv, Format.paths}:
        write_rows(out, [tuple(value.values())], format_, list(value))
    else:
        out.write(f"{_json(value, indent=2 if format_ is Format.json else None)}\n")


def human_bytes(size: int) -> str:
    """Return a size in the largest unit that keeps it above one: 1536 is "1.5 kB"."""
    number = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1024:  # noqa: PLR2004 - the definition of the units
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TB"


def _record(row: Any, columns: Sequence[str]) -> dict[str, Any]:
    if is_dataclass(row) and not isinstance(row, type):
        fields = asdict(row)
        return {name: fields[name] for name in columns}
    return dict(zip(columns, row, strict=True))


def _json(value: Any, indent: int | None = None) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, indent=indent, default=_plain, allow_nan=False)
    except ValueError:
        # JSON has no word for NaN and infinity.
        return _json(_finite(value), indent)


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
        table.add_column(name.replace("_", " "), overflow="fold")
    for record in records:
        # Text: a path may hold what rich takes for markup.
        table.add_row(*(Text(_shown(record[name])) for name in columns))
    if table.row_count:
        Console(file=out).print(table)


def _shown(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else _cell(value, "–")


TILE = 224
CAPTION = 44
MARGIN = 16
COLUMNS = 6


def contact_sheet(
    query: Path | bytes, hits: "Sequence[Hit]", *, title: str, max_pixels: int
) -> "Picture":
    """Draw the query, then each hit with its rank, distance and file name.

    A hit whose file cannot be read is drawn as a grey tile that says so.
    """
    import PIL.Image
    from PIL import ImageDraw, ImageFont

    columns = min(COLUMNS, max(len(hits), 1) + 1)
    rows = math.ceil((len(hits) + 1) / columns)
    cell = (TILE + MARGIN, TILE + CAPTION + MARGIN)
    header = 44
    sheet = PIL.Image.new(
        "RGB", (columns * cell[0] + MARGIN, rows * cell[1] + MARGIN + header), "white"
    )
    draw = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(18), ImageFont.load_default(14)
    draw.text((MARGIN, MARGIN), _fit(draw, title, large, sheet.width - 2 * MARGIN), "black", large)
    tiles: list[tuple[Path | bytes, str, str]] = [
        (query, "query", "" if isinstance(query, bytes) else query.name)
    ]
    tiles += [
        (Path(hit.path), f"{hit.rank}.  {hit.distance:.4f}", Path(hit.path).name) for hit in hits
    ]
    for position, (source, caption, name) in enumerate(tiles):
        x = MARGIN + position % columns * cell[0]
        y = MARGIN + header + position // columns * cell[1]
        tile = _tile(source, max_pixels)
        if tile is None:
            draw.rectangle((x, y, x + TILE, y + TILE), fill="#d0d0d0")
            draw.text((x + 12, y + TILE / 2 - 8), "The file cannot be read", "#404040", small)
        else:
            sheet.paste(tile, (x + (TILE - tile.width) // 2, y + (TILE - tile.height) // 2))
        if position == 0:
            draw.rectangle((x - 4, y - 4, x + TILE + 3, y + TILE + 3), outline="#d02020", width=3)
        draw.text((x, y + TILE + 5), caption, "#d02020" if position == 0 else "black", large)
        draw.text((x, y + TILE + 27), _fit(draw, name, small, TILE), "#606060", small)
    return sheet


def save_picture(picture: "Picture", path: Path) -> None:
    """Write a picture in the format its suffix names, whole or not at all.

    Raises:
        InvalidInput: the suffix names no format, or the file cannot be written.

    """
    buffer = io.BytesIO()
    try:
        picture.save(buffer, format=picture_format(path))
        path.write_bytes(buffer.getvalue())
    except InvalidInput:
        raise
    except Exception as error:  # each format has its own way to say that it cannot
        raise InvalidInput(
            f"{path} cannot be written: {getattr(error, 'strerror', None) or error}. "
            "Choose another file; .png suits any size."
        ) from error


def picture_format(path: Path) -> str:
    """Return Pillow's name of the format that a file's suffix asks for.

    Raises:
        InvalidInput: none that can be written.

    """
    import PIL.Image

    formats = PIL.Image.registered_extensions()
    found = formats.get(path.suffix.lower())
    if found is None or found not in PIL.Image.SAVE:
        raise InvalidInput(f"{path} names no picture format by its suffix. Use .png.")
    return found


def require_picture_file(path: Path) -> None:
    """Check that a picture can be written to `path`, before the work that draws it.

    Raises:
        InvalidInput: its suffix names no format, or its folder cannot be written to.

    """
    picture_format(path)
    if not os.access(path.absolute().parent, os.W_OK):
        raise InvalidInput(
            f"The folder {path.absolute().parent} cannot be written to. Choose another file."
        )


def _tile(source: Path | bytes, max_pixels: int) -> "Picture | None":
    image = (
        images.decode(source, "the query", max_pixels=max_pixels)
        if isinstance(source, bytes)
        else images.load(str(source), max_pixels=max_pixels)
    )
    if isinstance(image, images.Unreadable):
        return None
    tile = image.pixels
    scale = TILE / max(tile.size)
    width, height = (max(1, round(side * scale)) for side in tile.size)
    return tile.resize((width, height))


def _fit(draw: Any, text: str, font: Any, width: int) -> str:
    text = " ".join(text.split())
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength(f"{text}…", font) > width:
        text = text[:-1]
    return f"{text}…"
