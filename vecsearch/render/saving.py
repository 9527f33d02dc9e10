"""Results written to files: figures in many formats, and pages."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vecsearch.errors import InvalidInput
from vecsearch.files import require_writable, written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Names of matplotlib by suffix.
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
    """Write a figure in the format of the file's suffix, completely or not at all.

    Raises:
        InvalidInput: the format is unknown, or the file cannot be written.

    """
    format_ = picture_format(path)
    buffer = io.BytesIO()
    options: dict[str, Any] = {"pil_kwargs": {"quality": 92}} if format_ in {"jpg", "webp"} else {}
    try:
        figure.savefig(buffer, format=format_, dpi="figure", **options)
    except Exception as error:  # each format raises its own errors
        raise InvalidInput(
            f"{path} cannot be written: {error}. Use another format; .png suits any size."
        ) from error
    with written_whole(path) as partial:
        partial.write_bytes(buffer.getvalue())


def picture_format(path: Path) -> str:
    """Return matplotlib's name of the format of a file's suffix.

    Raises:
        InvalidInput: the format is unknown.

    """
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        raise InvalidInput(f"{path}: unknown image format. Use {', '.join(FORMATS)}.")
    return found


def require_picture_file(path: Path) -> None:
    """Check that a figure can be written to `path`, before it is drawn.

    Raises:
        InvalidInput: the format is unknown, or the folder cannot be written to.

    """
    picture_format(path)
    require_writable(path)


def require_report_file(path: Path) -> None:
    """Check that a page can be written to `path`, before it is built.

    Raises:
        InvalidInput: the suffix is not that of a page, or the folder cannot be written to.

    """
    if path.suffix.lower() not in PAGES:
        raise InvalidInput(f"{path}: unknown page format. Use .html.")
    require_writable(path)
