"""One value as JSON, as a cell of CSV or of a table."""

import json
import math
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

from vecsearch.render.visible import visible


def as_json(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON; numbers that JSON lacks, NaN and infinity, are null."""
    try:
        text = json.dumps(value, ensure_ascii=False, indent=indent, default=_plain, allow_nan=False)
        return visible(text, escape=_escape)
    except ValueError:
        return as_json(_finite(value), indent)


def as_cell(value: Any, nothing: str) -> str:
    """Return a value as text; None as `nothing`."""
    if value is None:
        return nothing
    if isinstance(value, dict | list):
        return as_json(value)
    if isinstance(value, str | int | float | UUID):
        return str(value)
    return str(_plain(value))


def _escape(character: str) -> str:
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
