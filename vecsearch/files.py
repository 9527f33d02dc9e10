"""Check that a result file can be written, and write it atomically."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vecsearch.errors import InvalidInput


def require_writable(file: Path) -> None:
    """Check that a file can be created or replaced at this path, or a pipe or device written to.

    Raises:
        InvalidInput: its folder does not exist, or cannot be written to.

    """
    folder = file.absolute().parent
    with _translated(file):
        if file.is_dir():
            raise InvalidInput(f"{file} is a folder. Name a file in it.")
        if _is_special(file):
            return
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
    with _translated(file):
        if _is_special(file):
            yield file
            return
        target = file.resolve()  # replace the target of a link, not the link
        partial = target.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.partial")
        try:
            yield partial
            partial.replace(target)
        finally:
            with suppress(OSError):
                partial.unlink()


def _is_special(file: Path) -> bool:
    """Return whether this is a pipe, a device or a folder, such as /dev/stdout.

    The path is not resolved: what a pipe's resolves to does not exist.
    """
    return file.exists() and not file.is_file()


@contextmanager
def _translated(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidInput(
            f"{file} cannot be written: {error.strerror or error}. Name another file."
        ) from error
