"""Check that a result file can be written, write it atomically, and read slow ones with a word."""

import fcntl
import logging
import os
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vecsearch.errors import InvalidInput
from vecsearch.vocabulary import SAY_AFTER_S

_PARTIAL = re.compile(r"\.\d+-[0-9a-f]{8}\.partial")
_log = logging.getLogger(__name__)


@contextmanager
def said_if_slow(file: Path | str) -> Iterator[None]:
    """Say what is waited for, if it takes long to open and read a file.

    It may be a pipe that nobody writes to, or be on a network share or server that does not answer.
    """
    timer = threading.Timer(SAY_AFTER_S, _log.warning, ("Waiting for the file %s.", file))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


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
def written_whole(file: Path, mode: int = 0o666) -> Iterator[Path]:
    """Yield a temporary path to write to; on success it replaces the file.

    Args:
        file: a file, a pipe or a device.
        mode: permissions of a file, less those of the umask.

    Raises:
        InvalidInput: the file cannot be written; an existing one is unchanged.

    """
    with _translated(file):
        if _is_special(file):
            yield file
            return
        target = file.resolve()  # replace the target of a link, not the link
        _remove_abandoned(target.parent)
        partial, held = _create_partial(target, mode)
        try:
            yield partial
            partial.replace(target)
        finally:
            os.close(held)
            with suppress(OSError):
                partial.unlink()


def _create_partial(target: Path, mode: int) -> tuple[Path, int]:
    """Create an empty file beside another, and hold it for as long as this process lives."""
    while True:
        partial = target.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.partial")
        held = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
        with suppress(OSError):
            fcntl.flock(held, fcntl.LOCK_EX)
        if os.fstat(held).st_nlink:
            return partial, held
        os.close(held)  # another process has just taken it for abandoned


def _remove_abandoned(folder: Path) -> None:
    """Remove the temporary files of processes that were killed: nobody holds them."""
    for left in folder.glob(".*.partial"):
        if not _PARTIAL.fullmatch(left.name):
            continue
        # Another user's, one that is written, or one on a file system that has no locks.
        with suppress(OSError):
            held = os.open(left, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()
            finally:
                os.close(held)


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
