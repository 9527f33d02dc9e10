"""The data folder: its user's alone, and no one else's.

users.lock, start.lock   who uses the server, who starts it
keep-running             it stays up without users
port, roles              see `access` and `credentials`
cookies.key              see `vecsearch.web.serving`
socket-folder            where its socket is, if the path here is too long
postgres                 the database, which belongs to the server's user
"""

import os
import re
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO

from vecsearch.errors import DatabaseUnavailable
from vecsearch.postgres.embedded import access, programs
from vecsearch.postgres.embedded.programs import Account

USERS, STARTING = "users.lock", "start.lock"
# Folder of an initdb that has not finished, or never will.
PARTIAL = "postgres.partial"
ELSEWHERE = "Choose another with --data-dir or VECSEARCH_DATA_DIR."
_OURS = re.compile(
    rf"{re.escape(USERS)}|{re.escape(STARTING)}|keep-running|port|roles|uploads|socket-folder"
    rf"|cookies\.key|postgres|{re.escape(PARTIAL)}.*|scratch-.*|\..*\.partial"
)
# initdb passes paths to a shell; libpq reads a comma as a list of hosts.
_UNQUOTABLE = frozenset('",\\$`\n')
# What the system allows, less the name of a socket on any port.
_LONGEST_SOCKET_FOLDER = (107 if sys.platform == "linux" else 103) - len("/.s.PGSQL.65535")


def prepare(data_dir: Path) -> None:
    """Create the data folder, or check that it is the caller's, and close it to others.

    Nothing is changed if it is refused.

    Raises:
        DatabaseUnavailable: it cannot be used, or belongs to somebody else.

    """
    _require_quotable(data_dir)
    try:
        data_dir.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            data_dir.mkdir(mode=0o700)
        opened = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _close_to_others(data_dir, opened)
        finally:
            os.close(opened)
    except OSError as error:
        raise _unusable(data_dir, error) from error


def open_lock(data_dir: Path, name: str) -> IO[str]:
    """Open one of the lock files, which only its owner can open.

    Raises:
        DatabaseUnavailable: it cannot be opened, or belongs to somebody else.

    """
    try:
        opened = os.open(data_dir / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _unusable(data_dir, error) from error
    lock = os.fdopen(opened, "r+")
    found = os.fstat(opened)
    if found.st_uid != os.geteuid() or not stat.S_ISREG(found.st_mode):
        lock.close()
        raise DatabaseUnavailable(
            f"{data_dir / name} is not a file of this user's, so another user could hold up every "
            f"command. Remove it, or choose another folder with --data-dir or VECSEARCH_DATA_DIR."
        )
    return lock


def postgres(data_dir: Path) -> Path:
    """Return the folder of the database."""
    return data_dir / "postgres"


def keep_running(data_dir: Path) -> Path:
    """Return the file that keeps the server up without users."""
    return data_dir / "keep-running"


def version(folder: Path) -> int:
    """Return the major version of Postgres that made a database's folder.

    Raises:
        DatabaseUnavailable: it is none that the wheel has, or the folder is not a whole database.

    """
    try:
        text = programs.read_text(folder / "PG_VERSION").strip()
    except FileNotFoundError:
        text = ""
    if not re.fullmatch(r"[0-9]{1,4}", text):
        raise DatabaseUnavailable(
            f"{folder} is not a whole database: its file PG_VERSION "
            f"{'names no version' if text else 'is missing or empty'}. Restore the folder from a "
            "copy, or move it away and let vecsearch make a new one."
        )
    if int(text) not in programs.versions():
        known = " and ".join(map(str, programs.versions()))
        raise DatabaseUnavailable(
            f"{folder} was created by PostgreSQL {text}, and the embedded versions are {known}. "
            f"Start it with the programs of PostgreSQL {text}, run `vecsearch db dump FILE "
            "--database-url URL`, and then `vecsearch db restore FILE` in another folder, given "
            "with --data-dir."
        )
    return int(text)


def socket_folder(data_dir: Path, user: Account) -> Path:
    """Return the folder for the server's socket: the database's, unless its path is too long.

    Then it is a folder of a random name that only the server's user can enter, made anew if it is
    gone or not like that.
    """
    folder = postgres(data_dir)
    if len(os.fsencode(folder)) <= _LONGEST_SOCKET_FOLDER:
        return folder
    remembered = data_dir / "socket-folder"
    with suppress(FileNotFoundError):
        chosen = Path(remembered.read_text().rstrip("\n"))
        if _is_private(chosen, user):
            return chosen
    temporary = tempfile.gettempdir()
    if len(os.fsencode(temporary)) > _LONGEST_SOCKET_FOLDER // 2:
        temporary = "/tmp"  # noqa: S108 - only its owner can enter what is made there
    chosen = Path(tempfile.mkdtemp(prefix="vecsearch-", dir=temporary))
    if user.uid != os.geteuid():
        opened = os.open(chosen, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            os.fchown(opened, user.uid, user.gid)
        finally:
            os.close(opened)
    access.write(remembered, f"{chosen}\n")
    return chosen


def _is_private(folder: Path, user: Account) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(found.st_mode)
        and found.st_uid == user.uid
        and stat.S_IMODE(found.st_mode) == 0o700  # noqa: PLR2004 - the owner's alone
    )


def _require_quotable(data_dir: Path) -> None:
    try:
        os.fspath(data_dir).encode()
    except UnicodeEncodeError as error:
        raise DatabaseUnavailable(
            f"The path of the data folder {os.fsencode(data_dir)!r} is not UTF-8. {ELSEWHERE}"
        ) from error
    if odd := set(str(data_dir)) & _UNQUOTABLE:
        raise DatabaseUnavailable(
            f"The path of the data folder {data_dir} contains {' '.join(sorted(odd))}, "
            f"which the tools of Postgres cannot quote. {ELSEWHERE}"
        )


def _close_to_others(data_dir: Path, opened: int) -> None:
    """Take every right from other users, in a folder that holds nothing but a database."""
    found = os.fstat(opened)
    if found.st_uid != os.geteuid():
        raise DatabaseUnavailable(
            f"The data folder {data_dir} belongs to {_name(found.st_uid)}, and a database is its "
            f"owner's alone. {ELSEWHERE}"
        )
    if all(_OURS.fullmatch(name) for name in os.listdir(opened)):
        if found.st_mode & 0o077:
            os.fchmod(opened, 0o700)
    elif found.st_mode & 0o022:
        raise DatabaseUnavailable(
            f"Other users can write to the folder {data_dir}, so they could replace a database in "
            f"it. {ELSEWHERE}"
        )
    for entry in os.scandir(opened):
        mode = entry.stat(follow_symlinks=False)
        is_plain = entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)
        if (
            is_plain
            and _OURS.fullmatch(entry.name)
            and mode.st_uid == found.st_uid
            and mode.st_mode & 0o077
        ):
            os.chmod(entry.name, stat.S_IMODE(mode.st_mode) & 0o700, dir_fd=opened)


def _name(uid: int) -> str:
    import pwd

    try:
        return f"the user {pwd.getpwuid(uid).pw_name!r}"
    except KeyError:
        return f"user {uid}"


def _unusable(data_dir: Path, error: OSError) -> DatabaseUnavailable:
    return DatabaseUnavailable(
        f"Cannot use the data folder {data_dir}: {error.strerror}. {ELSEWHERE}"
    )
