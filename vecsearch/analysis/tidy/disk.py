"""Files moved and replaced by links, so that at no moment the only copy is in danger.

A file's content is compared with its stored SHA-256 just before it is touched. Whatever takes its
name is put there only if nothing else has it. A process that is killed in between leaves the file
under its own name or under the one that the journal has recorded before.
"""

import errno
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from vecsearch.errors import VecsearchError
from vecsearch.imaging import reading
from vecsearch.imaging.scan import Unreadable
from vecsearch.imaging.sources.remote import is_url

CHANGED = "It has changed since it was ingested."
# Suffix of a file set aside, beside its own name.
ASIDE = ".vecsearch"


class LeftAlone(VecsearchError):
    """A file is left as it is; the message says why."""


def check(path: str, sha256: str) -> os.stat_result:
    """Return the status of a regular file that has this content.

    Raises:
        LeftAlone: there is none, or its content is another.

    """
    if is_url(path):
        raise LeftAlone(
            "It is no file of its own: it is behind a URL, in an archive or in a video."
        )
    try:
        info = os.lstat(path)
    except FileNotFoundError as error:
        raise LeftAlone("It is gone.") from error
    except OSError as error:
        raise LeftAlone(f"It cannot be examined: {error.strerror}.") from error
    if stat.S_ISLNK(info.st_mode):
        raise LeftAlone("It is a symbolic link.")
    if not stat.S_ISREG(info.st_mode):
        raise LeftAlone("It is not a regular file.")
    _require_content(path, sha256, CHANGED)
    return info


def has_content(path: str, sha256: str) -> bool:
    """Return whether the file at `path`, or the one that a link there names, has this content."""
    found = reading.hashed(path, keep=0, most=sys.maxsize)
    return not isinstance(found, Unreadable) and found.sha256 == sha256


def aside(path: str) -> str:
    """Return an unused name beside a file, to set it aside by."""
    folder, name = os.path.split(path)
    return str(Path(folder) / f".{name[:100]}.{secrets.token_hex(4)}{ASIDE}")


def move(source: str, target: str, sha256: str) -> None:
    """Move a file with this content to a path that nothing has, onto another file system, too.

    Raises:
        LeftAlone: the target exists, or the file has changed meanwhile.
        OSError: the file cannot be moved; it is where it was.

    """
    known = check(source, sha256)
    _reserve(target)
    try:
        os.replace(source, target)  # noqa: PTH105 - strings throughout
    except OSError as error:
        if error.errno != errno.EXDEV:
            _drop_reserved(target)
            raise
        arriving = _partial(target)
        try:
            _copy(source, arriving, sha256)
        except (LeftAlone, OSError):
            _drop_reserved(target)
            raise
        os.replace(arriving, target)  # noqa: PTH105 - likewise
        _require_unchanged(source, known, undo=lambda: Path(target).unlink())
        try:
            Path(source).unlink(missing_ok=True)
        except OSError:
            Path(target).unlink()
            raise
    else:
        _require_unchanged(target, known, undo=lambda: _put_back(target, source))
    _settle_folder(target)
    _settle_folder(source)


def replace_by_link(path: str, kept: str, set_aside: str, sha256: str, *, symbolic: bool) -> None:
    """Put a link to a file of the same content in the place of another.

    Args:
        path: the file to replace.
        kept: the file to link to.
        set_aside: the name that the file has in between, from `aside`.
        sha256: the content of both.
        symbolic: make a symbolic link, instead of a hard one.

    Raises:
        LeftAlone: one of them has changed meanwhile, or they are one file already.
        OSError: the file system has no such link; the file is where it was.

    """
    known = check(path, sha256)
    if Path(path).samefile(kept):
        raise LeftAlone("It is the same file as the one that is kept.")
    os.rename(path, set_aside)  # noqa: PTH104 - likewise
    try:
        _require_unchanged(set_aside, known, undo=lambda: None)
        (os.symlink if symbolic else os.link)(kept, path)
        _require_content(path, sha256, "The file that is kept has changed.")
    except (LeftAlone, OSError):
        if is_link_to(path, kept, symbolic=symbolic):
            Path(path).unlink()
        _put_back(set_aside, path)
        raise
    _settle_folder(path)
    Path(set_aside).unlink()


def replace_link(path: str, sha256: str, *, modified_ns: int, mode: int) -> None:
    """Put a copy of its content in the place of a link, with the times and rights it had.

    Raises:
        LeftAlone: what is there has another content.
        OSError: the copy cannot be written; the link is as it was.

    """
    _require_content(path, sha256, "What is in its place has another content.")
    made = _partial(path)
    try:
        _copy(path, made, sha256)
        Path(made).chmod(stat.S_IMODE(mode))
        os.utime(made, ns=(modified_ns, modified_ns))
        os.replace(made, path)  # noqa: PTH105 - likewise
    finally:
        Path(made).unlink(missing_ok=True)
    _settle_folder(path)


def is_link_to(path: str, kept: str, *, symbolic: bool) -> bool:
    """Return whether this is the link that `replace_by_link` makes."""
    try:
        if symbolic:
            return Path(path).is_symlink() and str(Path(path).readlink()) == kept
        return not Path(path).is_symlink() and Path(path).samefile(kept)
    except OSError:
        return False


def bring_back(set_aside: str, path: str, kept: str, sha256: str, *, symbolic: bool) -> bool:
    """End a replacement that was interrupted; return whether the link is in its place.

    Raises:
        LeftAlone: it is nowhere, or another file has the name of the one that was set aside.

    """
    is_aside = os.path.lexists(set_aside)
    # It is removed only after the link has shown its content.
    is_linked = is_link_to(path, kept, symbolic=symbolic)
    if is_linked and (not is_aside or has_content(path, sha256)):
        Path(set_aside).unlink(missing_ok=True)
        return True
    if is_aside:
        if os.path.lexists(path):
            raise LeftAlone(f"Another file has its name. It is at {set_aside}.")
        os.rename(set_aside, path)  # noqa: PTH104 - likewise
    elif not os.path.lexists(path):
        raise LeftAlone(f"It is neither at {path} nor at {set_aside}.")
    return False


def remove_copy(path: str, sha256: str) -> None:
    """Remove what an interrupted move has left at its target, while the file is where it was."""
    with suppress(OSError):
        if os.lstat(path).st_size == 0 or has_content(path, sha256):
            Path(path).unlink()


def require_free(path: str) -> None:
    """Check that nothing is at a path but, at most, an empty file.

    Raises:
        LeftAlone: something else is.

    """
    with suppress(FileNotFoundError):
        info = os.lstat(path)
        if not stat.S_ISREG(info.st_mode) or info.st_size:
            raise LeftAlone(f"There is another file at {path}.")


def _reserve(path: str) -> None:
    """Create an empty file at a path; one that is there already, and empty, serves as well."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        require_free(path)


def _partial(path: str) -> str:
    """Return the name of a copy that is not whole yet; one that was left there is overwritten."""
    folder, name = os.path.split(path)
    return str(Path(folder) / f".{name[:100]}.part{ASIDE}")


def _drop_reserved(path: str) -> None:
    if os.lstat(path).st_size == 0:
        Path(path).unlink()


def _copy(source: str, target: str, sha256: str) -> None:
    """Copy a file with its times and rights, and make sure that it has arrived."""
    try:
        shutil.copyfile(source, target)
        shutil.copystat(source, target)
        held = os.open(target, os.O_RDONLY)
        try:
            os.fsync(held)
        finally:
            os.close(held)
        _require_content(target, sha256, CHANGED)
    except (LeftAlone, OSError):
        Path(target).unlink(missing_ok=True)
        raise


def _require_content(path: str, sha256: str, otherwise: str) -> None:
    if not has_content(path, sha256):
        raise LeftAlone(otherwise)


def _require_unchanged(path: str, known: os.stat_result, undo: Callable[[], None]) -> None:
    now = os.lstat(path)
    if (now.st_size, now.st_mtime_ns, now.st_ino) != (
        known.st_size,
        known.st_mtime_ns,
        known.st_ino,
    ):
        undo()
        raise LeftAlone(CHANGED)


def _put_back(now: str, before: str) -> None:
    if not os.path.lexists(before):
        os.rename(now, before)  # noqa: PTH104 - likewise


def _settle_folder(path: str) -> None:
    """Make the names in a file's folder outlive a power failure, where the system can.

    Where it cannot, as in a folder that may not be read, the file has its new name all the same.
    """
    with suppress(OSError):
        folder = os.open(Path(path).parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
