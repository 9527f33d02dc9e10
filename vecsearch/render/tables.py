"""Tables for people: as wide as the terminal at most, and no header or path is ever broken.

Paths are relative where they are below the current folder. What is still too wide is narrowed in
this order: paths lose folders in their middle, sentences wrap at words; and where even that does
not do, each row becomes a paragraph.
"""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from rich.box import SIMPLE
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vecsearch.render.figures import human_numbers, human_shares
from vecsearch.render.values import as_cell
from vecsearch.render.visible import visible

NOTHING = "–"
CUT = "…"
GAP = 2
# The least widths of columns of paths and of sentences.
LEAST_PATH, LEAST_TEXT = 24, 16
# Decimals of percentages, by name of the column, without `@k`.
SHARES = {
    "similarity": 0,
    "recall": 1,
    "precision": 1,
    "map": 1,
    "chosen_map": 1,
    "all_map": 1,
}


def write(
    out: TextIO,
    records: Iterable[dict[str, Any]],
    names: Sequence[str],
    *,
    hides_empty: bool = True,
    width: int | None = None,
) -> None:
    """Print a table, or nothing if there are no records.

    Args:
        out: the stream to print to.
        records: the rows, by column.
        names: the columns to print.
        hides_empty: leave out columns that have no value in any row.
        width: in characters; None: the terminal's, and of a pipe as wide as the rows are.

    """
    rows = list(records)
    columns = [_column(name, [record[name] for record in rows]) for name in names]
    full = [column for column in columns if not hides_empty or not column.is_empty]
    if not rows or not full:
        return
    if width is None and out.isatty():
        width = shutil.get_terminal_size().columns
    widths = _widths(full, width)
    if widths is None:
        _write_paragraphs(out, full, len(rows))
    else:
        _write_grid(out, full, widths)


@dataclass(frozen=True)
class _Column:
    """A column as text.

    Attributes:
        header: its name.
        cells: one of each row.
        is_number: whether it is aligned to the right.
        is_path: whether its cells may lose their middle.

    """

    header: str
    cells: list[str]
    is_number: bool
    is_path: bool

    @property
    def is_empty(self) -> bool:
        """Whether no row has a value."""
        return all(cell in {"", NOTHING} for cell in self.cells)

    @property
    def width(self) -> int:
        """The characters that it takes on a line."""
        return max(map(cell_len, [self.header, *self.cells]))

    @property
    def least(self) -> int:
        """The characters that it needs."""
        if self.is_number:
            return self.width
        if self.is_path:
            return min(self.width, max(cell_len(self.header), LEAST_PATH))
        words = [word for cell in self.cells for word in cell.split()]
        return min(self.width, max(LEAST_TEXT, *map(cell_len, [self.header, *words])))


def _column(name: str, values: Sequence[Any]) -> _Column:
    is_path = name == "path" or name.endswith("_path")
    given = [value for value in values if value is not None]
    is_number = bool(given) and all(isinstance(value, int | float) for value in given)
    is_number &= not any(isinstance(value, bool) for value in given)
    if is_number and any(isinstance(value, float) for value in given):
        decimals = SHARES.get(name.partition("@")[0])
        floats = [float(value) for value in given]
        texts = iter(human_numbers(floats) if decimals is None else human_shares(floats, decimals))
        cells = [NOTHING if value is None else next(texts) for value in values]
    elif is_path:
        cells = [NOTHING if value is None else _relative(str(value)) for value in values]
    else:
        cells = [_cell(value) for value in values]
    shown = [visible(cell, keep="") for cell in cells]
    return _Column(visible(name.replace("_", " "), keep=""), shown, is_number, is_path)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime):
        return value.isoformat(" ", "seconds")
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value) or NOTHING
    return as_cell(value, NOTHING)


def _relative(path: str) -> str:
    """Return a path relative to the current folder, if it is below it."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except (ValueError, OSError):  # elsewhere, a URL, or the current folder is gone
        return path


def _widths(columns: Sequence[_Column], width: int | None) -> list[int] | None:
    """Return the columns' widths within that of the table; None if they do not fit."""
    widths = [column.width for column in columns]
    if width is None:
        return widths
    excess = sum(widths) + GAP * (len(columns) - 1) - width
    for is_path in (True, False):
        shrinking = [i for i, column in enumerate(columns) if column.is_path is is_path]
        while excess > 0 and shrinking:
            widest = max(shrinking, key=lambda i: widths[i] - columns[i].least)
            if widths[widest] == columns[widest].least:
                break
            widths[widest] -= 1
            excess -= 1
    return widths if excess <= 0 else None


def _write_grid(out: TextIO, columns: Sequence[_Column], widths: Sequence[int]) -> None:
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for column, width in zip(columns, widths, strict=True):
        justify = "right" if column.is_number else "left"
        table.add_column(Text(column.header), width=width, justify=justify)  # type: ignore[arg-type]
    fitted = [
        [shortened(cell, width) for cell in column.cells] if column.is_path else column.cells
        for column, width in zip(columns, widths, strict=True)
    ]
    for cells in zip(*fitted, strict=True):
        # Text, because rich would read parts of some paths as markup.
        table.add_row(*map(Text, cells))
    Console(file=out, width=sum(widths) + GAP * len(columns)).print(table)


def _write_paragraphs(out: TextIO, columns: Sequence[_Column], rows: int) -> None:
    names = max(cell_len(column.header) for column in columns)
    for row in range(rows):
        for column in columns:
            padding = " " * (names - cell_len(column.header) + GAP)
            out.write(f"{column.header}{padding}{column.cells[row]}\n")
        if row < rows - 1:
            out.write("\n")


def shortened(path: str, width: int) -> str:
    """Return a path in so many characters: without folders in its middle, or with half a name."""
    if cell_len(path) <= width:
        return path
    *folders, name = path.split("/")
    first = "/".join(folders[: 1 + (folders[:1] == [""])])
    # The last folders tell neighbours apart, so those after the first go.
    for start in ([first, CUT], [CUT]):
        for dropped in range(len(start), len(folders) + 1):
            found = "/".join([*start, *folders[dropped:], name])
            if folders and cell_len(found) <= width:
                return found
    tail = _end(name, (width - 1) // 2)
    return f"{_start(name, width - 1 - cell_len(tail))}{CUT}{tail}"


def _start(text: str, width: int) -> str:
    """Return the first characters of a text that take so much room at most."""
    while cell_len(text) > width:
        text = text[:-1]
    return text


def _end(text: str, width: int) -> str:
    while cell_len(text) > width:
        text = text[1:]
    return text
