"""Folders that are watched: told when something in them has changed, and has settled."""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from vecsearch.errors import InvalidInput, first_line
from vecsearch.imaging import scan, skipping
from vecsearch.imaging.sources import remote
from vecsearch.vocabulary import command_line

# Milliseconds without a change after which files have settled; those that never do are not waited
# for any longer. A file that is read too early changes once more, and is read again.
QUIET_MS, MOST_MS = 1_000, 15_000


def require_folders(paths: Iterable[str | Path], collection: str) -> list[str]:
    """Return the absolute paths of folders to watch for a collection.

    Raises:
        InvalidInput: one is not a folder of this machine.

    """
    roots = [scan.absolute(path) for path in paths]
    for root in roots:
        if remote.is_url(root):
            raise InvalidInput(
                f"{root} is a URL, and only folders of this machine can be watched. "
                "Run from time to time: "
                f"{command_line('ingest', root, collection=collection)}"
            )
    for root in scan.Walk(roots).roots:
        if not os.path.isdir(root):  # noqa: PTH112 - strings, as elsewhere
            raise InvalidInput(
                f"{scan.shown(root)} is a file, and only folders can be watched. "
                "Watch the folder that it is in."
            )
    return roots


def changes(roots: Sequence[str], *, apart: Path) -> Iterator[None]:
    """Yield once the folders are watched, and each time that images in them may have changed.

    What changes while the caller works is yielded next.

    Args:
        roots: absolute paths of folders.
        apart: a folder whose changes do not count, as they are our own.

    Raises:
        InvalidInput: the system cannot watch them.
        KeyboardInterrupt: Ctrl-C.

    """
    import watchfiles

    ours = os.path.abspath(apart)  # noqa: PTH100 - strings, as elsewhere
    has_begun = False

    def concerns(_: object, path: str) -> bool:
        return not has_begun or (not _is_under(path, ours) and may_matter(path, roots))

    found = watchfiles.watch(
        *roots,
        watch_filter=concerns,
        debounce=MOST_MS,
        step=QUIET_MS,
        rust_timeout=QUIET_MS,
        yield_on_timeout=True,
        ignore_permission_denied=True,  # the walk says so
    )
    while True:
        try:
            changed = next(found)
        except (OSError, RuntimeError) as error:
            raise InvalidInput(
                f"The system cannot watch {' and '.join(map(scan.shown, roots))}: "
                f"{first_line(error)}. Watch fewer folders, raise the system's limit "
                "(fs.inotify.max_user_watches), or set WATCHFILES_FORCE_POLLING=true."
            ) from error
        if changed or not has_begun:
            has_begun = True
            yield


def may_matter(path: str, roots: Iterable[str]) -> bool:
    """Return whether a walk of the roots would look at what changed at `path`."""
    above = os.path.dirname(path)  # noqa: PTH120 - strings, as elsewhere
    root = next((root for root in roots if _is_under(path, root)), above)
    if not all(map(skipping.is_entered, Path(path[len(root) :].strip(os.sep)).parts)):
        return False
    if skipping.skipped_as(path) is None:
        return True
    try:
        # What is gone may have been a folder.
        return not stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116 - likewise
    except OSError:
        return True


def _is_under(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip(os.sep)}{os.sep}")
