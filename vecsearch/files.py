"""Check that a result file can be written, and write it atomically."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vecsearch.errors import InvalidInput


def require_writable(file: Path) -> None:
    """Check that a file can be created or replaced at this path.

    Raises:
        InvalidInput: its folder does not exist, or cannot be written to.

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
    """Yield a temporary path to write to; on success it replaces the file.

    Raises:
        InvalidInput: the file cannot be written; an existing one is unchanged.

    """
    target = file.resolve()  # replace the target of a link, not the link
    partial = target.with_name(f".{target.name[:200]}.{os.getpid()}.partial")
    try:
        if target.exists() and not target.is_file():
            yield target  # a pipe or a device, such as /dev/stdout
            return
        yield partial
        partial.replace(target)
    except OSError as error:
        raise InvalidInput(
            f"{file} cannot be written: {error.strerror or error}. Name another file."
        ) from error
    finally:
        partial.unlink(missing_ok=True)
