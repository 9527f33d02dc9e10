"""Files that results are written to: whether one can be there, and writing it whole."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vecsearch.errors import InvalidInput


def require_writable(file: Path) -> None:
    """Check that a file can be written at this place, over one that may be there.

    Raises:
        InvalidInput: its folder is not there, or it cannot be written to.

    """
    folder = file.absolute().parent
    if file.is_dir():
        raise InvalidInput(f"{file} is a folder. Name a file in it.")
    if not folder.is_dir():
        raise InvalidInput(f"The folder {folder} does not exist. Create it, or name another file.")
    if not os.access(folder, os.W_OK):
        raise InvalidInput(f"The folder {folder} cannot be written to. Name another file.")


@contextmanager
def written_whole(file: Path) -> Iterator[Path]:
    """Yield a path to write to, which takes the file's place at the end; on failure nothing does.

    Raises:
        InvalidInput: it cannot be written; what was there before stays.

    """
    target = file.resolve()  # a link stays a link
    partial = target.with_name(f".{target.name[:200]}.{os.getpid()}.partial")
    try:
        if target.exists() and not target.is_file():
            yield target  # a pipe or a device, /dev/stdout say
            return
        yield partial
        partial.replace(target)
    except OSError as error:
        raise InvalidInput(
            f"{file} cannot be written: {error.strerror or error}. Name another file."
        ) from error
    finally:
        partial.unlink(missing_ok=True)
