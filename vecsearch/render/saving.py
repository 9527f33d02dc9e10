"""Files that are written whole or not at all: pictures in many formats, pages."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vecsearch.errors import InvalidInput
from vecsearch.files import require_writable, written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# By suffix: what matplotlib calls it.
FORMATS = {
    ".png": "png",
    ".jpg": "jpg",
    ".jpeg": "jpg",
    ".webp": "webp",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".pdf": "pdf",
    ".svg": "svg",
}
PAGES = (".html", ".htm")


def save_picture(figure: "Figure", path: Path) -> None:
    """Write a figure in the format its suffix names, whole or not at all.

    Raises:
        InvalidInput: the suffix names no format, or the file cannot be written.

    """
    format_ = picture_format(path)
    buffer = io.BytesIO()
    options: dict[str, Any] = {"pil_kwargs": {"quality": 92}} if format_ in {"jpg", "webp"} else {}
    try:
        figure.savefig(buffer, format=format_, dpi="figure", **options)
    except Exception as error:  # each format has its own way to say that it cannot
        raise InvalidInput(
            f"{path} cannot be written: {error}. Choose another file; .png suits any size."
        ) from error
    with written_whole(path) as partial:
        partial.write_bytes(buffer.getvalue())


def picture_format(path: Path) -> str:
    """Return the name of the format that a file's suffix asks for.

    Raises:
        InvalidInput: none that can be written.

    """
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        raise InvalidInput(
            f"{path} names no picture format by its suffix. Use {', '.join(FORMATS)}."
        )
    return found


def require_picture_file(path: Path) -> None:
    """Check that a picture can be written to `path`, before the work that draws it.

    Raises:
        InvalidInput: its suffix names no format, or its folder cannot be written to.

    """
    picture_format(path)
    require_writable(path)


def require_report_file(path: Path) -> None:
    """Check that a page can be written to `path`, before the work that makes it.

    Raises:
        InvalidInput: its suffix is not a page's, or its folder cannot be written to.

    """
    if path.suffix.lower() not in PAGES:
        raise InvalidInput(f"{path} is not named as a page. Use .html.")
    require_writable(path)
